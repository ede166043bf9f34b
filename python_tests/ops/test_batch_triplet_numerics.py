"""batch_hard_triplet and batch_soft_triplet where numbers are large, small, equal or none."""

from __future__ import annotations

import math

import pytest
import torch

from pyreid import ops
from pyreid.ops import reference
from python_tests.ops.checks import DEVICES, assert_close, gradients, tolerance
from python_tests.ops.triplets import KINDS, MARGINS, batch, naive, reduce_losses, softplus, triplet

# Four points of the plane, three of one identity: the weighted means of anchor 0 are 1.731059 and 3.
GOLDEN = (torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [3.0, 0.0]]), torch.tensor([0, 0, 0, 1]))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("module", [ops, reference])
def test_golden(module: object, device: str) -> None:
    x, labels = (t.to(device) for t in GOLDEN)
    soft = triplet("soft", module)(x, labels, reduction="none")
    assert soft[0].item() == pytest.approx(0.247742, abs=1e-6)
    # as a hinge with a margin that lets the difference through
    shifted = triplet("soft", module)(x, labels, margin=2.0, reduction="none")
    assert shifted[0].item() - 2.0 == pytest.approx(-1.268941, abs=1e-6)
    hard = triplet("hard", module)(x, labels, margin=2.0, reduction="none")
    assert hard[0].item() == pytest.approx(2.0 - 3.0 + 2.0)


@pytest.mark.parametrize("device", DEVICES)
def test_soft_with_one_positive_and_one_negative_has_no_weights(device: str) -> None:
    x = torch.tensor([[0.0, 0.0], [1.0, 1.0], [3.0, 4.0]], device=device, dtype=torch.float64)
    out = ops.batch_soft_triplet(x, torch.tensor([5, 5, 7], device=device), reduction="none")
    assert_close(out[0], torch.tensor(softplus(math.sqrt(2) - 5), dtype=torch.float64), torch.float64)
    assert out[2].item() == 0


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_soft_becomes_hard_as_distances_grow(dtype: torch.dtype, device: str) -> None:
    x, labels = batch(24, 32, dtype)
    for factor in (1e2, 1e4, 1e6):
        hard, soft = (
            triplet(kind)(factor * x.to(device), labels.to(device), margin=0.3, reduction="none") for kind in KINDS
        )
        assert (hard > factor / 10).any()
        # an entry farther from the hardest by t has at most the weight exp(-t) and shifts the mean by t exp(-t) <= 1/e
        allowed = 2 * len(x) / math.e + tolerance(dtype, 20 * factor)
        assert (soft - hard).abs().max() < allowed


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("distance", [64.0, 1e3, 1e6])
def test_weights_do_not_underflow(distance: float, device: str) -> None:
    # exp(-64) is lost beside the 1e-6 that other implementations add to the sum of weights
    x, labels = batch(24, 64, torch.float64)
    x *= distance / math.sqrt(2 * 64)
    for dtype in (torch.float32, torch.float64):
        out = ops.batch_soft_triplet(x.to(device, dtype), labels.to(device), margin=distance, reduction="none")
        expected = reduce_losses(naive("soft", x.to(dtype), labels, distance), "none")
        # a weight is an exponential of a distance: its relative error is the absolute error of that
        assert_close(out, expected, dtype, scale=distance * (1 + min(distance, 64)))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
def test_far_apart_is_neither_overflow_nor_silence(kind: str, device: str) -> None:
    x = torch.tensor([[0.0], [1e6], [5e5], [-5e5]], device=device, requires_grad=True)
    out = triplet(kind)(x, torch.tensor([0, 0, 1, 1], device=device), margin=None)
    (grad,) = torch.autograd.grad(out, x)
    # d_ap is 1e6 for all; the nearest negative is at 5e5 for the first three and at 5e5 for the last
    assert out.item() == pytest.approx(5e5)
    assert torch.isfinite(grad).all()
    assert grad.abs().sum() > 0


@pytest.mark.parametrize("device", DEVICES)
def test_soft_margin_never_loses_its_gradient_and_the_hinge_does(device: str) -> None:
    x = torch.tensor([[0.0, 0.0], [0.1, 0.0], [40.0, 0.0], [40.1, 0.0]], device=device, requires_grad=True)
    labels = torch.tensor([0, 0, 1, 1], device=device)
    (grad,) = torch.autograd.grad(ops.batch_hard_triplet(x, labels, margin=None), x)
    assert (grad[:, 0] != 0).all()
    out = ops.batch_hard_triplet(x, labels, margin=0.3)
    (grad,) = torch.autograd.grad(out, x)
    assert out.item() == 0
    assert torch.equal(grad, torch.zeros_like(grad))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("module", [ops, reference])
