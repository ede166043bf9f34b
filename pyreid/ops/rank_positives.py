"""Where each query's positives stand in its ranking of the gallery, by counting. Internal: evaluation uses it."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.library.register_fake("pyreid::rank_positives")
def _fake(
    values: Tensor,
    offset: Tensor | None,
    scale: Tensor | None,
    order: Tensor,
    begin: Tensor,
    starts: Tensor,
    slots: int,
    query_cams: Tensor | None,
    gallery_cams: Tensor | None,
) -> tuple[Tensor, Tensor]:
    return values.new_empty(slots, dtype=torch.int64), values.new_empty(values.shape[0], dtype=torch.int64)


def rank_positives(
    values: Tensor,
    *,
    order: Tensor,
    begin: Tensor,
    starts: Tensor,
    slots: int,
    offset: Tensor | None = None,
    scale: Tensor | None = None,
    query_cams: Tensor | None = None,
    gallery_cams: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Exact ranks of all positives of a strip of queries, in the order (value, gallery index).

    A rank is the number of gallery items, junk left out, that come before the positive: what a stable sort of the row
    would give, without the sort. Every value is compared with the query's positives only, O(G P) vector comparisons or
    O(G log P) steps for many positives, and one read of the row.

    The value of gallery item g for query q is ``values[q, g]``, or ``offset[g] - values[q, g]``, or
    ``-(values[q, g] * scale[g])``. With inner products as ``values``, ``offset = |g|^2 / 2`` ranks by Euclidean and
    ``scale = 1 / |g|`` by cosine distance. An item whose value is NaN is neither counted nor a positive, so a NaN in
    ``offset`` or ``scale`` takes it out of the gallery.

    Args:
        values: (R, G), float32 or float64; rows may lie apart, as in a strip of a larger matrix.
        order: (G,) int64, the gallery's indices sorted by (identity, index).
        begin: (R,) int64, where the query's identity begins in ``order``.
        starts: (R + 1,) int64, running sum of the number of gallery items of each query's identity: its slots.
        slots: the last of ``starts``.
        offset: (G,), see above; not together with ``scale``.
        scale: (G,), see above.
        query_cams: (R,) int64; an item of the query's identity with its camera is junk. None: no camera filter.
        gallery_cams: (G,) int64.

    Returns:
        ``(ranks, nans)``: ``ranks`` (slots,) int64 holds for each query the ranks of its positives, ascending, then -1
        for each slot that is no positive; ``nans`` (R,) int64 the number of NaN among each query's values.
    """
    ranks, nans = torch.ops.pyreid.rank_positives(
        values, offset, scale, order, begin, starts, slots, query_cams, gallery_cams
    )
    return ranks, nans
