"""The plain unit of ShuffleNetV2+ (Ma et al., "ShuffleNet V2", Fig. 3, with kernels of 3, 5 or 7)."""

from __future__ import annotations

from torch import nn

from pyreid.layers.rm_block import ConvBN
from pyreid.layers.split_unit import SplitUnit, UnitActivation, branch_widths, unit_activation, unit_excite


class ShuffleUnit(SplitUnit):
    """A :class:`SplitUnit` whose branch is 1x1, depthwise kxk, 1x1, the inner width half of ``out_channels``.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output, an even number; ``in_channels`` at stride 1, more at stride 2.
        kernel_size: k, an odd number.
        stride: 1 or 2.
        activation: ``"relu"`` or ``"hardswish"``, after both 1x1 convolutions.
        excite: squeeze-and-excitation at the end of the branch.

    Raises:
        ValueError: unknown activation, or sizes that do not fit.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        activation: UnitActivation = "relu",
        excite: bool = False,
    ) -> None:
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size: got {kernel_size}, expected an odd number")
        entering, inner, leaving = branch_widths(in_channels, out_channels, stride)
        branch = nn.Sequential(
            ConvBN(entering, inner, 1),
            unit_activation(activation),
            ConvBN(inner, inner, kernel_size, stride=stride, groups=inner),
            ConvBN(inner, leaving, 1),
            unit_activation(activation),
        )
        if excite:
            branch.append(unit_excite(leaving))
        super().__init__(branch, in_channels, kernel_size=kernel_size, stride=stride, activation=activation)
