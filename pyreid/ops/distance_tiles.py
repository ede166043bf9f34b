"""Inner products of query and gallery features in strips, without the full matrix. Internal.

Whatever ranks or searches a gallery multiplies features here: one strip of queries against the whole gallery at a time,
in one reused buffer. A matrix that is in the right place and type already is used as it lies (also memory-mapped);
others are converted block by block.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.utils.dlpack
from torch import Tensor

from pyreid.ops.duplicate_rows import duplicate_rows

_MIB = 2**20
_BLOCK_BYTES = 64 * _MIB  # of converted features at a time
_RESIDENT_BYTES = 512 * _MIB  # a converted gallery up to this size is kept for all strips

# A matrix product packs the whole gallery again for each strip, so a strip should not be low; more rows than these gain
# nothing. The budget of bytes yields to the least number of rows for galleries of hundreds of thousands.
_STRIP_BYTES = {"cpu": 64 * _MIB, "cuda": 1024 * _MIB}
_MAX_ROWS = {"cpu": 1024, "cuda": 4096}
_MIN_ROWS = 32


@torch.library.register_fake("pyreid::squared_norms")
def _fake(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[0])


def as_tensor(name: str, array: Any) -> Tensor:
    """A tensor on the memory of a torch tensor, a NumPy array (also memory-mapped) or anything with DLPack.

    Raises:
        TypeError: for any other object, and for element types that torch does not have.
    """
    if isinstance(array, Tensor):
        return array.detach()
    if not isinstance(array, np.ndarray):
        if hasattr(array, "__dlpack__"):
            return torch.utils.dlpack.from_dlpack(array)
        if not hasattr(array, "__array__"):
            raise TypeError(
                f"{name}: expected a torch tensor, a NumPy array or an object with DLPack, got {type(array).__name__}"
            )
        array = np.asarray(array)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if any(stride < 0 for stride in array.strides):
        array = np.ascontiguousarray(array)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # it is only read
        try:
            return torch.from_numpy(array)
        except TypeError as error:
            raise TypeError(f"{name}: expected numbers that torch knows, got {array.dtype}") from error


def computing_dtype(query: Tensor, gallery: Tensor) -> torch.dtype:
    """float64 if one of the two is, else float32."""
    return torch.float64 if torch.float64 in (query.dtype, gallery.dtype) else torch.float32


def squared_norms(features: Tensor, *, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(N,) squared lengths of the rows of (N, D) features."""
    norms = torch.empty(features.shape[0], device=device, dtype=dtype)
    for rows, block in _converted_blocks(features, device, dtype, _BLOCK_BYTES):
        norms[rows] = torch.ops.pyreid.squared_norms(block)
    return norms


def strip_rows(num_query: int, num_gallery: int, *, device: torch.device, dtype: torch.dtype) -> int:
    """Rows of a strip: within the memory budget, and such that all strips are about equally high."""
    kind = "cpu" if device.type == "cpu" else "cuda"
    affordable = _STRIP_BYTES[kind] // (max(1, num_gallery) * dtype.itemsize)
    rows = max(_MIN_ROWS, min(_MAX_ROWS[kind], affordable))
    strips = max(1, -(-num_query // rows))
    return max(1, -(-num_query // strips))


def inner_product_strips(
    query: Tensor, gallery: Tensor, *, device: torch.device, dtype: torch.dtype
) -> Iterator[tuple[slice, Tensor]]:
    """Strips of the inner products of all query rows with all gallery rows.

    The products are computed in ``dtype``, whatever autocast or the float32 matmul precision say: a ranking by TF32 or
    bfloat16 products would be another ranking. Gallery rows that are equal get equal products: the matrix product alone
    rounds the last columns of a strip in another order than the others.

    Args:
        query: (Q, D).
        gallery: (G, D).
        device: where to compute; features on another device are copied there, the query by strips, the gallery once if
            it is small and by blocks for each strip otherwise.
        dtype: torch.float32 or torch.float64.

    Yields:
        ``(rows, products)``: a slice of query rows and their (R, G) inner products, valid until the next step.
    """
    rows_per_strip = strip_rows(len(query), len(gallery), device=device, dtype=dtype)
    buffer = torch.empty(rows_per_strip, len(gallery), device=device, dtype=dtype)
    resident: Tensor | None = None
    if _is_ready(gallery, device, dtype):
        resident = gallery
    elif gallery.numel() * dtype.itemsize <= _RESIDENT_BYTES:
        resident = _convert(gallery, device, dtype)
    duplicates = duplicate_rows(gallery)
    if duplicates is not None:
        repeated, originals = (indices.to(device) for indices in duplicates)
    for start in range(0, len(query), rows_per_strip):
        rows = slice(start, min(start + rows_per_strip, len(query)))
        strip = query[rows] if _is_ready(query, device, dtype) else _convert(query[rows], device, dtype)
        products = buffer[: rows.stop - rows.start]
        if resident is not None:
            _multiply(strip, resident, products)
        else:
            for columns, block in _converted_blocks(gallery, device, dtype, _BLOCK_BYTES):
                _multiply(strip, block, products[:, columns])
        if duplicates is not None:
            products[:, repeated] = products[:, originals]
        yield rows, products


def _multiply(query: Tensor, gallery: Tensor, out: Tensor) -> None:
    with torch.no_grad(), _full_float32():  # autocast leaves operators with out= alone
        torch.mm(query, gallery.t(), out=out)


@contextlib.contextmanager
def _full_float32() -> Iterator[None]:
    # Per backend: torch.get_float32_matmul_precision() raises once a program has used the newer settings.
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


def _is_ready(features: Tensor, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a matrix product can read the matrix as it lies, without a hidden copy."""
    (rows, columns), (down, right) = features.shape, features.stride()
    dense = (right == 1 and down >= columns) or (down == 1 and right >= rows)
    return features.dtype == dtype and features.device == device and dense


def _convert(features: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    return features.to(device=device, dtype=dtype).contiguous()


def _converted_blocks(
    features: Tensor, device: torch.device, dtype: torch.dtype, block_bytes: int
) -> Iterator[tuple[slice, Tensor]]:
    rows_per_block = max(1, block_bytes // (max(1, features.shape[1]) * dtype.itemsize))
    for start in range(0, len(features), rows_per_block):
        rows = slice(start, min(start + rows_per_block, len(features)))
        yield rows, _convert(features[rows], device, dtype)
