"""DBAM, the dense block attention module of SAFR (SAFR, Sect. 4.1, eq. 1): local and global features side by side."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyreid.layers.channel_mask import ChannelMask, MaskMode
from pyreid.layers.global_attention import NEGATIVE_SLOPE, AttentionConv, gate_conv


def spatial_gate(
    x: Tensor, weight1: Tensor, weight2: Tensor, *, negative_slope: float = NEGATIVE_SLOPE
) -> tuple[Tensor, Tensor, Tensor]:
    """Local features ``relu(sigmoid(conv(leaky_relu(conv(x)))) * x)`` and their global pools.

    Args:
        x: (N, C, H, W).
        weight1: first 3x3 convolution, (C, 1, 3, 3) depthwise or (C, C, 3, 3) full.
        weight2: second 3x3 convolution, likewise.
        negative_slope: of the leaky ReLU.

    Returns:
        local (N, C, H, W), its average (N, C) and its maximum (N, C) over the pixels.
    """
    gate = F.conv2d(x, weight1, padding=1, groups=x.shape[1] // weight1.shape[1])
    gate = F.conv2d(F.leaky_relu(gate, negative_slope), weight2, padding=1, groups=x.shape[1] // weight2.shape[1])
    local = F.relu(torch.sigmoid(gate) * x)
    return local, local.mean(dim=(2, 3)), local.amax(dim=(2, 3))


def masked_mix(local: Tensor, x: Tensor, identity: Tensor, mask: Tensor) -> Tensor:
    """``mask * local + (1 - mask) * relu(x + identity)`` with a mask of shape (C,) or (N, C)."""
    mask = mask[..., None, None].to(local.dtype)
    return mask * local + (1 - mask) * F.relu(x + identity)


class DBAM(nn.Module):
    """Joins a residual branch and its shortcut: masked channels carry local features, the others the plain sum.

    Takes the place of "add and ReLU" at the end of a residual block. A mask of 0 is the plain block.

    Args:
        channels: C, the block's output width.
        conv: ``"depthwise"`` (each channel makes its own map, as the paper says) or ``"full"`` (the authors' code).
        mask: see :class:`~pyreid.layers.ChannelMask`.
        ratio: reduction of the mask's MLP.
    """

    def __init__(
        self, channels: int, *, conv: AttentionConv = "depthwise", mask: MaskMode = "ste", ratio: int = 8
    ) -> None:
        super().__init__()
        self.conv1 = gate_conv(channels, conv)
        self.conv2 = gate_conv(channels, conv)
        self.mask = ChannelMask(channels, mode=mask, ratio=ratio)

    def forward(self, x: Tensor, identity: Tensor) -> Tensor:
        """Join ``x``, the residual branch before the addition, and ``identity``, the shortcut: all (N, C, H, W)."""
        local, avg, maximum = spatial_gate(x, self.conv1.weight, self.conv2.weight)
        return masked_mix(local, x, identity, self.mask(avg, maximum))
