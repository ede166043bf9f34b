"""Distances of query and gallery features in strips: in the units of the metric, or as evaluation compares them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from pyreid.evaluation.inputs import JUNK_ID, Sets
from pyreid.ops._checks import Metric, computing_dtype
from pyreid.ops.distance_tiles import inner_product_tiles
from pyreid.ops.features import checked_squared_norms


def distance_strips(
    query: Tensor, gallery: Tensor, *, metric: Metric, device: torch.device
) -> Iterator[tuple[slice, Tensor]]:
    """Strips of distances, without the full matrix.

    ``|q - g|^2 = |q|^2 + |g|^2 - 2 q.g`` is computed in float32, or in float64 if either side is float64, and negative
    values of rounding become 0. Its error is that of the inner product, about ``1e-7 sqrt(D) (|q|^2 + |g|^2)`` in
    float32: small distances between long vectors need float64.

    Args:
        query: (Q, D).
        gallery: (G, D).
        metric: ``"euclidean"``, ``"sqeuclidean"`` or ``"cosine"`` (1 - cosine similarity; 1 for a row of zeros).
        device: where to compute.

    Yields:
        ``(rows, distances)``: a slice of query rows and their (R, G) distances, not negative, valid until the next
        step; they may be changed in place.

    Raises:
        ValueError: if features are NaN, infinite or out of range.
    """
    dtype = computing_dtype(query, gallery)
    q_norms = checked_squared_norms("query", query, device=device, dtype=dtype)
    g_norms = checked_squared_norms("gallery", gallery, device=device, dtype=dtype)
    if metric == "cosine":
        q_norms, g_norms = (torch.where(n > 0, n.sqrt().reciprocal(), 0) for n in (q_norms, g_norms))
    for rows, _, products in inner_product_tiles(query, gallery, device=device, dtype=dtype):
        own = q_norms[rows, None]
        if metric == "cosine":
            products.mul_(g_norms).mul_(own).neg_().add_(1).clamp_(min=0)
        else:
            products.mul_(-2).add_(g_norms).add_(own).clamp_(min=0)
            if metric == "euclidean":
                _square_root(products)
        yield rows, products


def ranking_strips(sets: Sets, *, metric: Metric, device: torch.device) -> Iterator[tuple[slice, Tensor]]:
    """Strips of the values that :func:`pyreid.evaluate` ranks by, the same bits: smaller is nearer.

    Args:
        sets: query and gallery.
        metric: ``"euclidean"``, ``"sqeuclidean"`` or ``"cosine"``.
        device: where to compute.

    Yields:
        ``(rows, values)``: a slice of query rows and their (R, G) values, NaN for gallery images with identity -1,
        valid until the next step.

    Raises:
        ValueError: if features are NaN, infinite or out of range.
    """
    query, gallery = sets.query, sets.gallery
    dtype = computing_dtype(query, gallery)
    checked_squared_norms("query", query, device=device, dtype=dtype)
    norms = checked_squared_norms("gallery", gallery, device=device, dtype=dtype)
    junk = torch.from_numpy(sets.gallery_ids == JUNK_ID).to(device)
    scale = torch.where(norms > 0, norms.sqrt().reciprocal(), 0)
    for rows, _, products in inner_product_tiles(query, gallery, device=device, dtype=dtype):
        values = products.mul_(scale).neg_() if metric == "cosine" else products.neg_().add_(norms / 2)
        values[:, junk] = torch.nan
        yield rows, values


def _square_root(values: Tensor) -> None:
    # On the CPU torch's square root of float32 is off by a bit for one value in five; NumPy's is rounded correctly.
    if values.device.type == "cpu":
        array = values.numpy()
        np.sqrt(array, out=array)
    else:
        values.sqrt_()
