"""PEP 517 backend: scikit-build-core, plus ``torch`` as a build requirement only when the target has none.

The libraries compile against the headers of torch's *stable ABI* and run with any torch >= 2.11, so the torch that is
installed beside the build will do. pip's isolation hides it from ``import``, but ``sysconfig`` still points at the
environment that is being installed into. Only an environment without torch gets one fetched for the build.
"""

from __future__ import annotations

import os
import re
import site
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scikit_build_core import build as _backend
from scikit_build_core.build import (
    build_sdist,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

MIN_TORCH = (2, 11)
STABLE_HEADER = "torch/include/torch/csrc/stable/library.h"


def _roots() -> Iterator[str]:
    """Folders of installed packages, the environment that is being installed into first."""
    yield sysconfig.get_path("purelib")
    yield sysconfig.get_path("platlib")
    config = Path(sys.prefix, "pyvenv.cfg")
    if not config.is_file() or re.search(r"(?mi)^include-system-site-packages\s*=\s*true", config.read_text()):
        base = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}
        yield sysconfig.get_path("purelib", vars=base)
        yield site.getusersitepackages()


def _version(root: Path) -> tuple[int, ...]:
    match = re.search(r"__version__ = '(\d+)\.(\d+)", (root / "torch" / "version.py").read_text())
    return tuple(map(int, match.groups())) if match else (0, 0)


def _target_torch() -> Path | None:
    """The folder that holds the target environment's torch, or None if it has none that is new enough."""
    chosen = os.environ.get("PYREID_TORCH_ROOT")
    if chosen:
        if not Path(chosen, STABLE_HEADER).is_file():
            raise RuntimeError(
                f"PYREID_TORCH_ROOT={chosen} holds no {STABLE_HEADER}: point it at a site-packages folder"
            )
        return Path(chosen)
    for root in map(Path, _roots()):
        if (root / STABLE_HEADER).is_file() and _version(root) >= MIN_TORCH:
            return root
    return None


def _requirements(base: list[str]) -> list[str]:
    return base if _target_torch() else [*base, "torch>=" + ".".join(map(str, MIN_TORCH))]


def _export() -> None:
    """Tell CMake which torch to compile against."""
    root = _target_torch()
    if root:
        os.environ["PYREID_TORCH_ROOT"] = str(root)


def get_requires_for_build_wheel(config_settings: dict[str, Any] | None = None) -> list[str]:
    return _requirements(_backend.get_requires_for_build_wheel(config_settings))


def get_requires_for_build_editable(config_settings: dict[str, Any] | None = None) -> list[str]:
    return _requirements(_backend.get_requires_for_build_editable(config_settings))


def build_wheel(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    _export()
    return _backend.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    _export()
    return _backend.build_editable(wheel_directory, config_settings, metadata_directory)
