from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pyreid.layers import InceptionB
from pyreid.layers.conv_block import ConvBlock


def convolve(layer: ConvBlock, x: torch.Tensor, *, stride: int = 1) -> torch.Tensor:
    """Convolution, a fresh batch norm in evaluation, ReLU."""
    weight = layer.conv.weight
    out = F.conv2d(x, weight, layer.conv.bias, padding=weight.shape[2] // 2, stride=stride)
    return (out / (1 + 1e-5) ** 0.5).relu()


def test_branches() -> None:
    block = InceptionB(3, 8).eval()
    x = torch.randn(2, 3, 6, 5)
    out = block(x)
    assert out.shape == (2, 8, 3, 3)
    first, second = block.branches[0]
    torch.testing.assert_close(out[:, :2], convolve(second, convolve(first, x), stride=2))
    first, second, third = block.branches[1]
    torch.testing.assert_close(out[:, 2:4], convolve(third, convolve(second, convolve(first, x)), stride=2))
    _, last = block.branches[2]
    torch.testing.assert_close(out[:, 4:], convolve(last, F.max_pool2d(x, 3, stride=2, padding=1)))


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (8, 7)])
def test_halves_any_size_and_rounds_up(size: tuple[int, int]) -> None:
    out = InceptionB(4, 8).eval()(torch.randn(1, 4, *size))
    assert out.shape == (1, 8, (size[0] + 1) // 2, (size[1] + 1) // 2)


def test_wrong_widths() -> None:
    with pytest.raises(ValueError, match="out_channels: got 10, expected a positive multiple of 4"):
        InceptionB(4, 10)
