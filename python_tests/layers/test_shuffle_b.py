from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pyreid.layers import ShuffleB
from pyreid.layers.rm_block import ConvBN


def convolve(layer: ConvBN, x: torch.Tensor, *, groups: int = 1, stride: int = 1) -> torch.Tensor:
    """Convolution and a fresh batch norm in evaluation."""
    weight = layer.conv.weight
    return F.conv2d(x, weight, padding=weight.shape[2] // 2, groups=groups, stride=stride) / (1 + 1e-5) ** 0.5


@pytest.mark.parametrize("stride", [1, 2])
def test_two_branches_on_all_channels(stride: int) -> None:
    block = ShuffleB(3, 8, stride=stride).eval()
    x = torch.randn(2, 3, 6, 5)
    out = block(x)
    depthwise, pointwise = block.left
    left = convolve(pointwise, convolve(depthwise, x, groups=3, stride=stride)).relu()
    torch.testing.assert_close(out[:, 0::2], left)
    first, depthwise, last = block.right
    right = convolve(depthwise, convolve(first, x).relu(), groups=4, stride=stride)
    torch.testing.assert_close(out[:, 1::2], convolve(last, right).relu())


@pytest.mark.parametrize("size", [(8, 6), (7, 5), (1, 1), (2, 9)])
@pytest.mark.parametrize("stride", [1, 2])
def test_any_size(size: tuple[int, int], stride: int) -> None:
    block = ShuffleB(6, 4, stride=stride)
    assert block(torch.randn(2, 6, *size)).shape == (2, 4, -(-size[0] // stride), -(-size[1] // stride))


@pytest.mark.parametrize(
    ("widths", "params"), [((32, 128), 9_632), ((128, 128), 22_976), ((36, 240), 25_476), ((480, 480), 297_360)]
)
def test_parameters(widths: tuple[int, int], params: int) -> None:
    assert sum(p.numel() for p in ShuffleB(*widths, stride=2).parameters()) == params


def test_wrong_options() -> None:
    with pytest.raises(ValueError, match="out_channels: got 7, expected a positive even number"):
        ShuffleB(8, 7)
    with pytest.raises(ValueError, match="stride: got 3, expected 1 or 2"):
        ShuffleB(8, 8, stride=3)
