"""Inception-A, the block of HA-CNN that keeps the size ("Harmonious Attention Network for Person Re-Identification",
Sect. 3).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyreid.layers.checks import check_map, check_width
from pyreid.layers.conv_block import ConvBlock


class InceptionA(nn.Module):
    """Four branches side by side, a quarter of the output each: three times 1x1 and 3x3, and an average pool and 1x1.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output, a multiple of 4.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        check_width("in_channels", in_channels)
        if out_channels < 4 or out_channels % 4:
            raise ValueError(f"out_channels: got {out_channels}, expected a positive multiple of 4")
        self.in_channels = in_channels
        quarter = out_channels // 4
        self.branches = nn.ModuleList(
            nn.Sequential(ConvBlock(in_channels, quarter, 1), ConvBlock(quarter, quarter, 3)) for _ in range(3)
        )
        self.branches.append(nn.Sequential(nn.AvgPool2d(3, stride=1, padding=1), ConvBlock(in_channels, quarter, 1)))

    def forward(self, x: Tensor) -> Tensor:
        """From (N, in_channels, H, W) to (N, out_channels, H, W)."""
        check_map(x, self.in_channels)
        return torch.cat([branch(x) for branch in self.branches], dim=1)
