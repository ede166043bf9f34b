from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pyreid.layers import (
    CBAM,
    DBAM,
    ChannelMask,
    CosineClassifier,
    GeM,
    GlobalAttention,
    HarmoniousAttention,
    InceptionA,
    InceptionB,
    RMBlock,
    ShuffleA,
    ShuffleB,
    ShuffleXception,
    SqueezeExcite,
)
from pyreid.layers.shuffle_unit import ShuffleUnit

# Every layer that takes one feature map, for 16 channels.
ON_MAPS = {
    "CBAM": CBAM(16),
    "GlobalAttention": GlobalAttention(16),
    "HarmoniousAttention": HarmoniousAttention(16),
    "InceptionA": InceptionA(16, 8),
    "InceptionB": InceptionB(16, 8),
    "RMBlock": RMBlock(16, 16, activation="elu", dropout=0.0),
    "ShuffleA": ShuffleA(16),
    "ShuffleB": ShuffleB(16, 8),
    "ShuffleUnit": ShuffleUnit(16, 16),
    "ShuffleXception": ShuffleXception(16, 16),
    "SqueezeExcite": SqueezeExcite(16),
    "GeM": GeM(16),
}


@pytest.mark.parametrize("name", ON_MAPS)
@pytest.mark.parametrize("shape", [(2, 12, 4, 4), (2, 16), (16, 4, 4, 1, 1), (2, 4, 4, 16)])
def test_maps_of_another_shape_are_refused(name: str, shape: tuple[int, ...]) -> None:
    got = str(shape).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ValueError, match=rf"^x: got shape {got}, expected \(N, 16, H, W\)"):
        ON_MAPS[name](torch.zeros(shape))


@pytest.mark.parametrize("name", ON_MAPS)
def test_the_checks_break_no_graph(name: str) -> None:
    torch._dynamo.reset()
    layer = ON_MAPS[name].eval()
    x = torch.randn(2, 16, 8, 6)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), layer(x))


def rows(width: int) -> Tensor:
    return torch.zeros(2, width)


def test_rows_of_another_width_are_refused() -> None:
    mask = ChannelMask(16)
    with pytest.raises(ValueError, match=r"avg: got shape \(2, 8\), expected \(N, 16\)"):
        mask(rows(8), rows(16))
    with pytest.raises(ValueError, match=r"maximum: got shape \(2, 16, 1, 1\), expected \(N, 16\)"):
        mask(rows(16), torch.zeros(2, 16, 1, 1))
    with pytest.raises(ValueError, match=r"x: got shape \(2, 8\), expected \(N, 16\)"):
        CosineClassifier(16, 3)(rows(8))


def test_dbam_takes_two_maps_of_one_shape() -> None:
    dbam = DBAM(16)
    x = torch.zeros(2, 16, 4, 4)
    with pytest.raises(ValueError, match=r"x: got shape \(2, 8, 4, 4\), expected \(N, 16, H, W\)"):
        dbam(x[:, :8], x)
    with pytest.raises(ValueError, match=r"identity: got shape \(2, 16, 4, 1\), expected \(2, 16, 4, 4\)"):
        dbam(x, x[..., :1])


@pytest.mark.parametrize("make", [GlobalAttention, DBAM, ChannelMask, CBAM])
def test_layers_without_channels_are_refused(make: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match="channels: got 0, expected 1 or more"):
        make(0)


def test_gem_takes_sequences_too() -> None:
    assert GeM(16)(torch.rand(2, 16, 5)).shape == (2, 16)
    assert GeM()(torch.rand(2, 3, 4, 5)).shape == (2, 3)
