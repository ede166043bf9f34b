"""Cross-entropy on cosines with a margin in the angle (ArcFace, Deng et al. 2019)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyreid.losses.margin_softmax import LogitReduction, MarginSoftmaxLoss


def add_angle(cosine: Tensor, margin: float) -> Tensor:
    """``cos(theta + margin)`` of ``cosine = cos(theta)``, going on below -1 where theta + margin is above pi.

    There it is ``cosine + cos(margin) - 1``: continuous, falling with theta to the end, and with a gradient of 1, where
    the cosine itself would rise again. The slope, infinite at theta = 0 and pi, is bounded.
    """
    smallest = torch.finfo(cosine.dtype).eps
    sine = ((1 - cosine) * (1 + cosine)).clamp(min=smallest).sqrt()
    inside = cosine * math.cos(margin) - sine * math.sin(margin)
    return torch.where(cosine < -math.cos(margin), cosine + (math.cos(margin) - 1), inside)


class ArcFaceLoss(MarginSoftmaxLoss):
    """Additive angular margin: cross-entropy of ``scale * cos(theta_y + margin)`` and ``scale * cos(theta_j)``.

    It takes plain cosines, see :class:`MarginSoftmaxLoss`. Cosines beyond 1 by rounding are safe.

    Args:
        scale: s, factor on the cosines.
        margin: m, an angle in radians, below pi.
        reduction: ``"mean"`` over the batch, ``"sum"``, or ``"none"`` for (N,).
    """

    def __init__(self, *, scale: float = 32.0, margin: float = 0.5, reduction: LogitReduction = "mean") -> None:
        super().__init__(scale=scale, margin=margin, reduction=reduction)
        if margin >= math.pi:
            raise ValueError(f"margin: got {margin}, expected an angle in radians below pi")

    def target(self, cosine: Tensor) -> Tensor:
        """The cosine of the angle plus the margin."""
        return add_angle(cosine, self.margin)
