"""The Shuffle-Xception unit of ShuffleNetV2+ (Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform
Sampling", Sect. 4: the choice block "Xception").
"""

from __future__ import annotations

from torch import nn

from pyreid.layers.rm_block import ConvBN
from pyreid.layers.split_unit import SplitUnit, UnitActivation, branch_widths, unit_activation, unit_excite


class ShuffleXception(SplitUnit):
    """A :class:`SplitUnit` whose branch is three separable convolutions: depthwise 3x3, 1x1, activation.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output, an even number; ``in_channels`` at stride 1, more at stride 2.
        stride: 1 or 2, of the first separable convolution.
        activation: ``"relu"`` or ``"hardswish"``.
        excite: squeeze-and-excitation at the end of the branch.

    Raises:
        ValueError: unknown activation, or sizes that do not fit.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        activation: UnitActivation = "relu",
        excite: bool = False,
    ) -> None:
        entering, inner, leaving = branch_widths(in_channels, out_channels, stride)
        branch = nn.Sequential()
        for before, after, step in ((entering, inner, stride), (inner, inner, 1), (inner, leaving, 1)):
            branch.append(ConvBN(before, before, 3, stride=step, groups=before))
            branch.append(ConvBN(before, after, 1))
            branch.append(unit_activation(activation))
        if excite:
            branch.append(unit_excite(leaving))
        super().__init__(branch, in_channels, kernel_size=3, stride=stride, activation=activation)
