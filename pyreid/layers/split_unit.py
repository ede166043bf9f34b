"""What the units of ShuffleNetV2 have in common: two branches side by side (Ma et al., "ShuffleNet V2", Fig. 3)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from pyreid.layers.checks import check_map
from pyreid.layers.rm_block import ConvBN
from pyreid.layers.shuffle import split_even_odd
from pyreid.layers.squeeze_excite import SqueezeExcite

UnitActivation = Literal["relu", "hardswish"]

EXCITE_RATIO = 4


def unit_activation(name: UnitActivation) -> nn.Module:
    """A fresh ReLU or hard swish.

    Raises:
        ValueError: another name.
    """
    if name not in get_args(UnitActivation):
        raise ValueError(f"activation: got {name!r}, expected 'relu' or 'hardswish'")
    return nn.ReLU(inplace=True) if name == "relu" else nn.Hardswish()


def unit_excite(channels: int) -> SqueezeExcite:
    """The squeeze-and-excitation of ShuffleNetV2+: a quarter of the channels, batch norm inside, hard sigmoid."""
    return SqueezeExcite(channels, ratio=EXCITE_RATIO, bias=False, norm=True, gate="hard_sigmoid")


def branch_widths(in_channels: int, out_channels: int, stride: int) -> tuple[int, int, int]:
    """Channels into, inside and out of the unit's main branch.

    At stride 1 half of the channels go through the branch, at stride 2 all, and the shortcut keeps their number.

    Raises:
        ValueError: a stride other than 1 and 2, or widths that do not fit it.
    """
    if stride not in (1, 2):
        raise ValueError(f"stride: got {stride}, expected 1 or 2")
    if in_channels < 1:
        raise ValueError(f"in_channels: got {in_channels}, expected 1 or more")
    if out_channels < 2 or out_channels % 2:
        raise ValueError(f"out_channels: got {out_channels}, expected an even number")
    if stride == 1 and out_channels != in_channels:
        raise ValueError(f"out_channels: got {out_channels}, expected {in_channels} at stride 1")
    if stride == 2 and out_channels <= in_channels:
        raise ValueError(f"out_channels: got {out_channels}, expected more than {in_channels} at stride 2")
    half = out_channels // 2
    return (half, half, half) if stride == 1 else (in_channels, half, out_channels - in_channels)


class SplitUnit(nn.Module):
    """Shortcut and main branch, concatenated: (N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride)).

    At stride 1 the even channels pass as they are and the odd ones go through the branch. At stride 2 both sides get
    the whole input; the shortcut is then a depthwise convolution, a 1x1 convolution and an activation.

    Args:
        branch: the main branch, with the stride inside.
        in_channels: channels of the input.
        kernel_size: of the shortcut's depthwise convolution at stride 2.
        stride: 1 or 2.
        activation: ``"relu"`` or ``"hardswish"``.
    """

    def __init__(
        self, branch: nn.Module, in_channels: int, *, kernel_size: int, stride: int, activation: UnitActivation
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.shortcut: nn.Module | None = None
        if stride == 2:
            self.shortcut = nn.Sequential(
                ConvBN(in_channels, in_channels, kernel_size, stride=2, groups=in_channels),
                ConvBN(in_channels, in_channels, 1),
                unit_activation(activation),
            )
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        """Apply the unit to ``x`` (N, in_channels, H, W)."""
        check_map(x, self.in_channels)
        if self.shortcut is None:
            kept, changed = split_even_odd(x)
            return torch.cat((kept, self.branch(changed)), dim=1)
        return torch.cat((self.shortcut(x), self.branch(x)), dim=1)
