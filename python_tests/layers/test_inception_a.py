from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pyreid.layers import InceptionA
from pyreid.layers.conv_block import ConvBlock


def convolve(layer: ConvBlock, x: torch.Tensor) -> torch.Tensor:
    """Convolution, a fresh batch norm in evaluation, ReLU."""
    weight = layer.conv.weight
    return (F.conv2d(x, weight, layer.conv.bias, padding=weight.shape[2] // 2) / (1 + 1e-5) ** 0.5).relu()


def test_branches() -> None:
    block = InceptionA(3, 8).eval()
    x = torch.randn(2, 3, 6, 5)
    out = block(x)
    assert out.shape == (2, 8, 6, 5)
    for index in range(3):
        first, second = block.branches[index]
        assert (first.conv.kernel_size, second.conv.kernel_size) == ((1, 1), (3, 3))
        torch.testing.assert_close(out[:, 2 * index : 2 * index + 2], convolve(second, convolve(first, x)))
    _, last = block.branches[3]
    torch.testing.assert_close(out[:, 6:], convolve(last, F.avg_pool2d(x, 3, stride=1, padding=1)))


@pytest.mark.parametrize("size", [(1, 1), (3, 2)])
def test_keeps_any_size(size: tuple[int, int]) -> None:
    assert InceptionA(4, 8).eval()(torch.randn(1, 4, *size)).shape == (1, 8, *size)


def test_wrong_widths() -> None:
    with pytest.raises(ValueError, match="out_channels: got 6, expected a positive multiple of 4"):
        InceptionA(4, 6)
