"""Inner products of query and gallery features in tiles, without the full matrix. Internal.

Whatever ranks or searches a gallery multiplies features here: one tile of queries and gallery rows at a time, in one
reused buffer. A matrix that is in the right place and type already is used as it lies (also memory-mapped); others are
converted block by block.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.utils.dlpack
from torch import Tensor

from pyreid.ops._checks import Metric
from pyreid.ops.duplicate_rows import duplicate_rows

_MIB = 2**20
_BLOCK_BYTES = 64 * _MIB  # of converted features at a time
_RESIDENT_BYTES = 512 * _MIB  # a converted gallery up to this size is kept for all strips

# A matrix product packs the gallery again for each strip of queries, so a tile should not be low; more rows than these
# gain nothing. The budget of bytes yields to the least number of rows for tiles of hundreds of thousands of columns.
_TILE_BYTES = {"cpu": 64 * _MIB, "cuda": 1024 * _MIB}
_MAX_ROWS = {"cpu": 1024, "cuda": 4096}
_MIN_ROWS = 32


@torch.library.register_fake("pyreid::squared_norms")
def _fake(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[0])


def as_tensor(name: str, array: Any) -> Tensor:
    """A tensor on the memory of a torch tensor, a NumPy array (also memory-mapped) or anything with DLPack.

    A NumPy array that torch cannot describe is copied: of another byte order, or with strides that are negative or no
    multiples of the numbers' size, as those of a field of packed records.

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
    if not array.flags.aligned or any(stride < 0 or stride % array.itemsize for stride in array.strides):
        array = array.copy(order="C")  # ascontiguousarray would leave the stride of a single row
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # it is only read
        try:
            return torch.from_numpy(array)
        except TypeError as error:
            raise TypeError(f"{name}: expected numbers that torch knows, got {array.dtype}") from error


