from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pyreid.layers import HarmoniousAttention
from pyreid.layers.conv_block import ConvBlock
from pyreid.layers.harmonious_attention import ChannelAttention, HardAttention, SoftAttention, SpatialAttention


def convolve(layer: ConvBlock, x: Tensor, *, stride: int = 1) -> Tensor:
    """Convolution, a fresh batch norm in evaluation, ReLU."""
    weight = layer.conv.weight
    out = F.conv2d(x, weight, layer.conv.bias, padding=weight.shape[2] // 2, stride=stride)
    return (out / (1 + 1e-5) ** 0.5).relu()


@pytest.mark.parametrize(
    ("channels", "params"),
    [(128, 20_272), (256, 77_384), (384, 171_360), (240, 68_229), (320, 119_764), (480, 266_034)],
)
def test_parameters(channels: int, params: int) -> None:
    layer = HarmoniousAttention(channels)
    assert sum(p.numel() for p in layer.parameters()) == params
    hard = 8 * channels + 8
    without = HarmoniousAttention(channels, regions=False)
    assert sum(p.numel() for p in without.parameters()) == params - hard


@pytest.mark.parametrize("size", [(8, 6), (7, 5), (1, 1)])
def test_soft_attention(size: tuple[int, int]) -> None:
    layer = SoftAttention(16).eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.abs_()  # otherwise a ReLU may hide a difference
    x = torch.rand(2, 16, *size)
    half = convolve(layer.spatial.reduce, x.mean(dim=1, keepdim=True), stride=2)
    spatial = convolve(layer.spatial.refine, F.interpolate(half, size=size, mode="bilinear", align_corners=True))
    channel = convolve(layer.channel.excite, convolve(layer.channel.squeeze, x.mean(dim=(2, 3), keepdim=True)))
    expected = torch.sigmoid(convolve(layer.mix, spatial * channel))
    gate = layer(x)
    torch.testing.assert_close(gate, expected)
    assert ((gate >= 0.5) & (gate <= 1)).all()
    assert SpatialAttention().eval()(x).shape == (2, 1, *size)
    assert ChannelAttention(16).eval()(x).shape == (2, 16, 1, 1)


def test_the_gate_depends_on_place_and_channel() -> None:
    layer = SoftAttention(16)
    x = torch.randn(4, 16, 8, 6)
    gate = layer(x)
    assert gate.std(dim=1).max() > 0
    assert gate.flatten(2).std(dim=2).max() > 0
    gate.sum().backward()
    assert all(p.grad is not None for p in layer.parameters())


def test_regions_start_in_four_heights_of_the_middle() -> None:
    layer = HardAttention(16)
    centers = layer(torch.randn(3, 16, 5, 4))
    expected = torch.tanh(torch.tensor([[0, -0.75], [0, -0.25], [0, 0.25], [0, 0.75]])).expand(3, 4, 2)
    assert torch.equal(centers, expected)
    torch.nn.init.normal_(layer.fc.weight)
    x = torch.randn(3, 16, 5, 4)
    torch.testing.assert_close(layer(x), torch.tanh(layer.fc(x.mean(dim=(2, 3)))).view(3, 4, 2))
    layer.reset_parameters()
    assert torch.equal(layer(x), expected)


def test_places_stay_exact_under_autocast() -> None:
    layer = HardAttention(64)
    torch.nn.init.normal_(layer.fc.weight, std=0.1)
    x = torch.randn(2, 64, 5, 4).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = layer(x)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, layer(x.float()), rtol=1e-5, atol=1e-5)


def test_both_parts() -> None:
    layer = HarmoniousAttention(16).eval()
    assert layer.hard is not None
    x = torch.randn(2, 16, 6, 5)
    gated, centers = layer(x)
    torch.testing.assert_close(gated, x * layer.soft(x))
    torch.testing.assert_close(centers, layer.hard(x))
    gated, centers = HarmoniousAttention(16, regions=False).eval()(x)
    assert gated.shape == x.shape
    assert centers is None


@pytest.mark.parametrize("channels", [0, 8, 40])
def test_wrong_widths(channels: int) -> None:
    with pytest.raises(ValueError, match=f"channels: got {channels}, expected a positive multiple of 16"):
        HarmoniousAttention(channels)
