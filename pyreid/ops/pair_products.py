"""Inner products of chosen pairs of rows, in float64. Internal: what a fast product leaves open is decided by them."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.library.register_fake("pyreid::pair_products")
def _fake(x: Tensor, y: Tensor, rows: Tensor, items: Tensor) -> Tensor:
    return x.new_empty(rows.shape[0], dtype=torch.float64)


def pair_products(x: Tensor, y: Tensor, rows: Tensor, items: Tensor) -> Tensor:
    """``x[rows[i]] . y[items[i]]``. Rows that are equal bit for bit give equal products, wherever they lie.

    Args:
        x: (N, D) dense, float32 or float64.
        y: (M, D) dense, of the same dtype.
        rows: (P,) int64, rows of ``x``.
        items: (P,) int64, rows of ``y``.

    Returns:
        (P,) float64.
    """
    return torch.ops.pyreid.pair_products(x, y, rows, items)
