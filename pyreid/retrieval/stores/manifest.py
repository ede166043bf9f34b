"""The manifest of a local store: which generation of its files is the current one. Internal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

from pyreid.errors import GalleryError
from pyreid.ops._checks import Metric

_FORMAT = 1


def read_manifest(path: Path) -> dict[str, Any]:
    """Columns, metric and generation.

    Raises:
        GalleryError: if it is damaged or of another format.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
        if found["format"] != _FORMAT:
            raise GalleryError(f"{path}: expected format {_FORMAT}, got {found['format']}")
        columns, metric, generation = (found[name] for name in ("columns", "metric", "generation"))
        if type(columns) is not int or type(generation) is not int or columns < 1 or generation < 0:
            raise ValueError(f"columns {columns!r}, generation {generation!r}")
        if metric not in get_args(Metric):
            raise ValueError(f"metric {metric!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise GalleryError(f"{path}: no manifest of a gallery ({error})") from error
    return found


def pack_manifest(columns: int, metric: str, generation: int) -> bytes:
    """The content of the file."""
    content = {"format": _FORMAT, "columns": columns, "metric": metric, "generation": generation}
    return json.dumps(content, indent=2).encode() + b"\n"
