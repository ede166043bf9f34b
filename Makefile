# make demo    set up, then run the whole loop on a synthetic data set; writes report/
# make test    set up, then all tests: cpp_tests (CTest) and python_tests (pytest)
# make lint    set up, then ruff, mypy and clang-format
# make bench   set up, then the benchmarks; writes benchmarks/results/
# make gpu-check   on a machine with a GPU: build for it, run the gpu tests, compute-sanitizer and the benchmarks;
#              writes <device>.json and logs into OUT (default benchmarks/results); needs no network and no VENV
# make clean   remove what the build, the tests and the demo wrote; VENV stays
#
# PYTHON and VENV choose the interpreter and the virtual environment;
# PYREID_CUDA=ON|OFF overrides the search for nvcc, and CUDAARCHS the architectures: those of the GPUs of this machine or,
# where there is none, one, which is enough to see that the library builds and loads.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
NATIVE := $(shell find csrc cmake -type f) CMakeLists.txt build_backend.py pyproject.toml
FORMATTED = $(shell find csrc cpp_tests -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')

CUDAARCHS ?= $(or $(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2> /dev/null \
  | awk '$$1 >= 8 { print $$1 * 10 "-real" }' | sort -u | paste -sd ';'),90-real)
export CUDAARCHS

# Two at a time; what fails does not stop the rest. Unexported, as ninja would look for a jobserver that it cannot reach.
MAKEFLAGS += --jobs=2 --keep-going
unexport MAKEFLAGS

.PHONY: install demo test test-cpp test-python lint bench gpu-check clean

install: $(VENV)/.installed

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# What the C++ tests need: they are built while the rest is fetched.
$(VENV)/.cmake: $(BIN)/python
	$(BIN)/python -m pip install --quiet "cmake>=3.24" "ninja>=1.11"
	touch $@

# torch comes first: the build then finds it, and pip fetches no second one into an isolated build environment.
$(VENV)/.torch: $(VENV)/.cmake
	$(BIN)/python -m pip install --quiet "torch>=2.11" "torchvision>=0.26"
	touch $@

$(VENV)/.installed: $(VENV)/.torch $(NATIVE)
	$(BIN)/python -m pip install --quiet --editable ".[train,export,dev,faiss,milvus]"
	touch $@

demo: install
	$(BIN)/pyreid demo --output report

test: test-cpp test-python

test-cpp: $(VENV)/.cmake
	$(BIN)/cmake -S . -B build/cpp_tests -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
	  -DPYREID_EXTENSION=OFF -DPYREID_TESTS=ON
	$(BIN)/cmake --build build/cpp_tests
	$(BIN)/ctest --test-dir build/cpp_tests --parallel 2 --output-on-failure --no-tests=error

# A process of one thread for each part, the longest first; its log is shown when it is done.
LONG_TESTS := models inference test_compilation.py ops cli recipes
PYTHON_TESTS := $(addprefix python_tests/,$(LONG_TESTS))
PYTHON_TESTS += $(filter-out $(PYTHON_TESTS) %__pycache__ %__init__.py %conftest.py %ranks.py,$(wildcard python_tests/*))

test-python: $(PYTHON_TESTS)
.PHONY: $(PYTHON_TESTS)

$(PYTHON_TESTS): install
	@mkdir -p build/python_tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -p no:cacheprovider $@ > build/$@.log 2>&1; \
	status=$$?; cat build/$@.log; exit $$status

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(FORMATTED)

bench: install
	$(BIN)/python -m pip install --quiet --editable ".[bench]"
	$(BIN)/pyreid bench --fetch-peers --out benchmarks/results

# The interpreter's own torch and tools: this is for machines with a GPU and perhaps without a network.
OUT ?= benchmarks/results
gpu-check:
	$(PYTHON) .ci/gpu_check.py --out "$(OUT)"

clean:
	rm -rf build dist report runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