def squared_norms(features: Tensor, *, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(N,) squared lengths of the rows of (N, D) features."""
    norms = torch.empty(features.shape[0], device=device, dtype=dtype)
    for rows, block in _converted_blocks(features, device, dtype, _BLOCK_BYTES):
        norms[rows] = torch.ops.pyreid.squared_norms(block)
    return norms


def rank_column(norms: Tensor, metric: Metric) -> dict[str, Tensor]:
    """What turns inner products into the values that the gallery is ranked by, from its squared norms.

    Returns:
        ``{"offset": |g|^2 / 2}`` or, for cosine, ``{"scale": 1 / |g|}``: the value of a pair is ``offset - q.g`` or
        ``-(q.g * scale)`` (csrc/rank_value.h). A row of zeros has similarity 0 with everything.
    """
    if metric == "cosine":
        return {"scale": torch.where(norms > 0, norms.sqrt().reciprocal(), 0)}
    return {"offset": norms / 2}


def tile_rows(num_query: int, columns: int, *, device: torch.device, dtype: torch.dtype) -> int:
    """Rows of a tile: within the memory budget, and such that all tiles are about equally high."""
    kind = "cpu" if device.type == "cpu" else "cuda"
    affordable = _TILE_BYTES[kind] // (max(1, columns) * dtype.itemsize)
    rows = max(_MIN_ROWS, min(_MAX_ROWS[kind], affordable))
    tiles = max(1, -(-num_query // rows))
    return max(1, -(-num_query // tiles))


def inner_product_tiles(
    query: Tensor,
    gallery: Tensor,
    *,
    device: torch.device,
    dtype: torch.dtype,
    columns: int | None = None,
    blocks: Sequence[slice] | None = None,
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Tiles of the inner products of all query rows with all gallery rows: for each strip of queries the gallery's
    tiles in their order.

    The products are computed in ``dtype``, whatever autocast or the float32 matmul precision say: a ranking by TF32 or
    bfloat16 products would be another ranking. Gallery rows that are equal get equal products: the matrix product alone
    rounds the last columns of a tile in another order than the others. So beyond the tile, memory holds one product for
    each query of a strip and gallery row that is repeated.

    Args:
        query: (Q, D).
        gallery: (G, D).
        device: where to compute; features on another device are copied there, the query by strips, the gallery once if
            it is small and by blocks for each strip otherwise.
        dtype: torch.float32 or torch.float64.
        columns: gallery rows in a tile; None for all of them, so that a tile is a whole strip.
        blocks: the query rows to multiply, each block in strips of its own; None for all of them as one block.

    Yields:
        ``(rows, columns, products)``: slices of query rows and of gallery rows and their (R, C) inner products, dense,
        valid until the next step.
    """
    width = len(gallery) if columns is None else min(columns, len(gallery))
    strips = [
        slice(block.start + strip.start, block.start + strip.stop)
        for block in ([slice(0, len(query))] if blocks is None else blocks)
        for strip in _slices(
            block.stop - block.start, tile_rows(block.stop - block.start, width, device=device, dtype=dtype)
        )
    ]
    if not strips:
        return
    height = max(strip.stop - strip.start for strip in strips)
    buffer = torch.empty(height * width, device=device, dtype=dtype)
    resident: Tensor | None = None
    if _is_ready(gallery, device, dtype):
        resident = gallery
    elif gallery.numel() * dtype.itemsize <= _RESIDENT_BYTES:
        resident = _convert(gallery, device, dtype)
    duplicates = duplicate_rows(gallery)
    ties = None if duplicates is None else _Ties(*duplicates, height, device=device, dtype=dtype)
    for rows in strips:
        strip = query[rows] if _is_ready(query, device, dtype) else _convert(query[rows], device, dtype)
        for tile in _slices(len(gallery), width):
            shape = (len(strip), tile.stop - tile.start)
            products = buffer[: shape[0] * shape[1]].view(shape)
            if resident is not None:
                _multiply(strip, resident[tile], products)
            else:
                for block, converted in _converted_blocks(gallery[tile], device, dtype, _BLOCK_BYTES):
                    _multiply(strip, converted, products[:, block])
            if ties is not None:
                ties.apply(products, tile)
            yield rows, tile, products


def triangle_strips(x: Tensor, first: int) -> Iterator[tuple[slice, Tensor]]:
    """Strips of the inner products of the rows of a matrix with one another, each pair in one strip.

    Computed as :func:`inner_product_tiles` does, with half of its work. Equal rows do not get equal products: a matrix
    that has some (:func:`pyreid.ops.duplicate_rows.duplicate_rows`) must not be multiplied in this way.

    Args:
        x: (N, D) dense, float32 or float64.
        first: only rows from this one on.

    Yields:
        ``(rows, products)``: a slice of rows and their (R, N - rows.start) inner products with themselves and all later
        rows, dense, valid until the next step.
    """
    total, strips = len(x), []
    while first < total:
        rows = tile_rows(total - first, total - first, device=x.device, dtype=x.dtype)
        strips.append(slice(first, min(first + rows, total)))
        first = strips[-1].stop
    sizes = [(strip.stop - strip.start) * (total - strip.start) for strip in strips]
    buffer = x.new_empty(max(sizes, default=0))
    for strip, size in zip(strips, sizes, strict=True):
        products = buffer[:size].view(strip.stop - strip.start, -1)
        _multiply(x[strip], x[strip.start :], products)
        yield strip, products


class _Ties:
    """Gives repeated gallery rows the products of their first occurrences, which earlier tiles of a strip may hold."""

    def __init__(
        self, repeated: Tensor, originals: Tensor, height: int, *, device: torch.device, dtype: torch.dtype
    ) -> None:
        repeated, order = repeated.to(device).sort()
        self._originals, slots = originals.to(device)[order].unique(return_inverse=True)
        self._repeated, self._slots = repeated, slots
        self._hosts = [tensor.cpu() for tensor in (self._originals, repeated)]
        self._products = torch.empty(height, len(self._originals), device=device, dtype=dtype)

    def apply(self, products: Tensor, tile: slice) -> None:
        """Takes the products of originals from a tile and sets those of the repeated rows in it."""
        ends = torch.tensor([tile.start, tile.stop], device="cpu")
        (first, last), (begin, end) = (torch.searchsorted(host, ends).tolist() for host in self._hosts)
        held = self._products[: len(products)]
        held[:, first:last] = products[:, self._originals[first:last] - tile.start]
        products[:, self._repeated[begin:end] - tile.start] = held[:, self._slots[begin:end]]


def _slices(total: int, size: int) -> Iterator[slice]:
    for start in range(0, total, max(1, size)):
        yield slice(start, min(start + size, total))


def _multiply(query: Tensor, gallery: Tensor, out: Tensor) -> None:
    with torch.no_grad(), full_float32():  # autocast leaves operators with out= alone
        torch.mm(query, gallery.t(), out=out)


# Precision is a setting of the whole process: two threads that change and restore it at once would leave it changed.
_precision_lock = threading.RLock()


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Matrix products in the dtype of their operands, whatever ``torch.backends`` allows; one thread at a time."""
    with _precision_lock, _ieee_products():
        yield


@contextlib.contextmanager
def _ieee_products() -> Iterator[None]:
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
    for rows in _slices(len(features), rows_per_block):
        yield rows, _convert(features[rows], device, dtype)
