"""Identities, cameras and options of evaluation, checked at the door. Features: :mod:`pyreid.ops.features`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from pyreid.ops.distance_tiles import as_tensor
from pyreid.ops.feature_files import read_features

JUNK_ID = -1  # the identity of gallery images that are left out for all queries


def as_integers(name: str, values: Any, length: int, of: str) -> np.ndarray:
    """Identities or cameras as (length,) int64, copied: torch takes neither negative strides nor read-only arrays.

    Raises:
        TypeError: if they are not integers.
        ValueError: if they are not 1-D or of another length; ``of`` says what the length is of.
    """
    if not isinstance(values, np.ndarray):
        if hasattr(values, "__dlpack__"):
            values = as_tensor(name, values).cpu()
        try:
            array = np.asarray(values)
        except ValueError as error:  # of different lengths
            raise TypeError(f"{name}: expected {length} integers, one for each {of}, got {_kind(values)}") from error
        if array.ndim == 0 and not hasattr(values, "shape"):
            raise TypeError(f"{name}: expected {length} integers, one for each {of}, got {_kind(values)}")
        values = array
    if values.shape != (length,):
        raise ValueError(f"{name}: expected shape ({length},), one for each {of}, got {values.shape}")
    if values.dtype == object and all(isinstance(value, int) for value in values.flat):
        far = next((value for value in values.flat if not -(2**63) <= value < 2**63), None)
        if far is not None:
            raise ValueError(f"{name}: {far} does not fit a 64-bit signed integer")
    if values.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got {values.dtype}")
    if values.dtype == np.uint64 and values.size and values.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name}: {values.max()} does not fit a 64-bit signed integer")
    return np.array(values, dtype=np.int64, order="C")


def _kind(values: object) -> str:
    """What messages call an object: by its type, or by those of what is in it."""
    if not isinstance(values, list | tuple):
        return type(values).__name__
    kinds = sorted({type(value).__name__ for value in values})
    return f"a {type(values).__name__} of {', '.join(kinds[:3])} of different shapes"


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


class Sets(NamedTuple):
    """Query and gallery, checked: (N, D) features, (N,) int64 identities and cameras, or no cameras on either side."""

    query: Tensor
    gallery: Tensor
    query_ids: np.ndarray
    gallery_ids: np.ndarray
    query_cams: np.ndarray | None
    gallery_cams: np.ndarray | None


def as_sets(
    query: Any, gallery: Any, query_ids: Any, gallery_ids: Any, query_cams: Any = None, gallery_cams: Any = None
) -> Sets:
    """All that an evaluation is given.

    Raises:
        TypeError: if features are not floating-point, or identities or cameras not integers.
        ValueError: if shapes or lengths are wrong, cameras are given for one side only, or a side is empty.
    """
    q, g = read_features("query", query), read_features("gallery", gallery)
    if q.shape[1] != g.shape[1]:
        raise ValueError(f"gallery: expected {q.shape[1]} columns to match query, got shape {tuple(g.shape)}")
    return Sets(
        q,
        g,
        as_integers("query_ids", query_ids, len(q), "row of query"),
        as_integers("gallery_ids", gallery_ids, len(g), "row of gallery"),
        *as_cameras("query_cams", query_cams, len(q), "gallery_cams", gallery_cams, len(g)),
    )


def as_max_rank(max_rank: object, name: str = "max_rank") -> int:
    """A positive int."""
    return as_count(name, max_rank, least=1)


def as_count(name: str, value: object, *, least: int) -> int:
    """An int that is at least ``least``.

    Raises:
        TypeError: if it is no integer.
        ValueError: if it is smaller.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")
    return int(value)
