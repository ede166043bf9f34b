"""Shuffle-B, the block of Compact-ReID that changes size or width (Compact-ReID, Sect. 3.2 and Fig. 5)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyreid.layers.checks import check_map, check_width
from pyreid.layers.rm_block import ConvBN
from pyreid.layers.shuffle import channel_shuffle


class ShuffleB(nn.Module):
    """Two branches on all channels, depthwise 3x3 and 1x1 beside 1x1, depthwise 3x3 and 1x1, which then interleave.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output, an even number; each branch gives half.
        stride: 1 or 2, of the depthwise convolutions.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        check_width("in_channels", in_channels)
        if out_channels < 2 or out_channels % 2:
            raise ValueError(f"out_channels: got {out_channels}, expected a positive even number")
        if stride not in (1, 2):
            raise ValueError(f"stride: got {stride}, expected 1 or 2")
        self.in_channels = in_channels
        half = out_channels // 2
        self.left = nn.Sequential(
            ConvBN(in_channels, in_channels, 3, stride=stride, groups=in_channels),
            ConvBN(in_channels, half, 1, activation="relu"),
        )
        self.right = nn.Sequential(
            ConvBN(in_channels, half, 1, activation="relu"),
            ConvBN(half, half, 3, stride=stride, groups=half),
            ConvBN(half, half, 1, activation="relu"),
        )

    def forward(self, x: Tensor) -> Tensor:
        """From (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        check_map(x, self.in_channels)
        return channel_shuffle(torch.cat((self.left(x), self.right(x)), dim=1), 2)
