"""The convolutions of ShuffleNetV2+, which no library has (Ma et al., "ShuffleNet V2"; the block of every place was
found by Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling").
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from pyreid.layers.rm_block import ConvBN
from pyreid.layers.shuffle_unit import ShuffleUnit
from pyreid.layers.shuffle_xception import ShuffleXception
from pyreid.layers.split_unit import SplitUnit, UnitActivation

ShuffleNetSize = Literal["small", "medium", "large"]

STEM_CHANNELS = 16
OUT_CHANNELS = 1280
STAGE_CHANNELS: dict[ShuffleNetSize, tuple[int, int, int, int]] = {
    "small": (36, 104, 208, 416),
    "medium": (48, 128, 256, 512),
    "large": (68, 168, 336, 672),
}
# The units of the four stages: a kernel size, or X for ShuffleXception.
STAGE_UNITS = ("33X5", "5533", "73755373", "75X7")


def start_from_he(network: nn.Module) -> None:
    """Fresh weights from He's normal distribution for all convolutions and linear layers of a network."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


class ShuffleNetV2PlusTrunk(nn.Module):
    """ShuffleNetV2+ up to its last feature map: stride-2 stem, 20 units in four stages, 1x1 convolution to 1280.

    The first unit of each stage halves the map. Stage 1 has ReLU, everything else hard swish; stages 3 and 4 have
    squeeze-and-excitation in their units.

    Args:
        size: ``"small"``, ``"medium"`` or ``"large"``: the widths of the stages.
    """

    def __init__(self, size: ShuffleNetSize) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvBN(3, STEM_CHANNELS, 3, stride=2), nn.Hardswish())
        self.units = nn.Sequential(*_make_units(size))
        self.last = nn.Sequential(ConvBN(STAGE_CHANNELS[size][-1], OUT_CHANNELS, 1), nn.Hardswish())
        start_from_he(self)

    def forward(self, images: Tensor) -> Tensor:
        """From images (N, 3, H, W) to the feature map (N, 1280, ceil(H / 32), ceil(W / 32))."""
        return self.last(self.units(self.stem(images)))


def _make_units(size: ShuffleNetSize) -> list[SplitUnit]:
    units: list[SplitUnit] = []
    previous = STEM_CHANNELS
    for stage, (channels, kinds) in enumerate(zip(STAGE_CHANNELS[size], STAGE_UNITS, strict=True)):
        activation: UnitActivation = "relu" if stage == 0 else "hardswish"
        for index, kind in enumerate(kinds):
            stride, excite = (2 if index == 0 else 1), stage >= 2
            if kind == "X":
                unit: SplitUnit = ShuffleXception(
                    previous, channels, stride=stride, activation=activation, excite=excite
                )
            else:
                unit = ShuffleUnit(
                    previous, channels, kernel_size=int(kind), stride=stride, activation=activation, excite=excite
                )
            units.append(unit)
            previous = channels
    return units
