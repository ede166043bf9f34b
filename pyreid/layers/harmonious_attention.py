"""Harmonious attention: soft attention over pixels and channels, hard attention on regions ("Harmonious Attention
Network for Person Re-Identification", Sect. 3.2; Compact-ReID, Fig. 4).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyreid.layers.checks import check_map
from pyreid.layers.conv_block import ConvBlock
from pyreid.layers.embedding import full_precision, without_autocast

# Four regions, one below the other.
REGION_COUNT = 4
INITIAL_ROWS = (-0.75, -0.25, 0.25, 0.75)
REDUCTION = 16


class SpatialAttention(nn.Module):
    """One value per pixel from the mean over channels: a 3x3 convolution at half the size, enlarged, and a 1x1."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce = ConvBlock(1, 1, 3, stride=2)
        self.refine = ConvBlock(1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """From (N, C, H, W) to (N, 1, H, W)."""
        half = self.reduce(x.mean(dim=1, keepdim=True))
        return self.refine(F.interpolate(half, size=x.shape[2:], mode="bilinear", align_corners=True))


class ChannelAttention(nn.Module):
    """One value per channel: squeeze and excitation with two convolution blocks.

    Args:
        channels: C, a multiple of 16.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels < REDUCTION or channels % REDUCTION:
            raise ValueError(f"channels: got {channels}, expected a positive multiple of {REDUCTION}")
        self.squeeze = ConvBlock(channels, channels // REDUCTION, 1)
        self.excite = ConvBlock(channels // REDUCTION, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """From (N, C, H, W) to (N, C, 1, 1)."""
        return self.excite(self.squeeze(x.mean(dim=(2, 3), keepdim=True)))


class SoftAttention(nn.Module):
    """A gate per channel and pixel: the product of spatial and channel attention, mixed by a 1x1 convolution block.

    The block ends in a ReLU before the sigmoid, as in HA-CNN, so the gate lies in [0.5, 1].

    Args:
        channels: C, a multiple of 16.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spatial = SpatialAttention()
        self.channel = ChannelAttention(channels)
        self.mix = ConvBlock(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The gate (N, C, H, W) of ``x`` (N, C, H, W)."""
        return torch.sigmoid(self.mix(self.spatial(x) * self.channel(x)))


class HardAttention(nn.Module):
    """Where to look: the centers of four regions, from the average of the map.

    Starts with the same regions for every image, in four heights of the middle column. Their rows are the hyperbolic
    tangents of -0.75, -0.25, 0.25 and 0.75, as in HA-CNN.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, 2 * REGION_COUNT)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Back to the regions at the start."""
        nn.init.zeros_(self.fc.weight)
        with torch.no_grad():
            self.fc.bias.copy_(torch.tensor([value for row in INITIAL_ROWS for value in (0.0, row)]))

    def forward(self, x: Tensor) -> Tensor:
        """Centers (N, 4, 2), as (x, y) in (-1, 1), from ``x`` (N, C, H, W); never in half precision."""
        # Half precision is too coarse for a place in the image, so weights in it are widened too.
        weight, bias = full_precision(self.fc.weight), full_precision(self.fc.bias)
        mean = x.mean(dim=(2, 3), dtype=weight.dtype)
        with without_autocast(x):
            centers = F.linear(mean, weight, bias)
        return torch.tanh(centers).unflatten(1, (REGION_COUNT, 2))


class HarmoniousAttention(nn.Module):
    """Soft and hard attention on the same map.

    Args:
        channels: C, a multiple of 16.
        regions: False leaves the hard attention out.
    """

    def __init__(self, channels: int, *, regions: bool = True) -> None:
        super().__init__()
        self.channels = channels
        self.soft = SoftAttention(channels)
        self.hard = HardAttention(channels) if regions else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The gated map (N, C, H, W) of ``x`` (N, C, H, W), and the centers (N, 4, 2) of its regions or None.

        :func:`~pyreid.layers.regions.sample_regions` cuts the regions out of a map of the caller's choice.

        Raises:
            ValueError: ``x`` has another shape.
        """
        check_map(x, self.channels)
        return x * self.soft(x), None if self.hard is None else self.hard(x)
