"""Peers that the benchmarks load by file path: their packages import what a current Python does not have.

fast-reid's functions come from PyPI's fastreid 1.4.0 (the evaluator is rank_cy.pyx, compiled into a temporary folder;
re-ranking needs faiss), torchreid's from PyPI's torchreid 0.2.5.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

Evaluator = Callable[..., tuple[np.ndarray, float]]
# (query features, gallery features, k1, k2, lambda) -> re-ranked distances
ReRanker = Callable[[Tensor, Tensor, int, int, float], np.ndarray]
Peer = TypeVar("Peer")

CYTHON = "fast-reid (Cython)"
FASTREID, TORCHREID = "fastreid==1.4.0", "torchreid==0.2.5"
_PYX = "fastreid/evaluation/rank_cylib/rank_cy.pyx"
_RANK = "torchreid-0.2.5/torchreid/reid/metrics/rank.py"
_RERANK = "torchreid-0.2.5/torchreid/reid/utils/rerank.py"
_JACCARD = "fastreid/utils/compute_dist.py", "fastreid/utils/faiss_utils.py"

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
    evaluate: Evaluator = _torchreid(_RANK, folder, fetch).evaluate_rank
    return evaluate


def official_re_ranking(folder: Path, fetch: bool) -> ReRanker:
    """The published NumPy function, of which torchreid has a copy, on Euclidean distances."""
    module = _torchreid(_RERANK, folder, fetch)

    def distances(x: Tensor, y: Tensor) -> np.ndarray:
        squared = x.square().sum(1, keepdim=True) + y.square().sum(1) - 2 * (x @ y.T)
        return squared.clamp_(min=0).sqrt_().numpy()

    def re_rank(query: Tensor, gallery: Tensor, k1: int, k2: int, lambda_value: float) -> np.ndarray:
        matrices = distances(query, gallery), distances(query, query), distances(gallery, gallery)
        return module.re_ranking(*matrices, k1=k1, k2=k2, lambda_value=lambda_value)

    return re_rank


def fastreid_jaccard(folder: Path, fetch: bool) -> ReRanker:
    """fast-reid's re-ranking with faiss on the CPU, put together as its evaluator does for Euclidean distances."""
    wheel = _find(FASTREID, folder, "fastreid-*.whl", fetch)
    package = folder / "fastreid_rerank"
    package.mkdir(exist_ok=True)
    (package / "__init__.py").touch()
    with zipfile.ZipFile(wheel) as archive:
        for name in _JACCARD:
            (package / Path(name).name).write_bytes(archive.read(name))
    _load("fastreid_rerank", package / "__init__.py")
    module = _load("fastreid_rerank.compute_dist", package / "compute_dist.py")

    def re_rank(query: Tensor, gallery: Tensor, k1: int, k2: int, lambda_value: float) -> np.ndarray:
        features = torch.cat([query, gallery])
        jaccard = module.compute_jaccard_distance(features, k1=k1, k2=k2, search_option=3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an outdated signature of addmm_
            distances = module.build_dist(query, gallery, "euclidean")
        return jaccard[: len(query), len(query) :] * (1 - lambda_value) + distances * lambda_value

    return re_rank


def load_peers(folder: Path, *, fetch: bool) -> dict[str, Evaluator]:
    """The evaluators that can be had, by name; prints why one cannot.

    Args:
        folder: holds the downloaded files, or receives them.
        fetch: get files that are missing from PyPI.
    """
    loaders = {CYTHON: fastreid_cython, "torchreid (Python)": torchreid_python}
    return _load_all(loaders, folder, fetch)


def load_re_rankers(folder: Path, *, fetch: bool) -> dict[str, ReRanker]:
    """The re-ranking functions that can be had, as :func:`load_peers`."""
    return _load_all({"official (NumPy)": official_re_ranking, "fast-reid (faiss)": fastreid_jaccard}, folder, fetch)


def _load_all(loaders: Mapping[str, Callable[[Path, bool], Peer]], folder: Path, fetch: bool) -> dict[str, Peer]:
    found = {}
    for name, load in loaders.items():
        try:
            found[name] = load(folder, fetch)
        except (OSError, RuntimeError, ImportError, KeyError, StopIteration) as error:
            print(f"without {name}: {error}", file=sys.stderr)
    return found


def _torchreid(member: str, folder: Path, fetch: bool) -> ModuleType:
    archive = _find(TORCHREID, folder, "torchreid-*.tar.gz", fetch)
    path = folder / f"torchreid_{Path(member).name}"
    with tarfile.open(archive) as files:
        file = files.extractfile(member)
        assert file is not None
        path.write_bytes(file.read())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the evaluator warns that its Cython module is missing
        return _load(path.stem, path)


def _find(requirement: str, folder: Path, pattern: str, fetch: bool) -> Path:
    if not list(folder.glob(pattern)):
        if not fetch:
            raise RuntimeError(f"{requirement} is not in the folder of peers; give --fetch-peers or --peers DIR")
        kind = "--only-binary" if pattern.endswith(".whl") else "--no-binary"
        options = ["--no-deps", kind, ":all:", "--dest", str(folder.resolve())]
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
    sys.modules[name] = module  # relative imports look for the package there
    spec.loader.exec_module(module)
    return module