@pytest.mark.parametrize("kind", KINDS)
def test_hinge_has_no_gradient_at_its_corner(kind: str, module: object, device: str) -> None:
    x = torch.tensor([[0.0], [1.0], [3.0], [4.0]], device=device, requires_grad=True)
    out = triplet(kind, module)(x[:3], torch.tensor([0, 0, 1], device=device), margin=1.0, reduction="none")
    assert out.tolist() == [0.0, 0.0, 0.0]  # 1 - 3 + 1 < 0 and 1 - 2 + 1 = 0, the corner
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert torch.equal(grad, torch.zeros_like(grad))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("module", [ops, reference])
def test_lowest_index_wins_a_tie_and_has_the_gradient(module: object, device: str) -> None:
    # anchor 0 in the middle of a cross: its positives 2 and 3 and its negatives 1 and 4 are equally far
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [-1.0, 0.0]], device=device, requires_grad=True)
    labels = torch.tensor([0, 1, 0, 0, 1], device=device)
    out = triplet("hard", module)(x, labels, reduction="none")
    (grad,) = torch.autograd.grad(out[0], x)
    expected = torch.tensor([[1.0, -1.0], [-1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]], device=device)
    assert torch.equal(grad, expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_rows_tie_wherever_they_stand(dtype: torch.dtype, device: str) -> None:
    # the same point at many places of the batch: in other tiles, at other lanes, in the last, ragged ones
    point, other = torch.randn(2, 37, dtype=dtype)
    for b in (11, 30, 45):
        x = torch.stack([point, *[other] * (b - 1)]).to(device).requires_grad_()
        labels = torch.tensor([0, *[1 + j % 2 for j in range(b - 1)]], device=device)
        labels[b // 2 :] = 0
        out = ops.batch_hard_triplet(x, labels, reduction="none")
        (grad,) = torch.autograd.grad(out[0], x)
        assert grad[[1, b // 2]].ne(0).any(1).all()
        rest = [j for j in range(2, b) if j != b // 2]
        assert torch.equal(grad[rest], torch.zeros_like(grad[rest]))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
def test_coincident_pairs_have_no_gradient(kind: str, device: str) -> None:
    x = torch.ones(4, 6, device=device, requires_grad=True)
    out = triplet(kind)(x, torch.tensor([0, 0, 1, 1], device=device), margin=0.3)
    assert out.item() == pytest.approx(0.3)
    (grad,) = torch.autograd.grad(out, x)
    assert torch.equal(grad, torch.zeros_like(grad))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
def test_near_duplicates_keep_their_digits(kind: str, device: str) -> None:
    # pairs at a distance of about 0.01 far from the origin: |x|^2 + |y|^2 - 2 x.y would have no correct digit left
    centres = torch.randn(4, 64) + 100
    x = (centres.repeat_interleave(3, 0) + 1e-3 * torch.randn(12, 64)).to(device)
    labels = torch.arange(12, device=device) % 3
    loss = lambda a, module=ops: triplet(kind, module)(a, labels.to(a.device), reduction="none")  # noqa: E731
    assert_close(loss(x), loss(x.double().cpu(), reference), torch.float32, scale=20.0)
    ours, expected = gradients(loss, x)[0], gradients(lambda a: loss(a, reference), x.double().cpu())[0]
    assert_close(ours, expected, torch.float32, scale=10.0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("module", [ops, reference])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("kind", KINDS)
def test_nan_is_never_silent(kind: str, margin: float | None, value: float, module: object, device: str) -> None:
    # 40 anchors in identities of four, whose rows stand far apart, and one, the last, without a positive
    labels = torch.cat([torch.arange(40, device=device) % 10, torch.tensor([10], device=device)])
    for row in (0, 7, 33, 40):
        x = torch.randn(41, 20, device=device)
        x[row, 7] = value
        x.requires_grad_()
        loss = triplet(kind, module)(x, labels, margin=margin)
        if math.isinf(value):
            # a negative that is infinitely far is harmless; a positive, or the anchor itself, is not
            assert row == 40 or not torch.isfinite(loss)
            continue
        assert loss.isnan()
        (grad,) = torch.autograd.grad(loss, x)
        assert grad.isnan().any()
        assert triplet(kind, module)(x, labels, margin=margin, reduction="none")[:40].isnan().all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("module", [ops, reference])
@pytest.mark.parametrize("kind", KINDS)
def test_soft_margin_is_exact_on_both_sides(kind: str, module: object, device: str) -> None:
    for far in (1.0, 10.0, 25.0, 40.0, 1000.0):
        x = torch.tensor([[0.0], [far], [1.0], [1.5 * far]], dtype=torch.float64)
        labels = torch.tensor([0, 0, 1, 1])
        out = triplet(kind, module)(x.to(device), labels.to(device), margin=None, reduction="none")
        expected = reduce_losses(naive(kind, x, labels, None), "none")
        # beside a difference of 24, ln(1 + exp(-24)) is 4e-11
        assert_close(out, expected, torch.float64, scale=far)
    x, labels = torch.tensor([[0.0], [1.0], [40.0], [41.0]], dtype=torch.float64), torch.tensor([0, 0, 1, 1])
    out = triplet(kind, module)(x.to(device), labels.to(device), margin=None, reduction="none").cpu()
    # tiny losses keep their relative precision: the absolute error of a difference of 40
    assert (out / reduce_losses(naive(kind, x, labels, None), "none") - 1).abs().max() < tolerance(torch.float64, 40)
