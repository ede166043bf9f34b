"""Cross-entropy against smoothed identity labels (SAFR, Sect. 4.2; Szegedy et al. 2016)."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn

from pyreid.losses._checks import check_logits
from pyreid.ops._checks import upcast

SmoothingMode = Literal["standard", "sgn", "sgn_norm"]


def smoothing_weights(num_classes: int, *, eps: float, mode: SmoothingMode) -> tuple[float, float]:
    """The target of the true class and of every other class.

    Args:
        num_classes: C.
        eps: smoothing of the standard mode; the other modes take 1/C.
        mode: see :class:`LabelSmoothingCrossEntropy`.

    Returns:
        (target of the true class, target of each other class).

    Raises:
        ValueError: a sgn mode with fewer than two classes, where the target of the true class would be 0.
    """
    if mode == "standard":
        return 1 - eps + eps / num_classes, eps / num_classes
    if num_classes < 2:
        raise ValueError(f"num_classes: got {num_classes}, expected 2 or more for mode={mode!r}")
    other = 1 / num_classes
    total = (1 - other) + (num_classes - 1) * other
    scale = 1 / total if mode == "sgn_norm" else 1.0
    return (1 - other) * scale, other * scale


class LabelSmoothingCrossEntropy(nn.Module):
    """Mean over the batch of ``-sum_j q_j log softmax(logits)_j`` with smoothed targets q. C is the number of classes.

    - ``"standard"``: q = 1 - eps + eps/C for the true class, eps/C for the others; they sum to 1. eps = 0 is plain
      cross-entropy.
    - ``"sgn"``: the formula that SAFR prints, with its missing minus sign restored: q = 1 - 1/C for the true class, 1/C
      for the others; they sum to 2 - 2/C.
    - ``"sgn_norm"``: the same divided by its sum.

    Computed at least in float32.

    Args:
        eps: smoothing of the standard mode, in [0, 1); the other modes do not use it.
        mode: one of the above.
        num_classes: C, checked against the logits if given.
    """

    def __init__(self, eps: float = 0.1, mode: SmoothingMode = "standard", num_classes: int | None = None) -> None:
        super().__init__()
        if mode not in get_args(SmoothingMode):
            raise ValueError(f"mode: got {mode!r}, expected one of {', '.join(map(repr, get_args(SmoothingMode)))}")
        if not 0 <= eps < 1:
            raise ValueError(f"eps: got {eps}, expected a value in [0, 1)")
        if num_classes is not None:
            if num_classes < 1:
                raise ValueError(f"num_classes: got {num_classes}, expected a positive number or None")
            smoothing_weights(num_classes, eps=eps, mode=mode)
        self.eps = eps
        self.mode: SmoothingMode = mode
        self.num_classes = num_classes

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            logits: (N, C) float.
            labels: (N,) integers in [0, C).

        Returns:
            A scalar.

        Raises:
            ValueError: a shape does not fit, or (on the CPU) a label is outside [0, C).
            TypeError: labels are not integers.
        """
        check_logits(logits, labels)
        if self.num_classes is not None and logits.shape[1] != self.num_classes:
            raise ValueError(f"logits: got {logits.shape[1]} classes, expected {self.num_classes} (num_classes)")
        true, other = smoothing_weights(logits.shape[1], eps=self.eps, mode=self.mode)
        log_p = upcast(logits).log_softmax(dim=1)
        picked = log_p.gather(1, labels.long()[:, None]).squeeze(1)
        return -((true - other) * picked + other * log_p.sum(dim=1)).mean()

    def extra_repr(self) -> str:
        return f"eps={self.eps}, mode={self.mode!r}, num_classes={self.num_classes}"
