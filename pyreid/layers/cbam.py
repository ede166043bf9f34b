"""CBAM: a gate per channel, then a gate per pixel (Woo et al., "CBAM: Convolutional Block Attention Module")."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyreid.layers.checks import check_map, check_width


class CBAM(nn.Module):
    """Channel attention followed by spatial attention; both multiply by factors in (0, 1).

    The channel gate is ``sigmoid(mlp(average of x) + mlp(maximum of x))`` with one MLP for both pools, the spatial gate
    ``sigmoid(conv([maximum over channels, average over channels]))``.

    Args:
        channels: C.
        ratio: the hidden layer of the MLP has ``C // ratio`` units.
        kernel_size: of the spatial gate's convolution, odd.
        bias: whether the two linear layers of the MLP have biases. The convolution has none.

    Raises:
        ValueError: a hidden layer without units, or a kernel size that is not odd and positive.
    """

    def __init__(self, channels: int, *, ratio: int = 16, kernel_size: int = 7, bias: bool = False) -> None:
        super().__init__()
        check_width("channels", channels)
        if not 1 <= ratio <= channels:
            raise ValueError(f"ratio: got {ratio}, expected 1 to {channels} (the channels)")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size: got {kernel_size}, expected an odd positive number")
        self.reduce = nn.Linear(channels, channels // ratio, bias=bias)
        self.expand = nn.Linear(channels // ratio, channels, bias=bias)
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Scale ``x`` (N, C, H, W) by channel and then by pixel; the shape stays."""
        check_map(x, self.reduce.in_features)
        x = x * torch.sigmoid(self._mlp(x.mean(dim=(2, 3))) + self._mlp(x.amax(dim=(2, 3))))[:, :, None, None]
        pools = torch.cat((x.amax(dim=1, keepdim=True), x.mean(dim=1, keepdim=True)), dim=1)
        return x * torch.sigmoid(self.conv(pools))

    def _mlp(self, pooled: Tensor) -> Tensor:
        logits: Tensor = self.expand(F.relu(self.reduce(pooled)))
        return logits
