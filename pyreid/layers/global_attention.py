"""SAFR's global attention (SAFR, Sect. 4.1): a gate per channel and pixel, without pooling."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyreid.layers.checks import check_map, check_width

AttentionConv = Literal["depthwise", "full"]

NEGATIVE_SLOPE = 0.01


def gate_conv(channels: int, conv: AttentionConv) -> nn.Conv2d:
    """Bias-free 3x3 convolution that keeps channels and size; ``"depthwise"`` or ``"full"``."""
    if conv not in ("depthwise", "full"):
        raise ValueError(f"conv: got {conv!r}, expected 'depthwise' or 'full'")
    check_width("channels", channels)
    groups = channels if conv == "depthwise" else 1
    return nn.Conv2d(channels, channels, 3, padding=1, groups=groups, bias=False)


class GlobalAttention(nn.Module):
    """``x * sigmoid(conv3x3(leaky_relu(conv3x3(x))))``, so that ``|output| <= |x|`` everywhere.

    Args:
        channels: C.
        conv: ``"depthwise"`` gives the sizes that the paper reports, ``"full"`` is what its authors' code has.
    """

    def __init__(self, channels: int, *, conv: AttentionConv = "depthwise") -> None:
        super().__init__()
        self.conv1 = gate_conv(channels, conv)
        self.conv2 = gate_conv(channels, conv)

    def forward(self, x: Tensor) -> Tensor:
        """Gate ``x`` (N, C, H, W); the shape stays."""
        check_map(x, self.conv1.in_channels)
        return x * torch.sigmoid(self.conv2(F.leaky_relu(self.conv1(x), NEGATIVE_SLOPE)))
