from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from pyreid.losses import TripletLoss, all_triplets

LABELS = [0, 0, 0, 1, 1, 2, 2, 2, 5]  # the last one has no positive


def triplet_losses(embeddings: Tensor, labels: list[int], margin: float | None) -> list[float]:
    """The loss of every valid triplet, by loops."""
    rows = embeddings.tolist()
    losses = []
    for a, p, n in product(range(len(rows)), repeat=3):
        if a != p and labels[a] == labels[p] and labels[a] != labels[n]:
            gap = math.dist(rows[a], rows[p]) - math.dist(rows[a], rows[n])
            losses.append(math.log1p(math.exp(gap)) if margin is None else max(0.0, margin + gap))
    return losses


@pytest.mark.parametrize("margin", [0.0, 0.3, 1.0, 100.0, None])
def test_against_loops(margin: float | None) -> None:
    embeddings, labels = torch.randn(9, 4, dtype=torch.float64), torch.tensor(LABELS)
    losses = triplet_losses(embeddings, LABELS, margin)
    active = [loss for loss in losses if loss > 0]
    assert len(losses) == 3 * 2 * 6 + 2 * 1 * 7 + 3 * 2 * 6
    assert len(active) < len(losses) or margin in (None, 100.0)
    expected = {"mean": sum(losses) / len(losses), "mean_nonzero": sum(losses) / len(active), "sum": sum(losses)}
    for reduction, value in expected.items():
        loss = TripletLoss(margin, reduction=reduction)(embeddings, labels)  # type: ignore[arg-type]
        assert loss.dtype == torch.float64
        assert loss.item() == pytest.approx(value, rel=1e-9)


def test_triplets_by_hand() -> None:
    # d(0, 1) = 1; d(0, 2) = 3, d(1, 2) = 2; anchors 0 and 1 have one triplet each, at 2.5 + 1 - 3 and 2.5 + 1 - 2
    embeddings, labels = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([4, 4, 9])
    assert TripletLoss(2.5)(embeddings, labels).item() == pytest.approx((0.5 + 1.5) / 2)
    # and at 1.5 only the second is active
    assert TripletLoss(1.5)(embeddings, labels).item() == pytest.approx(0.25)
    assert TripletLoss(1.5, reduction="mean_nonzero")(embeddings, labels).item() == pytest.approx(0.5)


@pytest.mark.parametrize("reduction", ["mean", "mean_nonzero", "sum"])
@pytest.mark.parametrize("margin", [0.5, None])
def test_gradients(margin: float | None, reduction: all_triplets.TripletReduction) -> None:
    embeddings = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    loss = TripletLoss(margin, reduction=reduction)
    assert torch.autograd.gradcheck(lambda x: loss(x, torch.tensor(LABELS)), (embeddings,))


def test_equal_distances_are_not_active_at_margin_0() -> None:
    embeddings = torch.tensor([[0.0], [1.0], [-1.0]], requires_grad=True)
    loss = TripletLoss(0.0, reduction="sum")(embeddings, torch.tensor([0, 0, 1]))
    loss.backward()
    assert loss.item() == 0
    assert embeddings.grad is not None
    assert not embeddings.grad.any()


def test_a_small_sum_of_large_distances_keeps_its_digits() -> None:
    # Two tight groups 1000 apart with margin 1000: distances near 1000 cancel and leave terms near 0.1.
    labels = torch.arange(2).repeat_interleave(20)
    embeddings = torch.rand(40, 2) / 10 + labels[:, None] * torch.tensor([1000.0, 0.0])
    losses = triplet_losses(embeddings, labels.tolist(), 1000.0)
    loss = TripletLoss(1000.0)(embeddings, labels)
    # each distance is rounded to 2^-15 at worst, half a step of float32 below 1024
    assert loss.item() == pytest.approx(sum(losses) / len(losses), abs=2**-15)


def test_soft_margin_in_pieces_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor(LABELS)
    whole = TripletLoss(None)(embeddings, labels)
    (gradient,) = torch.autograd.grad(whole, embeddings)
    monkeypatch.setattr(all_triplets, "CHUNK", 2 * 81)
    pieces = TripletLoss(None)(embeddings, labels)
    torch.testing.assert_close(pieces, whole)
    torch.testing.assert_close(torch.autograd.grad(pieces, embeddings)[0], gradient)


def test_a_soft_margin_far_out() -> None:
    embeddings, labels = torch.tensor([[0.0], [1e4], [1.0]]), torch.tensor([0, 0, 1])
    assert TripletLoss(None, reduction="sum")(embeddings, labels).item() == pytest.approx(9999 + math.log1p(math.e))
    embeddings = torch.tensor([[0.0], [25.0], [0.0]], dtype=torch.float64)
    value = TripletLoss(None, reduction="sum")(embeddings, labels).item()
    assert value == pytest.approx(25 + math.log1p(math.exp(-25)) + math.log(2), rel=1e-13)
    embeddings = torch.tensor([[0.0], [1.0], [1e4]])
    assert TripletLoss(None)(embeddings, labels).item() == 0


@pytest.mark.parametrize("margin", [0.3, None])
@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3], []])
def test_a_batch_without_triplets_gives_zero_and_zero_gradients(margin: float | None, labels: list[int]) -> None:
    for reduction in ("mean", "mean_nonzero", "sum"):
        embeddings = torch.randn(len(labels), 3, requires_grad=True)
        loss = TripletLoss(margin, reduction=reduction)(embeddings, torch.tensor(labels, dtype=torch.int64))  # type: ignore[arg-type]
        loss.backward()
        assert loss.item() == 0
        assert embeddings.grad is not None
        assert not embeddings.grad.any()


def test_a_batch_of_some_hundred_needs_little_memory() -> None:
    # (B, B, B) alone would be 32 GB
    embeddings = torch.randn(2000, 4, requires_grad=True)
    TripletLoss()(embeddings, torch.arange(500).repeat_interleave(4)).backward()
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()


def test_wrong_options_and_input() -> None:
    with pytest.raises(ValueError, match=r"margin: got -0\.1, expected a number >= 0"):
        TripletLoss(-0.1)
    with pytest.raises(ValueError, match="reduction: expected one of 'mean', 'mean_nonzero', 'sum', got 'none'"):
        TripletLoss(reduction="none")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="embeddings: expected a 2-D tensor, got shape"):
        TripletLoss()(torch.zeros(4), torch.zeros(4).long())
    with pytest.raises(TypeError, match="embeddings: expected float16"):
        TripletLoss()(torch.zeros(4, 2).long(), torch.zeros(4).long())
    with pytest.raises(ValueError, match=r"labels: expected shape \(4,\)"):
        TripletLoss()(torch.zeros(4, 2), torch.zeros(3).long())
    with pytest.raises(TypeError, match=r"labels: expected integers, got torch\.float32"):
        TripletLoss()(torch.zeros(4, 2), torch.zeros(4))
