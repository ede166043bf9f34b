from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyreid.layers.rm_block import ConvBN
from pyreid.layers.shuffle_unit import ShuffleUnit
from pyreid.layers.shuffle_xception import ShuffleXception
from pyreid.layers.split_unit import SplitUnit, unit_excite
from pyreid.layers.squeeze_excite import SqueezeExcite


def make(kind: str, in_channels: int, out_channels: int, **options: object) -> SplitUnit:
    """A unit in evaluation whose batch norms do something."""
    unit: SplitUnit
    if kind == "X":
        unit = ShuffleXception(in_channels, out_channels, **options)  # type: ignore[arg-type]
    else:
        unit = ShuffleUnit(in_channels, out_channels, kernel_size=int(kind), **options)  # type: ignore[arg-type]
    for module in unit.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                assert tensor is not None
                nn.init.uniform_(tensor, 0.2, 1.5)
    return unit.eval()


def conv_bn(layers: list[ConvBN], x: Tensor, *, stride: int, depthwise: bool) -> Tensor:
    """The next convolution and its batch norm, as functions of their weights alone."""
    layer = layers.pop(0)
    weight, bn = layer.conv.weight, layer.bn
    assert (weight.shape[1] == 1) == depthwise
    padding = weight.shape[2] // 2
    x = F.conv2d(x, weight, stride=stride, padding=padding, groups=len(weight) if depthwise else 1)
    return F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias)


def expected(kind: str, unit: SplitUnit, x: Tensor, *, stride: int, activation: str, excite: bool) -> Tensor:
    act = F.relu if activation == "relu" else F.hardswish
    kept, changed = (x[:, ::2], x[:, 1::2]) if stride == 1 else (x, x)
    layers = [module for module in unit.branch.modules() if isinstance(module, ConvBN)]
    if kind == "X":
        for step in (stride, 1, 1):
            changed = conv_bn(layers, changed, stride=step, depthwise=True)
            changed = act(conv_bn(layers, changed, stride=1, depthwise=False))
    else:
        changed = act(conv_bn(layers, changed, stride=1, depthwise=False))
        changed = conv_bn(layers, changed, stride=stride, depthwise=True)
        changed = act(conv_bn(layers, changed, stride=1, depthwise=False))
    assert layers == []
    if excite:
        (gate,) = (module for module in unit.branch.modules() if isinstance(module, SqueezeExcite))
        changed = gate(changed)
    if stride == 2:
        assert unit.shortcut is not None
        layers = [module for module in unit.shortcut.modules() if isinstance(module, ConvBN)]
        assert layers[0].conv.kernel_size == ((3, 3) if kind == "X" else (int(kind), int(kind)))
        kept = act(conv_bn(layers, conv_bn(layers, kept, stride=2, depthwise=True), stride=1, depthwise=False))
    return torch.cat((kept, changed), dim=1)


@pytest.mark.parametrize("excite", [False, True])
@pytest.mark.parametrize("activation", ["relu", "hardswish"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", ["3", "5", "7", "X"])
def test_layer_by_layer(kind: str, stride: int, activation: str, excite: bool) -> None:
    in_channels, out_channels = (12, 12) if stride == 1 else (6, 20)
    unit = make(kind, in_channels, out_channels, stride=stride, activation=activation, excite=excite)
    for height, width in ((9, 6), (1, 1), (2, 5)):
        x = torch.randn(2, in_channels, height, width)
        out = unit(x)
        assert out.shape == (2, out_channels, -(-height // stride), -(-width // stride))
        torch.testing.assert_close(
            out, expected(kind, unit, x, stride=stride, activation=activation, excite=excite), rtol=1e-4, atol=1e-5
        )
    assert unit(torch.randn(0, in_channels, 4, 4)).shape[0] == 0


def test_the_even_channels_pass_untouched_at_stride_1() -> None:
    x = torch.randn(2, 8, 5, 4)
    for kind in ("3", "X"):
        out = make(kind, 8, 8)(x)
        assert torch.equal(out[:, :4], x[:, [0, 2, 4, 6]])
        # and the others do not reach them
        assert not torch.equal(out[:, 4:], x[:, [1, 3, 5, 7]])


def test_sizes_by_hand() -> None:
    def size(unit: nn.Module) -> int:
        return sum(p.numel() for p in unit.parameters())

    assert size(ShuffleXception(36, 36)) == 3 * (18 * 9 + 2 * 18 + 18 * 18 + 2 * 18) == 1674
    inner = 18
    branch = 16 * inner + 2 * inner + 25 * inner + 2 * inner + inner * 20 + 2 * 20
    shortcut = 25 * 16 + 2 * 16 + 16 * 16 + 2 * 16
    assert size(ShuffleUnit(16, 36, kernel_size=5, stride=2)) == branch + shortcut
    excite = ShuffleUnit(16, 36, kernel_size=5, stride=2, excite=True)
    assert size(excite) == branch + shortcut + 2 * 20 * 5 + 2 * 5
    gate = unit_excite(20)
    assert (gate.gate, gate.reduce.bias, gate.expand.bias) == ("hard_sigmoid", None, None)
    assert isinstance(gate.norm, nn.BatchNorm1d)


@pytest.mark.parametrize("unit", [ShuffleUnit, ShuffleXception])
@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        ((8, 8), {"stride": 3}, "stride: got 3, expected 1 or 2"),
        ((8, 10), {}, "out_channels: got 10, expected 8 at stride 1"),
        ((8, 8), {"stride": 2}, "out_channels: got 8, expected more than 8 at stride 2"),
        ((7, 7), {}, "out_channels: got 7, expected an even number"),
        ((0, 4), {"stride": 2}, "in_channels: got 0, expected 1 or more"),
        ((8, 8), {"activation": "elu"}, "activation: got 'elu', expected 'relu' or 'hardswish'"),
    ],
)
def test_wrong_options(unit: type[nn.Module], sizes: tuple[int, int], options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unit(*sizes, **options)


def test_wrong_kernel_size() -> None:
    with pytest.raises(ValueError, match="kernel_size: got 4, expected an odd number"):
        ShuffleUnit(8, 8, kernel_size=4)
