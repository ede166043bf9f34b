"""DBAM, the dense block attention module of SAFR (SAFR, Sect. 4.1, eq. 1): local and global features side by side."""

from __future__ import annotations

from torch import Tensor, nn

from pyreid import ops
from pyreid.layers.channel_mask import ChannelMask, MaskMode
from pyreid.layers.checks import check_map
from pyreid.layers.global_attention import NEGATIVE_SLOPE, AttentionConv, gate_conv


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
        """Join ``x``, the residual branch before the addition, and ``identity``, the shortcut: all (N, C, H, W).

        Raises:
            ValueError: other shapes.
        """
        check_map(x, self.conv1.out_channels)
        if identity.shape != x.shape:
            raise ValueError(f"identity: got shape {tuple(identity.shape)}, expected {tuple(x.shape)}, the shape of x")
        local, avg, maximum = ops.spatial_gate(x, self.conv1.weight, self.conv2.weight, negative_slope=NEGATIVE_SLOPE)
        return ops.masked_mix(local, x, identity, self.mask(avg, maximum))
