"""Peers that the evaluation benchmark loads by file path: their packages import what a current Python does not have.

fast-reid's Cython function comes from PyPI's fastreid 1.4.0 (rank_cy.pyx, compiled into a temporary folder),
torchreid's Python function from PyPI's torchreid 0.2.5.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

Evaluator = Callable[..., tuple[np.ndarray, float]]

FASTREID, TORCHREID = "fastreid==1.4.0", "torchreid==0.2.5"
_PYX = "fastreid/evaluation/rank_cylib/rank_cy.pyx"
_RANK = "torchreid-0.2.5/torchreid/reid/metrics/rank.py"

_COMPILE = """
import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
extension = Extension("rank_cy", ["rank_cy.pyx"], include_dirs=[numpy.get_include()],
                      extra_compile_args=["-O3", "-march=native"])
setup(name="rank_cy", ext_modules=cythonize([extension], language_level=3), script_args=["build_ext", "--inplace"])
"""


def fastreid_cython(folder: Path, fetch: bool) -> Evaluator:
    """fast-reid's evaluate_cy, as (cmc, mAP)."""
    wheel = _find(FASTREID, folder, "fastreid-*.whl", fetch)
    build = folder / "fastreid"
    build.mkdir(exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        (build / "rank_cy.pyx").write_bytes(archive.read(_PYX))
    _run([sys.executable, "-c", _COMPILE], build)
    module = _load("rank_cy", next(build.glob("rank_cy.*.so")))

    def evaluate(*arguments: Any) -> tuple[np.ndarray, float]:
        cmc, average_precision, _ = module.evaluate_cy(*arguments)
        return cmc, float(average_precision.mean())

    return evaluate


def torchreid_python(folder: Path, fetch: bool) -> Evaluator:
    """torchreid's evaluate_rank without Cython."""
    archive = _find(TORCHREID, folder, "torchreid-*.tar.gz", fetch)
    path = folder / "torchreid_rank.py"
    with tarfile.open(archive) as files:
        member = files.extractfile(_RANK)
        assert member is not None
        path.write_bytes(member.read())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that its Cython module is missing
        module = _load("torchreid_rank", path)
    evaluate: Evaluator = module.evaluate_rank
    return evaluate


def load_peers(folder: Path, *, fetch: bool) -> dict[str, Evaluator]:
    """The peers that can be had, by name; prints why one cannot.

    Args:
        folder: holds the downloaded files, or receives them.
        fetch: get files that are missing from PyPI.
    """
    found = {}
    for name, load in (("fast-reid (Cython)", fastreid_cython), ("torchreid (Python)", torchreid_python)):
        try:
            found[name] = load(folder, fetch)
        except (OSError, RuntimeError, ImportError, KeyError, StopIteration) as error:
            print(f"without {name}: {type(error).__name__}: {error}", file=sys.stderr)
    return found


def _find(requirement: str, folder: Path, pattern: str, fetch: bool) -> Path:
    if not list(folder.glob(pattern)):
        if not fetch:
            raise RuntimeError(f"{requirement} is not in the folder of peers, and fetching is off")
        kind = "--only-binary" if pattern.endswith(".whl") else "--no-binary"
        options = ["--no-deps", kind, ":all:", "--dest", str(folder)]
        _run([sys.executable, "-m", "pip", "download", "--quiet", *options, requirement], folder)
    return next(folder.glob(pattern))


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise RuntimeError(f"{' '.join(command[1:4])} ... failed: {reason}")


def _load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
