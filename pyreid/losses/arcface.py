"""Cross-entropy on cosines with a margin in the angle (ArcFace, Deng et al. 2019)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyreid.losses._checks import check_number
from pyreid.losses.am_softmax import LogitReduction, check_cosines, is_target
from pyreid.ops._checks import check_choice, upcast


def add_angle(cosine: Tensor, margin: float) -> Tensor:
    """``cos(theta + margin)`` of ``cosine = cos(theta)``, going on below -1 where theta + margin is above pi.

    There it is ``cosine + cos(margin) - 1``: continuous, falling with theta to the end, and with a gradient of 1, where
    the cosine itself would rise again. The slope, infinite at theta = 0 and pi, is bounded.
    """
    smallest = torch.finfo(cosine.dtype).eps
    sine = ((1 - cosine) * (1 + cosine)).clamp(min=smallest).sqrt()
    inside = cosine * math.cos(margin) - sine * math.sin(margin)
    return torch.where(cosine < -math.cos(margin), cosine + (math.cos(margin) - 1), inside)


class ArcFaceLoss(nn.Module):
    """Additive angular margin: cross-entropy of ``scale * cos(theta_y + margin)`` and ``scale * cos(theta_j)``.

    It takes plain cosines and has the only scale, as :class:`AMSoftmaxLoss`. Cosines beyond 1 by rounding are safe.

    Args:
        scale: s, factor on the cosines.
        margin: m, an angle in radians, below pi.
        reduction: ``"mean"`` over the batch, ``"sum"``, or ``"none"`` for (N,).
    """

    def __init__(self, *, scale: float = 32.0, margin: float = 0.5, reduction: LogitReduction = "mean") -> None:
        super().__init__()
        check_number("scale", scale, above=True)
        check_number("margin", margin)
        if margin >= math.pi:
            raise ValueError(f"margin: got {margin}, expected an angle in radians below pi")
        check_choice("reduction", reduction, LogitReduction)
        self.scale = scale
        self.margin = margin
        self.reduction: LogitReduction = reduction

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            logits: (N, C) float, the cosine of each embedding to each identity's weight; half precision is computed and
                returned in float32.
            labels: (N,) integers in [0, C).

        Returns:
            A scalar, or (N,) for ``reduction="none"``.

        Raises:
            TypeError: labels are not integers.
            ValueError: a shape does not fit, or (on the CPU) a label is outside [0, C) or a logit is no cosine.
        """
        check_cosines(logits, labels)
        labels = labels.long()
        cosines = upcast(logits)
        target = add_angle(cosines.gather(1, labels[:, None]), self.margin)
        shifted = torch.where(is_target(cosines, labels), target, cosines)
        return F.cross_entropy(self.scale * shifted, labels, reduction=self.reduction)

    def extra_repr(self) -> str:
        return f"scale={self.scale}, margin={self.margin}, reduction={self.reduction!r}"
