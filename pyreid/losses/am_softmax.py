"""Cross-entropy on cosines with a margin between the identities (RMNet, eq. 2; Wang et al. 2018)."""

from __future__ import annotations

from torch import Tensor

from pyreid.losses.margin_softmax import LogitReduction, MarginSoftmaxLoss


class AMSoftmaxLoss(MarginSoftmaxLoss):
    """Additive-margin softmax: cross-entropy of ``scale * (cos_j - margin * [j = y])``.

    It takes plain cosines, see :class:`MarginSoftmaxLoss`. With ``margin=0`` it is the cross-entropy of scaled cosines.

    Args:
        scale: s, factor on the cosines.
        margin: m, in units of the cosine.
        reduction: ``"mean"`` over the batch, ``"sum"``, or ``"none"`` for (N,).
    """

    def __init__(self, *, scale: float = 30.0, margin: float = 0.35, reduction: LogitReduction = "mean") -> None:
        super().__init__(scale=scale, margin=margin, reduction=reduction)

    def target(self, cosine: Tensor) -> Tensor:
        """The cosine less the margin."""
        return cosine - self.margin
