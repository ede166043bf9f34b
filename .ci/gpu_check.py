"""Builds pyreid for the GPU of this machine, tests it there, and measures it. Needs no network: `make gpu-check`.

The interpreter's own torch (2.11 or later) is used, with the build tools and pytest that are installed beside it. The
build goes into an environment of its own, which sees the interpreter's packages; nothing else on the machine changes.
Every stage runs, also after one has failed, and leaves its output in <out>/<stage>.log; the last lines are a summary.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = ROOT / "build" / "gpu-check"
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
# -m gpu chooses after the modules are loaded: others may need packages that are not there
GPU_TESTS = ("python_tests/ops", "python_tests/evaluation", "python_tests/retrieval")
LONG = ("streaming", "training_step")  # of the benchmarks: a file of 10 GB, and whole networks
BUILD_TOOLS = ("pip", "torch", "numpy", "scikit_build_core", "pybind11", "pytest", "pytest_timeout", "hypothesis")


@dataclass(frozen=True)
class Stage:
    name: str
    command: list[str]
    limit_s: int
    environment: dict[str, str]


@dataclass(frozen=True)
class Outcome:
    name: str
    verdict: str
    seconds: float


def make_environment() -> Path:
    """An environment that sees this interpreter's packages, wherever they are; returns its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ENVIRONMENT], check=True)
    python = ENVIRONMENT / "bin" / "python"
    query = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = Path(subprocess.run([python, "-c", query], capture_output=True, text=True, check=True).stdout.strip())
    parents = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *_packages_on_path()])
    (own / "parent.pth").write_text("".join(f"{parent}\n" for parent in parents))
    return python


def _packages_on_path() -> list[str]:
    return [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]


def compute_capability() -> tuple[str, str]:
    """``("90", "NVIDIA H200")`` of the first GPU."""
    import torch

    if not torch.cuda.is_available():
        sys.exit(f"gpu-check: torch {torch.__version__} sees no CUDA device")
    major, minor = torch.cuda.get_device_capability()
    return f"{major}{minor}", torch.cuda.get_device_name()


def torch_root() -> str:
    """The folder that holds torch."""
    spec = find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parents[1])


def run(stage: Stage, out: Path, deadline: float) -> Outcome:
    """Run a stage until its limit or the deadline, then end it with everything it started."""
    log, start = out / f"{stage.name}.log", time.monotonic()
    limit = max(1.0, min(stage.limit_s, deadline - start))
    with log.open("w") as stream:
        process = subprocess.Popen(
            stage.command,
            cwd=ROOT,
            env={**os.environ, **stage.environment},
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(limit)
            verdict = "ok" if code == 0 else f"failed ({code})"
        except subprocess.TimeoutExpired:
            verdict = f"ran past {limit:.0f} s"
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    outcome = Outcome(stage.name, verdict, time.monotonic() - start)
    print(f"{outcome.name:<24} {outcome.verdict:<16} {outcome.seconds:6.0f} s", flush=True)
    return outcome


def pytest_command(python: Path) -> list[str]:
    return [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu"]


def sanitizer_stage(tool: str, python: Path, limit_s: int, *, clusters: bool = True) -> Stage:
    cases = "against_the_cpu" if clusters else "against_the_cpu and triplet"
    # initcheck must see torch's kernels too: they initialise what ours read.
    only_ours = [] if tool == "initcheck" else ["--kernel-name", "kns=pyreid"]
    files = ["python_tests/ops/test_devices.py"]
    if tool != "initcheck":  # it would watch the sorts and scans of torch between the kernels
        files.append("python_tests/retrieval/test_k_reciprocal_cuda.py")
    tests = [*pytest_command(python), "--timeout=0", "-k", cases, *files]
    return Stage(
        f"sanitizer-{tool}{'' if clusters else '-plain'}",
        ["compute-sanitizer", "--tool", tool, *only_ours, "--error-exitcode", "86", *tests],
        limit_s,
        # every tensor has an allocation of its own, so that a step over its end is seen
        {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "PYREID_CUDA_CLUSTERS": "1" if clusters else "0"},
    )


def benchmarks() -> list[str]:
    """All benchmarks, the longest last: each leaves its results, and the time may not be enough for all."""
    names = sorted(path.stem.removeprefix("bench_") for path in (ROOT / "benchmarks").glob("bench_*.py"))
    return [*(name for name in names if name not in LONG), *LONG]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="for logs and results")
    parser.add_argument("--limit", type=float, default=580, help="seconds for everything")
    parser.add_argument("--bench", type=float, default=170, help="seconds of them that are kept for the benchmarks")
    parser.add_argument("--sanitizer-limit", type=int, default=180, help="seconds for each tool of compute-sanitizer")
    args = parser.parse_args()
    missing = [name for name in BUILD_TOOLS if find_spec(name) is None]
    if missing:
        sys.exit(f"gpu-check: {sys.executable} lacks {', '.join(missing)}")
    if shutil.which("nvcc") is None:
        sys.exit("gpu-check: nvcc is not on the PATH")
    architecture, name = compute_capability()
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    python = make_environment()
    tools = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    print(f"{name}, sm_{architecture}; logs in {out}", flush=True)

    build = Stage(
        "build",
        [
            *(str(python), "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--force-reinstall"),
            *("--editable", ".", f"-Cbuild-dir={ENVIRONMENT / 'build'}", "-Ccmake.define.PYREID_CUDA=ON"),
            f"-Ccmake.define.CMAKE_CUDA_ARCHITECTURES={architecture}-real",
        ],
        240,
        {"PYREID_TORCH_ROOT": torch_root(), "PATH": tools},
    )
    deadline = time.monotonic() + args.limit
    outcomes = [run(build, out, deadline)]
    if outcomes[0].verdict != "ok":
        print((out / "build.log").read_text()[-4000:])
        sys.exit(1)

    parallel = ["-n", "6"] if find_spec("xdist") else []
    outcomes.append(
        run(Stage("tests", [*pytest_command(python), *parallel, *GPU_TESTS], 240, {}), out, deadline - args.bench)
    )
    if shutil.which("compute-sanitizer"):
        stages = [sanitizer_stage(tool, python, args.sanitizer_limit) for tool in SANITIZERS]
        stages += [
            sanitizer_stage(tool, python, args.sanitizer_limit, clusters=False) for tool in ("memcheck", "racecheck")
        ]
        with ThreadPoolExecutor(len(stages)) as pool:
            outcomes += pool.map(lambda stage: run(stage, out, deadline - args.bench), stages)
    else:
        outcomes.append(Outcome("sanitizer", "compute-sanitizer is not on the PATH", 0))
    # Last and alone: nothing else may load the GPU while it is timed.
    bench = [str(python), "-m", "pyreid", "bench", *benchmarks(), "--device", "cuda", "--out", str(out)]
    outcomes.append(run(Stage("bench", bench, 600, {}), out, deadline))

    for outcome in outcomes[1:]:
        log, lines = out / f"{outcome.name}.log", 60 if outcome.name == "bench" else 12
        if log.exists():
            print(f"--- {outcome.name}\n" + "\n".join(log.read_text().splitlines()[-lines:]))
    print("---")
    for outcome in outcomes:
        print(f"{outcome.name:<24} {outcome.verdict:<16} {outcome.seconds:6.0f} s")
    sys.exit(any(outcome.verdict != "ok" for outcome in outcomes))


if __name__ == "__main__":
    main()
