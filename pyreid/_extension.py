"""Loads the compiled parts of pyreid: the module ``_native`` and the operator libraries for CPU and CUDA tensors."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import ModuleType

import torch

from pyreid.errors import ExtensionError

_REBUILD = "reinstall pyreid with `pip install .` in its source folder (README, Installation)"


@cache
def native() -> ModuleType:
    """The torch-free module with build facts.

    Raises:
        ExtensionError: if it is missing or does not load.
    """
    try:
        from pyreid import _native
    except ImportError as error:
        raise ExtensionError(f"pyreid._native does not load ({error}); {_REBUILD}") from error
    module: ModuleType = _native
    return module


def library_path(name: str) -> Path:
    """Where the library ``name`` lies: beside ``_native``, which an editable install keeps apart from the sources."""
    return Path(str(native().__file__)).parent / "lib" / f"{name}.so"


@cache
def load_cpu_library() -> None:
    """Register the operators and their CPU kernels with torch.

    Raises:
        ExtensionError: if the library is missing or does not load.
    """
    path = library_path("pyreid_cpu")
    if not path.is_file():
        raise ExtensionError(f"the library {path} is missing; {_REBUILD}")
    try:
        torch.ops.load_library(path)
    except OSError as error:
        raise ExtensionError(
            f"{path} does not load with torch {torch.__version__} ({error}); it was built for torch "
            f"{native().BUILD_TORCH} and needs 2.11 or later: {_REBUILD}"
        ) from error


@cache
def load_cuda_library() -> str | None:
    """Register the CUDA kernels with torch, also on a machine without a GPU.

    Returns:
        None if the library was loaded, else the reason why there is none.
    """
    path = library_path("pyreid_cuda")
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    if not path.is_file():
        return "not built: set PYREID_CUDA=ON (and have nvcc on the PATH) for `pip install .`"
    try:
        torch.ops.load_library(path)
    except OSError as error:
        return f"{path} does not load with torch {torch.__version__}: {error}"
    return None
