"""Unit-length embeddings and the cosine classifier on them (RMNet, Sect. IV)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyreid.layers.checks import check_rows, check_width


def full_precision(x: Tensor) -> Tensor:
    """``x`` in float32 if it is float16 or bfloat16, else as it is."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def run_widened(module: nn.Module, x: Tensor) -> Tensor:
    """``module(x)`` in float32 or wider, for an ``x`` that :func:`full_precision` has widened.

    A module whose own weights are in half precision, as after ``model.bfloat16()``, gets ``x`` in their dtype, for a
    layer refuses to mix the two; its output is widened again.
    """
    weight = next(module.parameters(), None)
    return full_precision(module(x if weight is None else x.to(weight.dtype)))


def without_autocast(x: Tensor) -> torch.autocast:
    """A context in which what is computed from ``x`` keeps its dtype; the meta device has no autocast of its own."""
    return torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False)


def unit_length(x: Tensor) -> Tensor:
    """Rows of ``x`` (N, D) divided by their L2 norm, at least in float32; a zero row stays zero."""
    return F.normalize(full_precision(x), dim=1, eps=1e-12)


class CosineClassifier(nn.Module):
    """Scaled cosine similarity to one learned direction per identity: logits (N, C) = scale * cos(x_i, w_j).

    Computed in float32 also under autocast: at scale 30 a bfloat16 logit would be off by 0.1.

    Args:
        embedding_dim: D.
        num_classes: C, number of identities.
        scale: factor on the cosine, s of AM-Softmax.
    """

    def __init__(self, embedding_dim: int, num_classes: int, *, scale: float = 30.0) -> None:
        super().__init__()
        check_width("embedding_dim", embedding_dim)
        check_width("num_classes", num_classes)
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(num_classes, embedding_dim))
        nn.init.xavier_normal_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, C) of embeddings ``x`` (N, D), whose length does not matter."""
        check_rows(x, self.weight.shape[1])
        with without_autocast(x):
            return self.scale * F.linear(unit_length(x), unit_length(self.weight))

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}, scale={self.scale}"
