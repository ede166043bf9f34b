"""What the cross-entropies on cosines with a margin have in common."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyreid.losses._checks import check_logits, check_number
from pyreid.ops._checks import check_choice, upcast

LogitReduction = Literal["mean", "sum", "none"]


def check_cosines(cosines: Tensor, labels: Tensor) -> None:
    """Raise unless these are (N, C) cosines and (N,) labels in [0, C). Values are looked at on the CPU only."""
    check_logits(cosines, labels)
    if not cosines.is_cpu or torch.compiler.is_compiling():
        return
    largest = float(cosines.detach().abs().max())
    if largest > 1.01:  # room for rounding; NaN passes, and makes the loss NaN
        raise ValueError(
            f"logits: got values up to {largest:.4g} in magnitude, expected cosines in [-1, 1]; let the classifier's "
            "scale be 1, as the loss has its own"
        )


class MarginSoftmaxLoss(nn.Module):
    """Base of cross-entropies of scaled cosines in which :meth:`target` makes the label's own cosine smaller.

    They take plain cosines and have the only scale: build the model with its own scale at 1 (``logit_scale=1`` of
    RMNet, ``scale=1`` of :class:`pyreid.layers.CosineClassifier`).
    """

    def __init__(self, *, scale: float, margin: float, reduction: LogitReduction) -> None:
        super().__init__()
        check_number("scale", scale, above=True)
        check_number("margin", margin)
        check_choice("reduction", reduction, LogitReduction)
        self.scale = scale
        self.margin = margin
        self.reduction: LogitReduction = reduction

    def target(self, cosine: Tensor) -> Tensor:
        """What takes the place of the cosines of any shape to the labels' own weights."""
        raise NotImplementedError

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
        own = labels[:, None] == torch.arange(cosines.shape[1], device=labels.device)
        shifted = torch.where(own, self.target(cosines.gather(1, labels[:, None])), cosines)
        return F.cross_entropy(self.scale * shifted, labels, reduction=self.reduction)

    def extra_repr(self) -> str:
        return f"scale={self.scale}, margin={self.margin}, reduction={self.reduction!r}"
