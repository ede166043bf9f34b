from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyreid.layers import ShuffleXception, SqueezeExcite
from pyreid.layers.rm_block import ConvBN


def test_three_separable_convolutions_with_an_activation_each() -> None:
    unit = ShuffleXception(8, 8, activation="hardswish", excite=True)
    layers = list(unit.branch.children())
    assert [type(layer) for layer in layers] == [ConvBN, ConvBN, nn.Hardswish] * 3 + [SqueezeExcite]
    convolutions = [layer.conv for layer in layers if isinstance(layer, ConvBN)]
    assert [conv.kernel_size for conv in convolutions] == [(3, 3), (1, 1)] * 3
    assert [conv.groups for conv in convolutions] == [4, 1] * 3
    assert all(conv.bias is None for conv in convolutions)
    assert unit.shortcut is None


def test_widths_and_strides_when_it_halves_the_map() -> None:
    """Only the first separable convolution strides; the last one leaves room for the shortcut's channels."""
    unit = ShuffleXception(6, 20, stride=2)
    convolutions = [layer.conv for layer in unit.branch.children() if isinstance(layer, ConvBN)]
    assert [(conv.in_channels, conv.out_channels) for conv in convolutions] == [
        (6, 6), (6, 10), (10, 10), (10, 10), (10, 10), (10, 14)
    ]  # fmt: skip
    assert [conv.stride for conv in convolutions] == [(2, 2), *[(1, 1)] * 5]
    assert unit(torch.randn(2, 6, 7, 4)).shape == (2, 20, 4, 2)
    with pytest.raises(ValueError, match="stride: got 3, expected 1 or 2"):
        ShuffleXception(8, 8, stride=3)


def test_values_with_averaging_filters() -> None:
    """All depthwise filters sum a 3x3 window and all 1x1 filters average the channels: numbers by hand."""
    unit = ShuffleXception(4, 4).eval()
    for module in unit.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1.0 if module.groups > 1 else 1.0 / module.in_channels)
        elif isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
    x = torch.rand(2, 4, 5, 6)
    box = torch.ones(1, 1, 3, 3)
    expected = x[:, 1::2].mean(dim=1, keepdim=True)
    for _ in range(3):
        expected = F.conv2d(expected, box, padding=1)
    out = unit(x)
    assert torch.equal(out[:, :2], x[:, ::2])
    torch.testing.assert_close(out[:, 2:], expected.expand(-1, 2, -1, -1))


@pytest.mark.parametrize("stride", [1, 2])
def test_every_parameter_and_the_input_learn(stride: int) -> None:
    torch.manual_seed(0)
    unit = ShuffleXception(8, 8 if stride == 1 else 12, stride=stride, activation="hardswish", excite=True)
    x = torch.randn(3, 8, 6, 5, requires_grad=True)
    unit(x).square().sum().backward()
    silent = [name for name, value in unit.named_parameters() if value.grad is None or not value.grad.any()]
    assert silent == []
    assert x.grad is not None
    assert (x.grad != 0).all()


def test_channels_last_gives_the_same() -> None:
    unit = ShuffleXception(8, 8).eval()
    x = torch.randn(2, 8, 6, 5)
    found = unit(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, unit(x), rtol=1e-5, atol=1e-6)
