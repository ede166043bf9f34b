"""Global push loss: embeddings away from the centres of all other identities (RMNet, Sect. IV, eq. 5)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from pyreid import ops
from pyreid.losses.centers import Centers, own_cosine_distance
from pyreid.losses.growing_margin import GrowingMargin
from pyreid.losses.push import active_mean, check_push_centers
from pyreid.ops._checks import check_choice

GlobPushReduction = Literal["mean", "none"]


class GlobPushLoss(nn.Module):
    """``max(0, m - d(f_i, c_k))`` for all embeddings and all centres but their own, with the cosine distance d.

    The smart margin adds the distance to the own centre: ``max(0, m + d(f_i, c_i) - d(f_i, c_k))``. The result is the
    mean over the active terms, those above 0; it is 0 with zero gradients if there is none.

    The margin m grows from ``margin`` to ``final_margin`` over ``margin_steps`` optimiser steps, which
    :func:`pyreid.losses.after_step` counts.

    Args:
        centers: of the identities, as the ``centers`` of a cosine :class:`CenterLoss`.
        smart: add the distance to the own centre to the margin.
        margin: m at first.
        final_margin: m after ``margin_steps``; None keeps it fixed.
        margin_steps: optimiser steps over which the margin grows.
        detach_centers: take the centres as constants, so that only a :class:`CenterLoss` moves them.
        reduction: ``"mean"`` over the active terms of the batch, or ``"none"`` for (N,), the mean over the active terms
            of each embedding.
    """

    def __init__(
        self,
        centers: Centers,
        *,
        smart: bool = True,
        margin: float = 0.15,
        final_margin: float | None = 0.6,
        margin_steps: int = 40_000,
        detach_centers: bool = True,
        reduction: GlobPushReduction = "mean",
    ) -> None:
        super().__init__()
        check_push_centers(centers)
        check_choice("reduction", reduction, GlobPushReduction)
        self.centers = centers
        self.smart = smart
        self.detach_centers = detach_centers
        self.reduction: GlobPushReduction = reduction
        self.margin = GrowingMargin(margin, end=final_margin, steps=margin_steps)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            embeddings: (N, D) float, whose length does not matter; half precision is computed and returned in float32.
            labels: (N,) integers in [0, C).

        Returns:
            A scalar, or (N,) for ``reduction="none"``.

        Raises:
            TypeError: embeddings are not floating point or labels not integers.
            ValueError: shapes or devices do not fit, or (on the CPU) a label is outside [0, C).
        """
        self.centers.check(embeddings, labels)
        labels = labels.long()
        return self.centers.evaluate(
            lambda x, centers: self._term(x, centers, labels), embeddings, learn=not self.detach_centers
        )

    def _term(self, x: Tensor, centers: Tensor, labels: Tensor) -> Tensor:
        violation = self.margin(x.dtype) - ops.pairwise_distance(x, centers, metric="cosine")
        if self.smart:
            violation = violation + own_cosine_distance(x, centers, labels)[:, None]
        others = labels[:, None] != torch.arange(centers.shape[0], device=labels.device)
        return active_mean(violation, others, dim=1 if self.reduction == "none" else None)

    def extra_repr(self) -> str:
        return f"smart={self.smart}, detach_centers={self.detach_centers}, reduction={self.reduction!r}"
