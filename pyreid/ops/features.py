"""What evaluation and retrieval accept as features, checked at the door. Internal."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyreid.ops._checks import FLOAT_TYPES
from pyreid.ops.distance_tiles import as_tensor, squared_norms

_ROWS_AT_A_TIME = 1024  # of a message's details


def as_features(name: str, features: Any, *, may_be_empty: bool = False) -> Tensor:
    """An (N, D) matrix of floating-point numbers, on the memory that it came in.

    Args:
        name: of the argument, for messages.
        features: a torch tensor, a NumPy array or anything with DLPack.
        may_be_empty: whether N may be 0; D may not.

    Raises:
        TypeError: if the features are no tensor or array, or hold no floating-point numbers.
        ValueError: if they are not 2-D, or empty.
    """
    tensor = as_tensor(name, features)
    if tensor.layout != torch.strided or tensor.device.type == "meta":
        raise TypeError(f"{name}: expected a dense tensor with values, got {tensor.layout} on {tensor.device}")
    if tensor.dtype not in FLOAT_TYPES:
        raise TypeError(f"{name}: expected float16, bfloat16, float32 or float64, got {tensor.dtype}")
    if tensor.dim() != 2 or tensor.shape[1] == 0 or (len(tensor) == 0 and not may_be_empty):
        raise ValueError(f"{name}: expected a non-empty 2-D matrix, got shape {tuple(tensor.shape)}")
    return tensor


def choose_device(query: Tensor, gallery: Tensor, device: torch.device | str | None) -> torch.device:
    """Where to compute: as asked, else on the accelerator that holds features, else on the CPU."""
    if device is not None:
        try:
            chosen = torch.device(device)
        except (RuntimeError, TypeError) as error:
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
