"""The nearest gallery rows of each query row, without the matrix of their distances."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyreid.ops._checks import (
    Metric,
    check_choice,
    check_device,
    check_float_tensor,
    check_k,
    computing_dtype,
)
from pyreid.ops._register import (
    check_transforms,
    forbid_double_backward,
)
from pyreid.ops.distance_tiles import inner_product_tiles, rank_column

# Tiles that stay in the cache until they have been searched, and on CUDA ones that keep the device busy.
_TILE_COLUMNS = {"cpu": 2048, "cuda": 65536}
_COLUMNS_PER_NEIGHBOR = 4  # what a tile costs beyond its columns is proportional to k
MOST_NEIGHBORS_ON_CUDA = 2048  # they are kept in shared memory


def tile_columns(device: torch.device, k: int) -> int:
    """Gallery rows in a tile of a search for ``k`` neighbors."""
    return max(_TILE_COLUMNS[device.type], _COLUMNS_PER_NEIGHBOR * k)


def _search(query: Tensor, gallery: Tensor, k: int, metric: str) -> tuple[Tensor, Tensor]:
    distances = query.new_empty((len(query), k))
    indices = query.new_empty((len(query), k), dtype=torch.int64)
    if indices.numel() == 0:
        return distances, indices
    query, gallery = query.contiguous(), gallery.contiguous()
    query_norms, gallery_norms = torch.ops.pyreid.squared_norms(query), torch.ops.pyreid.squared_norms(gallery)
    column = rank_column(gallery_norms, metric)  # type: ignore[arg-type]  # checked by the caller
    offset, scale = column.get("offset"), column.get("scale")
    words = query.element_size() // 4  # of 64 bits for a neighbor, see csrc/nearest_neighbors.h
    width = tile_columns(query.device, k)
    tiles = inner_product_tiles(query, gallery, device=query.device, dtype=query.dtype, columns=width)
    for rows, columns, products in tiles:
        if columns.start == 0:
            kept = indices.new_empty((len(products), k * words))
        torch.ops.pyreid.keep_nearest(
            kept,
            products,
            None if offset is None else offset[columns],
            None if scale is None else scale[columns],
            columns.start,
        )
        if columns.stop == len(gallery):
            distances[rows], indices[rows] = torch.ops.pyreid.nearest_distances(
                kept, query[rows], gallery, query_norms[rows], gallery_norms, metric
            )
    return distances, indices


_op = torch.library.custom_op("pyreid::nearest_neighbors", _search, mutates_args=(), device_types=("cpu", "cuda"))


@_op.register_fake
def _fake(query: Tensor, gallery: Tensor, k: int, metric: str) -> tuple[Tensor, Tensor]:
    return query.new_empty((query.shape[0], k)), query.new_empty((query.shape[0], k), dtype=torch.int64)


@torch.library.custom_op("pyreid::nearest_neighbors_backward", mutates_args=(), device_types=("cpu", "cuda"))
def _backward_op(
    grad: Tensor, distances: Tensor, indices: Tensor, query: Tensor, gallery: Tensor, metric: str
) -> tuple[Tensor, Tensor]:
    query, gallery = query.contiguous(), gallery.contiguous()
    # The pairs of each gallery row, in the order of the queries: what a row gathers is added in one fixed order.
    items, order = indices.flatten().sort(stable=True)
    starts = torch.searchsorted(items, torch.arange(len(gallery) + 1, device=items.device))
    query_grad, gallery_grad = torch.ops.pyreid.nearest_gradients(
        grad.contiguous(),
        distances.contiguous(),
        indices.contiguous(),
        order,
        starts,
        query,
        gallery,
        torch.ops.pyreid.squared_norms(query),
        torch.ops.pyreid.squared_norms(gallery),
        metric,
    )
    return query_grad, gallery_grad


@_backward_op.register_fake
def _fake_backward(
    grad: Tensor, distances: Tensor, indices: Tensor, query: Tensor, gallery: Tensor, metric: str
) -> tuple[Tensor, Tensor]:
    return query.new_empty(query.shape), gallery.new_empty(gallery.shape)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int, str], output: tuple[Tensor, Tensor]) -> None:
    query, gallery, _, ctx.metric = inputs
    distances, indices = output
    ctx.mark_non_differentiable(indices)
    ctx.save_for_backward(distances, indices, query, gallery)


def _backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, Tensor | None, None, None]:
    query_grad, gallery_grad = torch.ops.pyreid.nearest_neighbors_backward(grad, *ctx.saved_tensors, ctx.metric)
    return query_grad, gallery_grad, None, None


_op.register_autograd(_backward, setup_context=_setup_context)
forbid_double_backward("pyreid::nearest_neighbors_backward")
for _device in ("cpu", "cuda"):
    _op.register_autocast(_device, torch.float32)


def nearest_neighbors(query: Tensor, gallery: Tensor, k: int, *, metric: Metric = "euclidean") -> tuple[Tensor, Tensor]:
    """The ``k`` nearest gallery rows of each query row, and their distances. Exact.

    The gallery is multiplied tile by tile, and each tile is searched while it lies in the cache. Memory beside the
    result: a tile, 64 MiB at most (1 GiB on CUDA), and for each of its rows the ``k`` neighbors so far, 8 bytes each
    (16 in float64), and their distances; equal gallery rows cost a product for each row of a tile. Half precision and
    strided inputs are copied as a whole.

    Which rows are found: the first ``k`` of the ranking that :func:`pyreid.evaluate` makes, a stable sort by
    ``|g|^2 / 2 - q.g``, or by ``-q.g / |g|`` for cosine, computed in float32, or in float64 if an input is float64.
    Equal gallery rows tie and come in the order of their indices. NaN comes after everything else. Products of real
    features are rounded, and may be rounded in another way in tiles of another shape; gallery rows whose distances
    differ by less than that may change places.

    In which order: by the distance returned, ties in the order of that ranking. The two orders are one, except that the
    distances of near duplicates are computed anew: where the formula would lose more than six bits to cancellation, the
    distance is summed from the differences of the features. So near duplicates keep their digits, equal rows are at
    distance exactly 0, and distances ascend; among near duplicates the ``k`` that are found are those of the rounded
    ranking, and with a larger ``k`` a nearer one may join them.

    The distances are differentiable, the indices are not. The gradient at Euclidean distance 0 is 0. It is summed from
    the differences of the pairs found, never from a (Q, G) matrix, in a fixed order.

    Args:
        query: (Q, D), float16, bfloat16, float32 or float64; half precision is computed and returned in float32.
        gallery: (G, D) on the same device; may differ from ``query`` in type.
        k: neighbors of each query, from 0 to G; on CUDA at most 2048.
        metric: ``"euclidean"`` (L2), ``"sqeuclidean"`` (its square) or ``"cosine"`` (1 - cosine similarity; the
            similarity with a row of zeros is 0).

    Returns:
        ``(distances, indices)``: (Q, k) float32 or float64, ascending along each row with NaN last, and (Q, k) int64.

    Raises:
        TypeError: if an input is not a floating-point tensor, or ``k`` is not an integer.
        ValueError: if shapes or devices do not fit, ``k`` is out of range, or the metric is unknown.
    """
    check_choice("metric", metric, Metric)
    check_float_tensor("query", query, (2,))
    check_float_tensor("gallery", gallery, (2,))
    check_device("query", query)
    check_transforms("nearest_neighbors", query, gallery)
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(f"gallery: expected {query.shape[1]} columns to match query, got shape {tuple(gallery.shape)}")
    if query.device != gallery.device:
        raise ValueError(f"gallery: expected to be on {query.device} to match query, got {gallery.device}")
    check_k(k, gallery)
    if gallery.is_cuda and k > MOST_NEIGHBORS_ON_CUDA:
        raise ValueError(f"k: expected at most {MOST_NEIGHBORS_ON_CUDA} on CUDA, got {k}")
    dtype = computing_dtype(query, gallery)
    distances, indices = torch.ops.pyreid.nearest_neighbors(
        query.to(dtype), gallery.to(dtype), k if isinstance(k, torch.SymInt) else int(k), metric
    )
    return distances, indices
