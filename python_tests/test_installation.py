"""What is installed: libraries, their symbols, build facts, and errors that say what to do."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

import pyreid
from pyreid import _extension
from pyreid.errors import ExtensionError

ROOT = Path(__file__).parents[1]

LIBRARIES = [
    "pyreid_cpu",
    pytest.param(
        "pyreid_cuda",
        # to read its symbols it need not load
        marks=pytest.mark.skipif(
            not _extension.library_path("pyreid_cuda").is_file(),
            reason=f"no CUDA library: {_extension.load_cuda_library()}",
        ),
    ),
]


def test_version_is_the_installed_one() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", pyreid.__version__)


def test_module_prints_versions_and_libraries() -> None:
    run = subprocess.run([sys.executable, "-m", "pyreid"], capture_output=True, text=True, check=True)
    lines = dict(line.split(maxsplit=1) for line in run.stdout.splitlines() if not line.startswith(("CPU", "CUDA")))
    assert lines["pyreid"] == pyreid.__version__
    assert lines["torch"] == torch.__version__
    assert re.search(r"^CPU library +loaded$", run.stdout, re.MULTILINE)
    assert re.search(r"^CPU features +(baseline|avx2|avx512), \d+ threads$", run.stdout, re.MULTILINE)
    assert re.search(r"^CUDA library +\S", run.stdout, re.MULTILINE)


@pytest.mark.skipif(shutil.which("nm") is None, reason="nm (binutils) is not installed")
@pytest.mark.parametrize("library", LIBRARIES)
def test_only_stable_symbols_of_torch_are_used(library: str) -> None:
    path = _extension.library_path(library)
    run = subprocess.run(["nm", "-D", "--undefined-only", "-C", path], capture_output=True, text=True, check=True)
    symbols = [line.split(maxsplit=1)[1] for line in run.stdout.splitlines() if " U " in line]
    assert any("aoti_torch_" in symbol or "torch_" in symbol for symbol in symbols)
    unstable = [s for s in symbols if re.search(r"\b(at|c10|torch|caffe2)::", s)]
    assert not unstable


@pytest.mark.skipif(shutil.which("readelf") is None, reason="readelf (binutils) is not installed")
@pytest.mark.parametrize("library", LIBRARIES)
def test_libraries_hold_no_path_of_the_build_machine(library: str) -> None:
    run = subprocess.run(
        ["readelf", "-d", _extension.library_path(library)], capture_output=True, text=True, check=True
    )
    assert "RPATH" not in run.stdout
    assert "RUNPATH" not in run.stdout
    assert "libtorch_cpu.so" in run.stdout


def test_distributions_hold_every_file(tmp_path: Path) -> None:
    # wheel.cmake=false leaves the compiled parts out, which takes no time
    code = (
        "import sys, build_backend; build_backend.build_sdist(sys.argv[1]);"
        "build_backend.build_wheel(sys.argv[1], {'wheel.cmake': 'false'})"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, check=True, capture_output=True)
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "pyreid").rglob("*.py")}
    native = {
        path.relative_to(ROOT).as_posix()
        for folder in ("csrc", "cmake", "recipes")
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
    }
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        assert not package - set(wheel.namelist())
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as sdist:
        held = {name.partition("/")[2] for name in sdist.getnames()}
        assert not (package | native) - held
        assert not [name for name in held if name.startswith((".venv", "build/", "runs/", "report/"))]


def test_missing_library_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_extension, "library_path", lambda name: tmp_path / f"{name}.so")
    with pytest.raises(ExtensionError, match=r"pyreid_cpu\.so is missing; reinstall pyreid with `pip install \.`"):
        _extension.load_cpu_library.__wrapped__()


def test_broken_library_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyreid_cpu.so").write_bytes(b"not a library")
    monkeypatch.setattr(_extension, "library_path", lambda name: tmp_path / f"{name}.so")
    with pytest.raises(ExtensionError, match="does not load with torch"):
        _extension.load_cpu_library.__wrapped__()


def test_info_reports_a_missing_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_extension, "library_path", lambda name: tmp_path / f"{name}.so")
    monkeypatch.setattr(_extension, "load_cpu_library", _extension.load_cpu_library.__wrapped__)
    assert "is missing" in pyreid.info().cpu_library


@pytest.mark.parametrize("limit", ["baseline", "avx2", "avx512", "nonsense"])
def test_instruction_set_can_be_lowered(limit: str) -> None:
    code = "from pyreid import _native; print(_native.cpu_isa())"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYREID_CPU_ISA": limit}
    )
    best = _extension.native().cpu_isa()
    order = ["baseline", "avx2", "avx512"]
    expected = order[min(order.index(limit), order.index(best))] if limit in order else best
    assert run.stdout.strip() == expected
