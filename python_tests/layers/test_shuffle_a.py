from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pyreid.layers import ShuffleA
from pyreid.layers.rm_block import ConvBN


def convolve(layer: ConvBN, x: torch.Tensor, *, groups: int = 1) -> torch.Tensor:
    """Convolution and a fresh batch norm in evaluation."""
    return F.conv2d(x, layer.conv.weight, padding=layer.conv.weight.shape[2] // 2, groups=groups) / (1 + 1e-5) ** 0.5


def test_one_half_passes_and_the_other_is_convolved() -> None:
    block = ShuffleA(6).eval()
    first, depthwise, last = block.branch
    x = torch.randn(2, 6, 5, 3)
    out = block(x)
    assert torch.equal(out[:, 0::2], x[:, :3])
    hidden = convolve(first, x[:, 3:]).relu()
    hidden = convolve(depthwise, hidden, groups=3)  # no ReLU after the depthwise convolution
    torch.testing.assert_close(out[:, 1::2], convolve(last, hidden).relu())


@pytest.mark.parametrize("size", [(1, 1), (4, 7)])
def test_keeps_the_shape_and_the_memory_format(size: tuple[int, int]) -> None:
    block = ShuffleA(8).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.randn(2, 8, *size).to(memory_format=torch.channels_last)
    out = block(x)
    assert out.shape == x.shape
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert block.eval()(x[:0]).shape == (0, 8, *size)


@pytest.mark.parametrize(("channels", "params"), [(128, 64_064 // 7), (256, 346_880 // 10), (480, 950_400 // 8)])
def test_parameters(channels: int, params: int) -> None:
    assert sum(p.numel() for p in ShuffleA(channels).parameters()) == params


@pytest.mark.parametrize("channels", [7, 0, -2])
def test_wrong_widths(channels: int) -> None:
    with pytest.raises(ValueError, match=f"channels: got {channels}, expected a positive even number"):
        ShuffleA(channels)
