"""Push loss: embeddings of different identities in a batch away from one another (RMNet, Sect. IV, eq. 4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyreid import ops
from pyreid.losses._checks import check_embeddings
from pyreid.losses.centers import Centers, own_cosine_distance
from pyreid.losses.growing_margin import GrowingMargin
from pyreid.ops._checks import upcast


def active_mean(violation: Tensor, mask: Tensor, *, dim: int | None = None) -> Tensor:
    """Mean of the values above 0 of ``violation`` where ``mask`` holds, over all or along ``dim``; 0 if there is none.

    Args:
        violation: margin minus distance, any shape.
        mask: bool, of the same shape: the pairs that count.
        dim: None for one mean over all.
    """
    hinge = torch.where(mask, F.relu(violation), 0)
    return hinge.sum(dim=dim) / (hinge > 0).sum(dim=dim).clamp(min=1)


def check_push_centers(centers: object) -> None:
    """Raise TypeError or ValueError unless these are centres of the cosine distance."""
    if not isinstance(centers, Centers):
        raise TypeError(f"centers: got {type(centers).__name__}, expected Centers, for example those of a CenterLoss")
    if centers.distance != "cosine":
        raise ValueError(f"centers: got distance={centers.distance!r}, expected distance='cosine'")


class PushLoss(nn.Module):
    """``max(0, m - d(f_i, f_j))`` for all pairs of different identities, with the cosine distance d.

    The smart margin adds the distance of f_i to its own centre: ``max(0, m + d(f_i, c_i) - d(f_i, f_j))``. The result
    is the mean over the active pairs, whose loss is above 0; it is 0 with zero gradients if there is none.

    The margin m grows from ``margin`` to ``final_margin`` over ``margin_steps`` optimiser steps, which
    :func:`pyreid.losses.after_step` counts.

    Args:
        centers: of the identities, as the ``centers`` of a cosine :class:`CenterLoss`; needed for the smart margin
            only.
        smart: add the distance to the own centre to the margin.
        margin: m at first.
        final_margin: m after ``margin_steps``; None keeps it fixed.
        margin_steps: optimiser steps over which the margin grows.
        detach_centers: take the centres as constants, so that only a :class:`CenterLoss` moves them.
    """

    def __init__(
        self,
        centers: Centers | None = None,
        *,
        smart: bool = True,
        margin: float = 0.15,
        final_margin: float | None = 0.6,
        margin_steps: int = 40_000,
        detach_centers: bool = True,
    ) -> None:
        super().__init__()
        if smart and centers is None:
            raise ValueError("centers: got None, expected Centers for the smart margin; smart=False needs none")
        if centers is not None:
            check_push_centers(centers)
        self.centers = centers if smart else None
        self.detach_centers = detach_centers
        self.margin = GrowingMargin(margin, end=final_margin, steps=margin_steps)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            embeddings: (N, D) float, whose length does not matter; half precision is computed and returned in float32.
            labels: (N,) integers; with the smart margin in [0, C).

        Returns:
            A scalar.

        Raises:
            TypeError: embeddings are not floating point or labels not integers.
            ValueError: shapes or devices do not fit, or (on the CPU, with the smart margin) a label is outside [0, C).
        """
        if self.centers is None:
            check_embeddings(embeddings, labels)
            return self._term(upcast(embeddings), None, labels)
        self.centers.check(embeddings, labels)
        labels = labels.long()
        return self.centers.evaluate(
            lambda x, centers: self._term(x, centers, labels), embeddings, learn=not self.detach_centers
        )

    def _term(self, x: Tensor, centers: Tensor | None, labels: Tensor) -> Tensor:
        violation = self.margin(x.dtype) - ops.pairwise_distance(x, metric="cosine")
        if centers is not None:
            violation = violation + own_cosine_distance(x, centers, labels)[:, None]
        return active_mean(violation, labels[:, None] != labels[None, :])

    def extra_repr(self) -> str:
        return f"smart={self.centers is not None}, detach_centers={self.detach_centers}"
