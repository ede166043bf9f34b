"""Generalised-mean pooling with a learned exponent (Radenovic et al., "Fine-tuning CNN Image Retrieval with No Human
Annotation").
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pyreid import ops

P_MIN, P_MAX = 1e-2, 50.0


class GeM(nn.Module):
    """``mean(max(x, eps)^p)^(1/p)`` over the positions: the average at p = 1, towards the maximum as p grows.

    The exponent is clamped to [0.01, 50], where the pool stays accurate; an exponent outside gets no gradient.

    Args:
        channels: C gives every channel its own exponent; None shares one.
        p: initial exponent, in [0.01, 50].
        eps: smallest value of an element, positive.
        learnable: False keeps the exponent fixed (a buffer).
    """

    p: Tensor

    def __init__(
        self, channels: int | None = None, *, p: float = 3.0, eps: float = 1e-6, learnable: bool = True
    ) -> None:
        super().__init__()
        if not P_MIN <= p <= P_MAX:
            raise ValueError(f"p: got {p}, expected a value in [{P_MIN}, {P_MAX}]")
        if not 0 < eps < math.inf:
            raise ValueError(f"eps: got {eps}, expected a positive finite number")
        if channels is not None and channels < 1:
            raise ValueError(f"channels: got {channels}, expected a positive number or None")
        self.eps = eps
        initial = torch.full((channels or 1,), float(p))
        if learnable:
            self.p = nn.Parameter(initial)
        else:
            self.register_buffer("p", initial)

    def forward(self, x: Tensor) -> Tensor:
        """Pool ``x`` (N, C, H, W) or (N, C, L) to (N, C)."""
        channels = self.p.numel()
        if channels > 1 and (x.dim() not in (3, 4) or x.shape[1] != channels):
            raise ValueError(f"x: got shape {tuple(x.shape)}, expected (N, {channels}, H, W) or (N, {channels}, L)")
        return ops.gem_pool(x, self.p.clamp(P_MIN, P_MAX), eps=self.eps)

    def extra_repr(self) -> str:
        return f"channels={self.p.numel() if self.p.numel() > 1 else None}, eps={self.eps}"
