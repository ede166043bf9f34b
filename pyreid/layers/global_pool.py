"""Pools that reduce a feature map to one vector, by name (Compact-ReID, Sect. 3.2 and 3.3 compare them)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from pyreid.layers.gem import GeM

Pooling = Literal["gem", "avg", "max", "avg_max"]


class AveragePool(nn.Module):
    """The mean over all positions: (N, C, H, W) to (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


class MaxPool(nn.Module):
    """The maximum over all positions: (N, C, H, W) to (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        # amax, because the backward pass of adaptive_max_pool2d is not deterministic on CUDA
        return x.amax(dim=(2, 3))


class AverageMaxPool(nn.Module):
    """Mean and maximum side by side: (N, C, H, W) to (N, 2 C)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x.mean(dim=(2, 3)), x.amax(dim=(2, 3))), dim=1)


def make_global_pool(kind: Pooling, channels: int, *, shared_p: bool = False) -> nn.Module:
    """A fresh pool from (N, channels, H, W) to (N, :func:`pooled_width`).

    Args:
        kind: ``"gem"`` the generalised mean with learned exponents that start at 3, ``"avg"``, ``"max"``, or
            ``"avg_max"`` for both.
        channels: C.
        shared_p: one exponent for all channels instead of one for each; for ``"gem"``.

    Raises:
        ValueError: unknown kind.
    """
    if kind not in get_args(Pooling):
        raise ValueError(f"pooling: got {kind!r}, expected one of {', '.join(map(repr, get_args(Pooling)))}")
    if kind == "gem":
        return GeM(None if shared_p else channels)
    if kind == "avg_max":
        return AverageMaxPool()
    return AveragePool() if kind == "avg" else MaxPool()


def pooled_width(kind: Pooling, channels: int) -> int:
    """Width of the vector that the pool makes of a map with so many channels."""
    return 2 * channels if kind == "avg_max" else channels
