"""What evaluation accepts, checked at the door."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyreid.evaluation.feature_files import open_features, spool
from pyreid.ops._register import FLOAT_TYPES
from pyreid.ops.distance_tiles import as_tensor, squared_norms

JUNK_ID = -1  # the identity of gallery images that are left out for all queries
_ROWS_AT_A_TIME = 1024  # of a message's details


def as_features(name: str, features: Any) -> Tensor:
    """A non-empty (N, D) matrix of floating-point numbers, on the memory that it came in.

    A path is opened by :func:`open_features`, and an iterator of chunks goes to the disk by :func:`spool`.

    Raises:
        TypeError: if the features are no tensor or array, or hold no floating-point numbers.
        ValueError: if they are not 2-D or empty, or a file cannot be read.
        OSError: if a file cannot be opened, or the disk is full.
    """
    if isinstance(features, str | os.PathLike):
        features = open_features(features)
    elif isinstance(features, Iterator):
        features = spool(name, features)
    tensor = as_tensor(name, features)
    if tensor.layout != torch.strided or tensor.device.type == "meta":
        raise TypeError(f"{name}: expected a dense tensor with values, got {tensor.layout} on {tensor.device}")
    if tensor.dtype not in FLOAT_TYPES:
        raise TypeError(f"{name}: expected float16, bfloat16, float32 or float64, got {tensor.dtype}")
    if tensor.dim() != 2 or 0 in tensor.shape:
        raise ValueError(f"{name}: expected a non-empty 2-D matrix, got shape {tuple(tensor.shape)}")
    return tensor


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
    q, g = as_features("query", query), as_features("gallery", gallery)
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


def choose_device(query: Tensor, gallery: Tensor, device: torch.device | str | None) -> torch.device:
    """Where to compute: as asked, else on the accelerator that holds features, else on the CPU."""
    if device is not None:
        try:
            chosen = torch.device(device)
        except RuntimeError as error:
            raise ValueError(f"device: expected for example 'cpu' or 'cuda:0', got {device!r}") from error
        if chosen.type not in ("cpu", "cuda"):
            raise ValueError(f"device: expected a CPU or CUDA device, got '{chosen}'")
        if chosen.type == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"device: '{chosen}' is not available, torch sees no CUDA device")
        if chosen.type == "cuda" and chosen.index is None:
            chosen = torch.device("cuda", torch.cuda.current_device())
        return chosen
    devices = {tensor.device for tensor in (query, gallery) if tensor.device.type != "cpu"}
    if len(devices) > 1:
        raise ValueError(f"gallery: on {gallery.device}, but query is on {query.device}; choose one with device=")
    return devices.pop() if devices else torch.device("cpu")


def checked_squared_norms(name: str, features: Tensor, *, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(N,) squared lengths of the rows; a row that cannot be ranked is an error.

    Raises:
        ValueError: if values are NaN or infinite, or if inner products of the rows would leave the range of ``dtype``.
    """
    norms = squared_norms(features, device=device, dtype=dtype)
    limits = torch.finfo(dtype)
    # By Cauchy-Schwarz no inner product, and none of its partial sums, exceeds the largest squared norm.
    large = ~(norms < limits.max / 4)  # also NaN
    if bool(large.any()):
        _raise_not_finite(name, features, large.nonzero().flatten().to(features.device))
        raise ValueError(_range_message(name, large, "overflows", dtype))
    small = norms < limits.tiny
    if bool(small.any()):
        suspects = small.nonzero().flatten().to(features.device)
        nonzero = torch.cat([features[rows].ne(0).any(dim=1) for rows in suspects.split(_ROWS_AT_A_TIME)])
        small[small.clone()] = nonzero.to(device)  # a row of zeros is what it is
        if bool(small.any()):
            raise ValueError(_range_message(name, small, "underflows", dtype))
    return norms


def _raise_not_finite(name: str, features: Tensor, suspects: Tensor) -> None:
    count, first = 0, None
    for rows in suspects.split(_ROWS_AT_A_TIME):
        wrong = (~torch.isfinite(features[rows])).nonzero()
        if len(wrong) and first is None:
            first = int(rows[wrong[0, 0]]), int(wrong[0, 1])
        count += len(wrong)
    if first is not None:
        raise ValueError(
            f"{name}: {count} NaN or infinite values, the first is {float(features[first])} at row {first[0]}, "
            f"column {first[1]}"
        )


def _range_message(name: str, rows: Tensor, does: str, dtype: torch.dtype) -> str:
    kind = str(dtype).removeprefix("torch.")
    return (
        f"{name}: the squared norm of {int(rows.sum())} rows {does} {kind}, the first is row "
        f"{int(rows.nonzero()[0])}; normalise or scale the features, or pass float64"
    )
