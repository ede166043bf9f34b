from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pyreid.layers import GeM


def test_golden() -> None:
    x = torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 3)
    assert GeM(p=3.0)(x).item() == pytest.approx(2.289428, abs=1e-6)


def test_p_of_one_is_the_average() -> None:
    x = torch.rand(2, 5, 4, 3)
    torch.testing.assert_close(GeM(p=1.0)(x), x.mean(dim=(2, 3)))


@pytest.mark.parametrize("p", [0.01, 0.5, 1.0, 3.0, 10.0, 50.0])
def test_bounds(p: float) -> None:
    """n^(-1/p) max <= GeM <= max over n elements; with p = 50 and n = 16 that is a factor of 0.946 or more."""
    x = torch.rand(3, 4, 4, 4, dtype=torch.float64) + 0.01
    out, top = GeM(p=p).double()(x), x.amax(dim=(2, 3))
    assert (out <= top * (1 + 1e-9)).all()
    assert (out >= top * 16 ** (-1 / p) * (1 - 1e-9)).all()
    assert math.isclose(16 ** (-1 / 50), 0.946, abs_tol=1e-3)


def test_one_exponent_or_one_per_channel() -> None:
    shared, separate = GeM(), GeM(4)
    assert isinstance(shared.p, nn.Parameter)
    assert shared.p.tolist() == [3.0]
    assert separate.p.tolist() == [3.0] * 4
    x = torch.rand(2, 4, 3, 3)
    torch.testing.assert_close(shared(x), separate(x))
    with torch.no_grad():
        separate.p.copy_(torch.tensor([1.0, 2.0, 5.0, 10.0]))
    expected = torch.stack([GeM(p=p)(x[:, c : c + 1])[:, 0] for c, p in enumerate((1.0, 2.0, 5.0, 10.0))], dim=1)
    torch.testing.assert_close(separate(x), expected)


def test_the_exponent_learns_unless_it_is_fixed() -> None:
    x = torch.rand(2, 3, 4, 4)
    layer = GeM(3)
    layer(x).sum().backward()
    assert layer.p.grad is not None
    assert (layer.p.grad > 0).all()  # a larger exponent gives a larger mean
    fixed = GeM(3, learnable=False)
    assert not list(fixed.parameters())
    assert "p" in fixed.state_dict()


@pytest.mark.parametrize(("outside", "limit"), [(1000.0, 50.0), (-3.0, 0.01)])
def test_the_exponent_is_clamped(outside: float, limit: float) -> None:
    x = torch.rand(2, 3, 4, 4) + 0.1
    layer = GeM()
    with torch.no_grad():
        layer.p.fill_(outside)
    torch.testing.assert_close(layer(x), GeM(p=limit)(x))


def test_zero_input_has_finite_gradients() -> None:
    x = torch.zeros(2, 3, 4, 4, requires_grad=True)
    layer = GeM()
    out = layer(x)
    out.sum().backward()
    assert out.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert layer.p.grad is not None
    assert layer.p.grad.isfinite().all()


def test_wrong_options() -> None:
    with pytest.raises(ValueError, match=r"p: got 60.0, expected a value in \[0.01, 50.0\]"):
        GeM(p=60.0)
    with pytest.raises(ValueError, match=r"eps: got 0\.0, expected a positive finite number"):
        GeM(eps=0.0)
    with pytest.raises(ValueError, match="eps: got inf, expected a positive finite number"):
        GeM(eps=float("inf"))
    with pytest.raises(ValueError, match="channels: got 0, expected a positive number or None"):
        GeM(0)


def test_compiles_without_graph_breaks() -> None:
    layer = GeM(3)
    x = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), layer(x))
