"""The triplet loss over all triplets of a batch, in quadratic memory."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyreid import ops
from pyreid.losses._checks import check_embeddings
from pyreid.losses.triplet import check_triplet_margin
from pyreid.ops._checks import check_choice

TripletReduction = Literal["mean", "mean_nonzero", "sum"]

# Triplets whose soft margin is taken at once: 16 MB for each intermediate value in float32.
CHUNK = 1 << 22


def hinge_sum(distance: Tensor, positives: Tensor, negatives: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """Sum of ``max(0, margin + d_ap - d_an)`` over all triplets, and how many of them are active (above 0).

    A triplet is active if d_an lies below the threshold margin + d_ap, so that sorted thresholds and sorted distances
    tell in how many active triplets each pair takes part. The sum is linear in the distances with these counts as
    coefficients, and so is its gradient.

    Args:
        distance: (B, B), row a holds the distances from anchor a.
        positives: (B, B) bool, the positives of each anchor.
        negatives: (B, B) bool.
        margin: in units of the distance.

    Returns:
        The sum, float64, and the number of active triplets, int64.
    """
    # Counts times float32 distances are exact in float64: the differences that cancel in the sum lose no digits.
    exact = distance.double()
    with torch.no_grad():
        threshold = exact + margin
        # each side of a comparison is sorted with its strangers at the end where they count for nobody
        far = torch.where(negatives, exact, torch.inf).sort(dim=1).values
        low = torch.where(positives, threshold, -torch.inf).sort(dim=1).values
        closer = torch.searchsorted(far, threshold)  # negatives below the threshold of a positive
        passed = low.shape[1] - torch.searchsorted(low, exact, right=True)  # thresholds above a negative
        count = torch.where(positives, closer, 0) - torch.where(negatives, passed, 0)
        active = torch.where(positives, closer, 0).sum()
    return (count * exact).sum() + margin * active.double(), active


class SoftMarginSum(torch.autograd.Function):
    """Sum of ``ln(1 + exp(d_ap - d_an))`` over all triplets, a few anchors at a time.

    The gradient, (B, B) as the distances are, is made on the way forward, so that no triplet is kept for the way back.
    """

    @staticmethod
    def forward(ctx: Any, distance: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        size = distance.shape[0]
        anchors = max(1, CHUNK // size**2)
        total = distance.new_zeros((), dtype=torch.float64)
        slopes = []
        for start in range(0, size, anchors):
            rows = slice(start, start + anchors)
            triplets = positives[rows, :, None] & negatives[rows, None, :]
            gap = distance[rows, :, None] - distance[rows, None, :]
            # -logsigmoid(-x) is softplus(x) without the cut that F.softplus makes at 20
            total = total - torch.where(triplets, F.logsigmoid(-gap), 0).sum(dtype=torch.float64)
            slope = torch.where(triplets, gap.sigmoid(), 0)
            slopes.append(slope.sum(2) - slope.sum(1))  # one of the two is 0: no pair is both positive and negative
        ctx.save_for_backward(torch.cat(slopes))
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (slopes,) = ctx.saved_tensors
        return grad.to(slopes.dtype) * slopes, None, None


class TripletLoss(nn.Module):
    """Every anchor with each of its positives and each of its negatives (Compact-ReID, eq. 1).

    The mean over all triplets (a, p, n) of ``max(0, margin + d(a, p) - d(a, n))`` with Euclidean distances d, or of
    ``ln(1 + exp(d(a, p) - d(a, n)))`` for ``margin=None``. The anchor is not its own positive. Memory is O(B^2) for a
    batch of B; time is O(B^2 log B), and O(B^3) for the soft margin.

    Args:
        margin: in units of the distance; None for the soft margin.
        reduction: ``"mean"`` over all triplets; ``"mean_nonzero"`` over the active ones, whose loss is above 0, which
            with the soft margin are all; or ``"sum"``. A batch without triplets gives 0 and zero gradients.
    """

    def __init__(self, margin: float | None = 0.3, *, reduction: TripletReduction = "mean") -> None:
        super().__init__()
        check_triplet_margin(margin)
        check_choice("reduction", reduction, TripletReduction)
        self.margin = margin
        self.reduction: TripletReduction = reduction

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            embeddings: (B, D) float; half precision is computed and returned in float32.
            labels: (B,) integers on the same device.

        Returns:
            A scalar. NaN if a distance is NaN or infinite.

        Raises:
            TypeError: embeddings are not floating point or labels not integers.
            ValueError: shapes or devices do not fit.
        """
        check_embeddings(embeddings, labels)
        distance = ops.pairwise_distance(embeddings)
        if embeddings.shape[0] == 0:
            return distance.sum()
        same = labels[:, None] == labels[None, :]
        positives = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        triplets = (positives.sum(1) * (~same).sum(1)).sum()
        if self.margin is None:
            total, active = SoftMarginSum.apply(distance, positives, ~same), triplets
        else:
            total, active = hinge_sum(distance, positives, ~same, float(self.margin))
        if self.reduction != "sum":
            total = total / (triplets if self.reduction == "mean" else active).clamp(min=1)
        return total.to(distance.dtype)

    def extra_repr(self) -> str:
        return f"margin={self.margin}, reduction={self.reduction!r}"
