from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from pyreid.losses import BatchHardTripletLoss, BatchSoftTripletLoss


def softmax_mean(values: list[float], sign: float) -> float:
    weights = [math.exp(sign * value) for value in values]
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)


def by_loops(embeddings: Tensor, labels: list[int], *, margin: float | None, soft: bool) -> list[float | None]:
    """Loss of each anchor; None for one without a positive or without a negative."""
    rows = embeddings.tolist()
    losses: list[float | None] = []
    for a, row in enumerate(rows):
        distances = [math.dist(row, other) for other in rows]
        positives = [d for j, d in enumerate(distances) if labels[j] == labels[a] and j != a]
        negatives = [d for j, d in enumerate(distances) if labels[j] != labels[a]]
        if not positives or not negatives:
            losses.append(None)
            continue
        near, far = (
            (softmax_mean(negatives, -1.0), softmax_mean(positives, 1.0)) if soft else (min(negatives), max(positives))
        )
        gap = far - near
        losses.append(math.log1p(math.exp(gap)) if margin is None else max(0.0, margin + gap))
    return losses


@pytest.mark.parametrize("margin", [0.0, 0.3, 1.0, None])
@pytest.mark.parametrize("soft", [False, True])
def test_against_loops(margin: float | None, soft: bool) -> None:
    embeddings = torch.randn(9, 4, dtype=torch.float64)
    labels = [0, 0, 0, 1, 1, 2, 2, 2, 5]  # the last one has no positive
    kind = BatchSoftTripletLoss if soft else BatchHardTripletLoss
    expected = by_loops(embeddings, labels, margin=margin, soft=soft)
    counted = [value for value in expected if value is not None]
    assert len(counted) == 8
    target = torch.tensor(labels)

    each = kind(margin, reduction="none")(embeddings, target)
    assert each.tolist() == pytest.approx([value or 0.0 for value in expected], rel=1e-6, abs=1e-9)
    assert kind(margin)(embeddings, target).item() == pytest.approx(sum(counted) / 8, rel=1e-6)
    assert kind(margin, reduction="sum")(embeddings, target).item() == pytest.approx(sum(counted), rel=1e-6)


def test_golden_of_the_soft_margin_batch_soft_loss() -> None:
    embeddings = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    loss = BatchSoftTripletLoss(reduction="none")(embeddings, torch.tensor([0, 0, 0, 1]))
    assert loss[0].item() == pytest.approx(0.247742, abs=1e-6)


def test_one_positive_and_one_negative_make_soft_and_hard_equal() -> None:
    embeddings, labels = torch.randn(3, 5), torch.tensor([0, 0, 1])
    hard = BatchHardTripletLoss(None, reduction="none")(embeddings, labels)
    soft = BatchSoftTripletLoss(None, reduction="none")(embeddings, labels)
    torch.testing.assert_close(soft[:2], hard[:2])


def test_defaults() -> None:
    assert BatchHardTripletLoss().margin == 0.3
    assert BatchSoftTripletLoss().margin is None


@pytest.mark.parametrize("kind", [BatchHardTripletLoss, BatchSoftTripletLoss])
def test_a_batch_without_triplets_gives_zero_and_zero_gradients(kind: type[nn.Module]) -> None:
    for labels in (torch.zeros(4), torch.arange(4)):
        embeddings = torch.randn(4, 3, requires_grad=True)
        loss = kind()(embeddings, labels.long())
        loss.backward()
        assert loss.item() == 0
        assert embeddings.grad is not None
        assert not embeddings.grad.any()


def test_the_margin_ends_the_gradient_and_the_soft_margin_does_not() -> None:
    far = torch.tensor([[0.0], [0.1], [10.0], [10.1]])
    labels = torch.tensor([0, 0, 1, 1])
    for margin, moves in ((0.3, False), (None, True)):
        embeddings = far.clone().requires_grad_()
        BatchHardTripletLoss(margin)(embeddings, labels).backward()
        assert embeddings.grad is not None
        assert bool(embeddings.grad.any()) is moves


def test_batch_soft_becomes_batch_hard_as_distances_grow() -> None:
    embeddings, labels = torch.randn(9, 4, dtype=torch.float64), torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
    gaps = []
    for scale in (1.0, 10.0, 1e5):
        hard = BatchHardTripletLoss(0.3)(scale * embeddings, labels).item()
        soft = BatchSoftTripletLoss(0.3)(scale * embeddings, labels).item()
        gaps.append(abs(soft - hard) / scale)
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 1e-6


def test_the_soft_margin_moves_every_embedding_and_the_margin_none_beyond_it() -> None:
    for distance in (1.0, 10.0, 60.0):
        labels = torch.arange(3).repeat_interleave(3)
        embeddings = torch.rand(9, 4, dtype=torch.float64) / 10
        embeddings[:, 0] += distance * labels
        for margin in (None, 0.3):
            x = embeddings.clone().requires_grad_()
            BatchHardTripletLoss(margin)(x, labels).backward()
            assert x.grad is not None
            assert bool(x.grad.any(dim=1).all()) is (margin is None)
            assert bool(x.grad.any()) is (margin is None)


@pytest.mark.parametrize("kind", [BatchHardTripletLoss, BatchSoftTripletLoss])
def test_wrong_options(kind: type[nn.Module]) -> None:
    for margin in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"margin: .*expected a .*number.*, or None for the soft margin"):
            kind(margin)
    with pytest.raises(ValueError, match="reduction: expected one of 'mean', 'sum', 'none', got 'max'"):
        kind(reduction="max")


@pytest.mark.parametrize("kind", [BatchHardTripletLoss, BatchSoftTripletLoss])
def test_wrong_input(kind: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match="embeddings"):
        kind()(torch.zeros(4), torch.zeros(4).long())
    with pytest.raises(ValueError, match="labels"):
        kind()(torch.zeros(4, 2), torch.zeros(3).long())
