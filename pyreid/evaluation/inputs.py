"""Identities, cameras and options of evaluation, checked at the door. Features: :mod:`pyreid.ops.features`."""

from __future__ import annotations

from typing import Any

import numpy as np

from pyreid.ops.distance_tiles import as_tensor


def as_integers(name: str, values: Any, length: int, of: str) -> np.ndarray:
    """Identities or cameras as (length,) int64.

    Raises:
        TypeError: if they are not integers.
        ValueError: if they are not 1-D or of another length; ``of`` says what the length is of.
    """
    if not isinstance(values, np.ndarray):
        if hasattr(values, "__dlpack__"):
            values = as_tensor(name, values).cpu()
        values = np.asarray(values)
    if values.shape != (length,):
        raise ValueError(f"{name}: expected shape ({length},), one for each {of}, got {values.shape}")
    if values.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got {values.dtype}")
    if values.dtype == np.uint64 and values.size and values.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name}: {values.max()} does not fit a 64-bit signed integer")
    return np.ascontiguousarray(values, dtype=np.int64)


def as_cameras(
    query_name: str, query_cams: Any, num_query: int, gallery_name: str, gallery_cams: Any, num_gallery: int
) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    """Both cameras as int64, or None for both: no camera filter.

    Raises:
        ValueError: if they are given for one side only.
    """
    if (query_cams is None) != (gallery_cams is None):
        missing, given = (query_name, gallery_name) if query_cams is None else (gallery_name, query_name)
        raise ValueError(f"{missing}: expected cameras, because {given} is given; pass None for both to ignore cameras")
    if query_cams is None:
        return None, None
    return (
        as_integers(query_name, query_cams, num_query, "row of query"),
        as_integers(gallery_name, gallery_cams, num_gallery, "row of gallery"),
    )


def as_max_rank(max_rank: object) -> int:
    """A positive int."""
    if isinstance(max_rank, bool) or not isinstance(max_rank, int | np.integer):
        raise TypeError(f"max_rank: expected an integer, got {type(max_rank).__name__}")
    if max_rank < 1:
        raise ValueError(f"max_rank: expected at least 1, got {max_rank}")
    return int(max_rank)
