"""Counting by approximate products, with a bound of their error. Internal: evaluation on CUDA devices uses it."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.library.register_fake("pyreid::screen_negatives_")
def _fake(
    products: Tensor,
    offset: Tensor | None,
    scale: Tensor | None,
    query_error: Tensor,
    gallery_error: Tensor,
    reach: Tensor,
    query_ids: Tensor,
    gallery_ids: Tensor,
    below: Tensor,
    above: Tensor,
    starts: Tensor,
    entered: Tensor,
    capacity: int,
) -> tuple[Tensor, Tensor]:
    rows = products.shape[0]
    return products.new_empty(rows, capacity, dtype=torch.int32), products.new_empty(rows, dtype=torch.int64)


def screen_negatives_(
    products: Tensor,
    *,
    query_error: Tensor,
    gallery_error: Tensor,
    reach: Tensor,
    query_ids: Tensor,
    gallery_ids: Tensor,
    below: Tensor,
    above: Tensor,
    starts: Tensor,
    entered: Tensor,
    capacity: int,
    offset: Tensor | None = None,
    scale: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Enter each negative of a tile at the first positive that it precedes, where the error of its product allows.

    The value of gallery item g for query q is ``offset[g] - products[q, g]``, or ``-(products[q, g] * scale[g])``, or
    the product; it is off from the exact one by no more than
    ``query_error[q, 0] * gallery_error[0, g] + query_error[q, 1] * gallery_error[1, g] + gallery_error[2, g]``. An item
    is a negative if its identity is not the query's and its value not NaN. It is decided if no threshold lies within
    its error.

    Args:
        products: (R, C) float32; rows may lie apart.
        query_error: (R, 2) float32.
        gallery_error: (3, C) float32.
        reach: (R,) float32, no less than the error of any item of the tile.
        query_ids: (R,) int64.
        gallery_ids: (C,) int64.
        below: (P,) float32, ascending for each query: the exact values of its positives, rounded down.
        above: (P,) float32, the same rounded up.
        starts: (R + 1,) int64, where each query's positives begin in ``below``.
        entered: (P,) int64; grows by one at the first positive that a decided negative precedes.
        capacity: undecided items of a query that are listed.
        offset: (C,) float32; not together with ``scale``.
        scale: (C,) float32.

    Returns:
        ``(items, undecided)``: (R,) int64 counts the undecided items of each query, and the first entries of each row
        of ``items`` (R, capacity) int32 are they, in any order, as many as it has room for.
    """
    items, undecided = torch.ops.pyreid.screen_negatives_(
        products,
        offset,
        scale,
        query_error,
        gallery_error,
        reach,
        query_ids,
        gallery_ids,
        below,
        above,
        starts,
        entered,
        capacity,
    )
    return items, undecided
