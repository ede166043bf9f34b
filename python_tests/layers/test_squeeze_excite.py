from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from pyreid.layers import SqueezeExcite


@torch.no_grad()
def by_loops(layer: SqueezeExcite, x: Tensor) -> Tensor:
    """The layer in evaluation, one unit at a time."""
    out = torch.empty_like(x)
    for n in range(len(x)):
        means = [float(plane.sum()) / plane.numel() for plane in x[n]]
        hidden = []
        for unit in range(layer.reduce.out_features):
            value = sum(float(w) * mean for w, mean in zip(layer.reduce.weight[unit], means, strict=True))
            if layer.reduce.bias is not None:
                value += float(layer.reduce.bias[unit])
            if isinstance(layer.norm, nn.BatchNorm1d):
                norm = layer.norm
                assert norm.running_mean is not None
                assert norm.running_var is not None
                value = (value - float(norm.running_mean[unit])) / math.sqrt(float(norm.running_var[unit]) + norm.eps)
                value = value * float(norm.weight[unit]) + float(norm.bias[unit])
            hidden.append(max(value, 0.0))
        for channel in range(x.shape[1]):
            logit = sum(float(w) * value for w, value in zip(layer.expand.weight[channel], hidden, strict=True))
            if layer.expand.bias is not None:
                logit += float(layer.expand.bias[channel])
            gate = 1 / (1 + math.exp(-logit)) if layer.gate == "sigmoid" else min(max(logit / 6 + 0.5, 0.0), 1.0)
            out[n, channel] = gate * x[n, channel]
    return out


@pytest.mark.parametrize("gate", ["sigmoid", "hard_sigmoid"])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_by_loops(gate: str, norm: bool, bias: bool) -> None:
    layer = SqueezeExcite(6, ratio=2, bias=bias, norm=norm, gate=gate).double().eval()  # type: ignore[arg-type]
    if isinstance(layer.norm, nn.BatchNorm1d):
        for tensor in (layer.norm.weight, layer.norm.bias, layer.norm.running_mean, layer.norm.running_var):
            assert tensor is not None
            nn.init.uniform_(tensor, 0.5, 1.5)
    x = 3 * torch.randn(2, 6, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(layer(x), by_loops(layer, x))


def test_widths_and_sizes() -> None:
    """An SE-ResNet's and ShuffleNetV2+'s, counted by hand."""

    def size(layer: nn.Module) -> int:
        return sum(p.numel() for p in layer.parameters())

    assert size(SqueezeExcite(64)) == 64 * 4 + 4 + 4 * 64 + 64
    plus = SqueezeExcite(52, ratio=4, bias=False, norm=True, gate="hard_sigmoid")
    assert size(plus) == 2 * 52 * 13 + 2 * 13
    assert SqueezeExcite(10, hidden=7).reduce.out_features == 7
    assert SqueezeExcite(10, ratio=3).reduce.out_features == 3


@pytest.mark.parametrize("shape", [(2, 4, 1, 1), (0, 4, 3, 2), (1, 4, 1, 7)])
@pytest.mark.parametrize("gate", ["sigmoid", "hard_sigmoid"])
def test_the_gate_only_shrinks(shape: tuple[int, ...], gate: str) -> None:
    layer = SqueezeExcite(4, ratio=2, norm=True, gate=gate).eval()  # type: ignore[arg-type]
    x = 3 * torch.randn(shape)
    out = layer(x)
    assert out.shape == x.shape
    assert (out.abs() <= x.abs()).all()
    assert (out * x >= 0).all()


def test_the_hard_gate_closes_and_opens_fully() -> None:
    layer = SqueezeExcite(2, ratio=1, gate="hard_sigmoid")
    nn.init.zeros_(layer.expand.weight)
    layer.expand.bias.data.copy_(torch.tensor([-3.0, 3.0]))
    x = torch.randn(3, 2, 4, 4)
    assert torch.equal(layer(x), torch.stack((torch.zeros(3, 4, 4), x[:, 1]), dim=1))


def test_channels_last_stays() -> None:
    x = torch.randn(2, 8, 5, 3).to(memory_format=torch.channels_last)
    layer = SqueezeExcite(8, ratio=2)
    assert layer(x).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(layer(x), layer(x.contiguous()))


def test_wrong_options() -> None:
    with pytest.raises(ValueError, match="gate: got 'hard', expected 'sigmoid' or 'hard_sigmoid'"):
        SqueezeExcite(4, ratio=2, gate="hard")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"ratio: got 16, expected 1 to 4 \(the channels\)"):
        SqueezeExcite(4)
    with pytest.raises(ValueError, match="ratio: got 0, expected 1 to 4"):
        SqueezeExcite(4, ratio=0)
    with pytest.raises(ValueError, match="ratio: got 2 beside hidden=3, expected one of the two"):
        SqueezeExcite(4, ratio=2, hidden=3)
    with pytest.raises(ValueError, match="hidden: got 0, expected 1 or more"):
        SqueezeExcite(4, hidden=0)
    with pytest.raises(ValueError, match="channels: got 0, expected 1 or more"):
        SqueezeExcite(0)
