from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from pyreid.losses import AMSoftmaxLoss, ArcFaceLoss
from pyreid.losses.arcface import add_angle

COSINES = torch.tensor([[1.0, 0.0], [0.6, 0.8]])  # of f = (1, 0), (.6, .8) to the weights (1, 0), (0, 1)
LABELS = torch.tensor([0, 1])


def test_golden_of_am_softmax() -> None:
    double = AMSoftmaxLoss(reduction="none")(COSINES.double().mul(1000).round() / 1000, LABELS)
    assert double.tolist() == pytest.approx([math.log1p(math.exp(-30 * 0.65)), math.log1p(math.exp(4.5))], rel=1e-12)
    each = AMSoftmaxLoss(scale=30, margin=0.35, reduction="none")(COSINES, LABELS)
    assert each.tolist() == pytest.approx([0.0, 4.511047], abs=1e-6)
    # s (.6 - .8 + .35) = 4.5
    assert each[1].item() == pytest.approx(math.log1p(math.exp(4.5)), rel=1e-6)
    assert AMSoftmaxLoss()(COSINES, LABELS).item() == pytest.approx(each.mean().item())
    assert AMSoftmaxLoss(reduction="sum")(COSINES, LABELS).item() == pytest.approx(each.sum().item())


def test_golden_of_arcface() -> None:
    each = ArcFaceLoss(scale=32, margin=0.5, reduction="none")(COSINES.double(), LABELS)
    first = 32 * (0 - math.cos(0.5))
    second = 32 * (0.6 - math.cos(math.acos(0.8) + 0.5))
    expected = [math.log1p(math.exp(first)), math.log1p(math.exp(second))]
    assert each.tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", [AMSoftmaxLoss, ArcFaceLoss])
def test_without_margin_it_is_the_cross_entropy_of_scaled_cosines(kind: type[AMSoftmaxLoss | ArcFaceLoss]) -> None:
    cosines, labels = 1.9 * torch.rand(6, 9, dtype=torch.float64) - 0.95, torch.randint(9, (6,))
    expected = F.cross_entropy(20 * cosines, labels)
    torch.testing.assert_close(kind(scale=20, margin=0)(cosines, labels), expected)


@pytest.mark.parametrize("kind", [AMSoftmaxLoss, ArcFaceLoss])
def test_the_loss_grows_with_the_margin(kind: type[AMSoftmaxLoss | ArcFaceLoss]) -> None:
    cosines, labels = 1.9 * torch.rand(6, 9, dtype=torch.float64) - 0.95, torch.randint(9, (6,))
    values = [kind(margin=margin)(cosines, labels).item() for margin in (0.0, 0.1, 0.35, 0.5, 1.0)]
    assert all(low < high for low, high in pairwise(values))


@pytest.mark.parametrize("kind", [AMSoftmaxLoss, ArcFaceLoss])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gradients(kind: type[AMSoftmaxLoss | ArcFaceLoss], reduction: str) -> None:
    cosines = (1.9 * torch.rand(6, 4, dtype=torch.float64) - 0.95).requires_grad_()
    with torch.no_grad():
        cosines[0, 2] = -0.97  # beyond pi with the margin
    labels = torch.tensor([2, 0, 1, 3, 3, 2])
    loss = kind(scale=8, reduction=reduction)  # type: ignore[arg-type]
    assert torch.autograd.gradcheck(lambda c: loss(c, labels), (cosines,))


@pytest.mark.parametrize("margin", [0.1, 0.5, 1.0, 2.0, 3.0])
def test_the_target_falls_with_the_angle_all_the_way(margin: float) -> None:
    angles = torch.linspace(0.001, math.pi - 0.001, 4000, dtype=torch.float64)
    target = add_angle(angles.cos(), margin)
    steps = target.diff()
    assert (steps < 0).all()
    assert steps.abs().max() < 2 * math.pi / 4000  # no jump
    inside = angles < math.pi - margin
    torch.testing.assert_close(target[inside], (angles + margin).cos()[inside])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("cosine", [1.0, -1.0, 1.0001, -1.0001, 0.0])
def test_arcface_at_the_ends(dtype: torch.dtype, cosine: float) -> None:
    cosines = torch.full((1, 3), cosine, dtype=dtype, requires_grad=True)
    loss = ArcFaceLoss()(cosines, torch.tensor([1]))
    loss.backward()
    assert loss.isfinite()
    assert cosines.grad is not None
    assert cosines.grad.isfinite().all()
    assert cosines.grad[0, 1] < 0 < cosines.grad[0, 0]


@pytest.mark.parametrize("kind", [AMSoftmaxLoss, ArcFaceLoss])
def test_wrong_options_and_input(kind: type[AMSoftmaxLoss | ArcFaceLoss]) -> None:
    with pytest.raises(ValueError, match="scale: got 0, expected a finite number above 0"):
        kind(scale=0)
    with pytest.raises(ValueError, match="margin: got -1, expected a finite number of at least 0"):
        kind(margin=-1)
    with pytest.raises(TypeError, match="margin: got None, expected a finite number of at least 0"):
        kind(margin=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reduction: expected one of 'mean', 'sum', 'none', got 'max'"):
        kind(reduction="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"logits: got values up to 30 in magnitude, expected cosines in \[-1, 1\]"):
        kind()(-30 * COSINES, LABELS)
    with pytest.raises(ValueError, match=r"logits: got shape \(2,\), expected \(N, C\)"):
        kind()(COSINES[0], LABELS)
    with pytest.raises(ValueError, match=r"labels: got shape \(1,\), expected \(2,\)"):
        kind()(COSINES, LABELS[:1])
    with pytest.raises(TypeError, match=r"labels: got torch.float32, expected integers"):
        kind()(COSINES, LABELS.float())
    with pytest.raises(ValueError, match="labels: got values from 1 to 2, expected 0 to 1"):
        kind()(COSINES, LABELS + 1)


def test_arcface_margin_is_an_angle() -> None:
    with pytest.raises(ValueError, match=r"margin: got 3\.2, expected an angle in radians below pi"):
        ArcFaceLoss(margin=3.2)
