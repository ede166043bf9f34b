"""Shuffle-A, the block of Compact-ReID that keeps size and width (Compact-ReID, Sect. 3.2 and Fig. 5)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyreid.layers.checks import check_map
from pyreid.layers.rm_block import ConvBN
from pyreid.layers.shuffle import channel_shuffle


class ShuffleA(nn.Module):
    """Half of the channels pass, the other half go through 1x1, depthwise 3x3 and 1x1; then the halves interleave.

    Args:
        channels: C, an even number.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels < 2 or channels % 2:
            raise ValueError(f"channels: got {channels}, expected a positive even number")
        self.channels = channels
        half = channels // 2
        self.branch = nn.Sequential(
            ConvBN(half, half, 1, activation="relu"),
            ConvBN(half, half, 3, groups=half),
            ConvBN(half, half, 1, activation="relu"),
        )

    def forward(self, x: Tensor) -> Tensor:
        """From (N, C, H, W) to the same shape."""
        check_map(x, self.channels)
        passed, changed = x.chunk(2, dim=1)
        return channel_shuffle(torch.cat((passed, self.branch(changed)), dim=1), 2)
