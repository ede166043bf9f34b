"""Center loss: embeddings close to the learned centre of their identity (SAFR, Sect. 4.2; RMNet, Sect. IV)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from pyreid.losses.centers import CenterDistance, Centers, own_cosine_distance
from pyreid.ops._checks import check_choice

CenterReduction = Literal["sum", "mean", "none"]


class CenterLoss(nn.Module):
    """Distance of each embedding x to the centre c of its identity.

    - ``"euclidean"``: half the squared distance, ``sum_i |x_i - c_i|^2 / 2`` over the batch (SAFR; Wen et al. 2016).
      ``reduction="mean"`` is the mean of the squared distances, without the half, as "Bag of Tricks" has it.
    - ``"cosine"``: the mean of ``1 - cos(x_i, c_i)`` (RMNet); ``reduction="sum"`` is the sum.

    The centres, ``loss.centers``, have an optimiser of their own: see :class:`Centers` and
    :func:`pyreid.losses.own_optimizer`. Give them to :class:`PushLoss` and :class:`GlobPushLoss` to share them.
    The gradient that this optimiser gets from the Euclidean sum is the one of Wen et al. 2016, eq. 4, divided by
    1 + the number of the centre's images in the batch: a centre then goes at most ``center_lr`` of the way to their
    mean. The plain gradient would swing it to the other side of the mean, at a rate of 0.5 with 4 images for ever.

    Args:
        num_classes: C, number of identities.
        dim: D, width of the embeddings.
        distance: one of the above.
        reduction: ``"sum"``, ``"mean"``, or ``"none"`` for (N,), the terms of the sum. None is the paper's: the sum for
            ``"euclidean"`` and the mean for ``"cosine"``.
        center_lr: learning rate of the centres' own optimiser; None leaves them to the main one.
    """

    def __init__(
        self,
        num_classes: int,
        dim: int,
        *,
        distance: CenterDistance = "euclidean",
        reduction: CenterReduction | None = None,
        center_lr: float | None = 0.5,
    ) -> None:
        super().__init__()
        self.centers = Centers(num_classes, dim, distance=distance, lr=center_lr)
        if reduction is None:
            reduction = "sum" if distance == "euclidean" else "mean"
        check_choice("reduction", reduction, CenterReduction)
        self.reduction: CenterReduction = reduction

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            embeddings: (N, D) float; half precision is computed and returned in float32.
            labels: (N,) integers in [0, C).

        Returns:
            A scalar, or (N,) for ``reduction="none"``; 0 for a batch of 0.

        Raises:
            TypeError: embeddings are not floating point or labels not integers.
            ValueError: shapes or devices do not fit, or (on the CPU) a label is outside [0, C).
        """
        self.centers.check(embeddings, labels)
        labels = labels.long()
        shared = self.centers.distance == "euclidean" and self.reduction != "mean"
        return self.centers.evaluate(
            lambda x, centers: self._term(x, centers, labels),
            embeddings,
            own=(lambda x, centers: self._term(x, centers, labels, shared=True)) if shared else None,
        )

    def _term(self, x: Tensor, centers: Tensor, labels: Tensor, *, shared: bool = False) -> Tensor:
        """The loss; with ``shared``, each image's part divided by 1 + the number of images of its identity."""
        if self.centers.distance == "cosine":
            each = own_cosine_distance(x, centers, labels)
        else:
            each = (x - centers[labels]).square().sum(1)
            if self.reduction != "mean":
                each = each / 2
            if shared:
                each = each / (1 + (labels[:, None] == labels[None, :]).sum(1))
        if self.reduction == "none":
            return each
        return each.sum() / max(len(labels), 1) if self.reduction == "mean" else each.sum()

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"
