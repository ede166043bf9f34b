"""Triplet losses on the pairs of a batch, over the fused operators."""

from __future__ import annotations

from torch import Tensor, nn

from pyreid import ops
from pyreid.ops._checks import (
    Reduction,
    check_choice,
    check_margin,
)


def check_triplet_margin(margin: float | None) -> None:
    """Raise unless the margin is None or finite and not negative."""
    check_margin(margin)
    if margin is not None and margin < 0:
        raise ValueError(f"margin: got {margin}, expected a number >= 0, or None for the soft margin")


def check_triplet_options(margin: float | None, reduction: str) -> None:
    """Raise unless the margin is None or finite and not negative, and the reduction is known."""
    check_triplet_margin(margin)
    check_choice("reduction", reduction, Reduction)


class BatchHardTripletLoss(nn.Module):
    """Farthest positive against nearest negative of each anchor (Hermans et al. 2017; DaRe, eq. 2).

    ``max(0, margin + max_p d(a, p) - min_n d(a, n))`` with Euclidean distances d, or ``softplus`` of the difference for
    ``margin=None``. Anchors without a positive or without a negative do not count.

    Args:
        margin: in units of the distance; None for the soft margin.
        reduction: ``"mean"`` over the anchors that count (0 if none does), ``"sum"``, or ``"none"`` for (N,), 0 for the
            others.
    """

    def __init__(self, margin: float | None = 0.3, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_triplet_options(margin, reduction)
        self.margin = margin
        self.reduction: Reduction = reduction

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Loss of embeddings (N, D) with integer labels (N,)."""
        return ops.batch_hard_triplet(embeddings, labels, margin=self.margin, reduction=self.reduction)

    def extra_repr(self) -> str:
        return f"margin={self.margin}, reduction={self.reduction!r}"


class BatchSoftTripletLoss(nn.Module):
    """All positives and negatives of each anchor, weighted by how hard they are (Compact-ReID, eqs. 3 and 4).

    The weights are softmax(d) over the positives, without the anchor itself, and softmax(-d) over the negatives; then
    as in :class:`BatchHardTripletLoss`, with the weighted means of the distances.

    Args:
        margin: in units of the distance; None for the soft margin.
        reduction: ``"mean"`` over the anchors that count (0 if none does), ``"sum"``, or ``"none"`` for (N,), 0 for the
            others.
    """

    def __init__(self, margin: float | None = None, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_triplet_options(margin, reduction)
        self.margin = margin
        self.reduction: Reduction = reduction

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Loss of embeddings (N, D) with integer labels (N,)."""
        return ops.batch_soft_triplet(embeddings, labels, margin=self.margin, reduction=self.reduction)

    def extra_repr(self) -> str:
        return f"margin={self.margin}, reduction={self.reduction!r}"
