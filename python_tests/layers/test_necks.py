from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyreid.layers import make_neck


def test_what_each_neck_computes() -> None:
    x = torch.randn(6, 32) * 5 + 2
    mean, std = x.mean(1, keepdim=True), x.std(1, keepdim=True, unbiased=False)
    groups = x.view(6, 2, 16)
    grouped = (groups - groups.mean(2, keepdim=True)) / groups.std(2, keepdim=True, unbiased=False)
    expected = {
        "none": x,
        "ln": (x - mean) / std,
        "in": (x - mean) / std,
        "gn": grouped.view(6, 32),
        "bn": (x - x.mean(0)) / x.std(0, unbiased=False),
        "l2": x / x.norm(dim=1, keepdim=True),
    }
    for kind, value in expected.items():
        torch.testing.assert_close(make_neck(kind, 32)(x), value, rtol=1e-3, atol=1e-4)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["bn", "ln", "gn"])
def test_learned_scale_and_frozen_zero_bias(kind: str) -> None:
    neck = make_neck(kind, 32)  # type: ignore[arg-type]
    parameters = dict(neck.named_parameters())
    assert parameters["weight"].requires_grad
    assert not parameters["bias"].requires_grad
    assert not parameters["bias"].any()


@pytest.mark.parametrize("kind", ["none", "in", "l2"])
def test_nothing_to_learn(kind: str) -> None:
    assert not list(make_neck(kind, 32).parameters())  # type: ignore[arg-type]


def test_a_zero_row_stays_finite() -> None:
    x = torch.zeros(2, 16, requires_grad=True)
    for kind in ("ln", "in", "gn", "l2"):
        out = make_neck(kind, 16)(x)
        (gradient,) = torch.autograd.grad(out.sum(), x)
        assert torch.equal(out, torch.zeros_like(out))
        assert gradient.isfinite().all()


def test_wrong_options() -> None:
    with pytest.raises(ValueError, match="neck: got 'layer', expected one of 'none', 'bn', 'ln', 'gn', 'in', 'l2'"):
        make_neck("layer", 32)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="neck: 'gn' needs a width that is a multiple of 16, got 40"):
        make_neck("gn", 40)


def test_a_frozen_bias_survives_an_optimiser() -> None:
    neck = make_neck("ln", 16)
    assert isinstance(neck, nn.LayerNorm)
    optimizer = torch.optim.SGD(neck.parameters(), lr=1.0)
    F.mse_loss(neck(torch.randn(4, 16)), torch.randn(4, 16)).backward()
    optimizer.step()
    assert not neck.bias.any()
    assert not torch.equal(neck.weight, torch.ones(16))
