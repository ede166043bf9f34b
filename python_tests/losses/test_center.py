from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyreid.losses import CenterLoss, Centers, SteppedModule, after_step, main_parameters, own_optimizer
from pyreid.losses.center import CenterReduction
from pyreid.losses.centers import CenterDistance

LABELS = torch.tensor([2, 0, 2, 1, 2])


def euclidean_sum(embeddings: Tensor, centers: Tensor) -> float:
    pairs = zip(embeddings.tolist(), LABELS.tolist(), strict=True)
    return sum(math.dist(row, centers[label].tolist()) ** 2 for row, label in pairs)


def cosine_sum(embeddings: Tensor, centers: Tensor) -> float:
    total = 0.0
    for row, label in zip(embeddings.tolist(), LABELS.tolist(), strict=True):
        center = centers[label].tolist()
        product = sum(a * b for a, b in zip(row, center, strict=True))
        total += 1 - product / (math.hypot(*row) * math.hypot(*center))
    return total


def test_values_against_loops() -> None:
    x = torch.randn(5, 3, dtype=torch.float64)

    def value(distance: CenterDistance, reduction: CenterReduction | None) -> tuple[Tensor, Tensor]:
        torch.manual_seed(1)
        loss = CenterLoss(4, 3, distance=distance, reduction=reduction).double()
        return loss(x, LABELS), loss.centers.weight.detach()

    loss, centers = value("euclidean", None)
    assert loss.item() == pytest.approx(euclidean_sum(x, centers) / 2)
    assert value("euclidean", "sum")[0].item() == loss.item()
    assert value("euclidean", "mean")[0].item() == pytest.approx(euclidean_sum(x, centers) / 5)
    assert value("euclidean", "none")[0].sum().item() == pytest.approx(loss.item())
    loss, centers = value("cosine", None)
    assert loss.item() == pytest.approx(cosine_sum(x, centers) / 5)
    assert value("cosine", "mean")[0].item() == loss.item()
    assert value("cosine", "sum")[0].item() == pytest.approx(cosine_sum(x, centers))
    assert value("cosine", "none")[0].shape == (5,)


def test_by_hand() -> None:
    loss = CenterLoss(2, 2)
    with torch.no_grad():
        loss.centers.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    # |(1, 2) - (1, 0)|^2 = 4 and |(3, 4)|^2 = 25
    assert loss(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([0, 1])).item() == 14.5


def test_on_unit_vectors_the_two_distances_agree() -> None:
    x = F.normalize(torch.randn(5, 3, dtype=torch.float64), dim=1)
    cosine = CenterLoss(4, 3, distance="cosine", reduction="sum").double()
    euclidean = CenterLoss(4, 3).double()
    euclidean.load_state_dict(cosine.state_dict())
    # the centres are of unit length to float32
    torch.testing.assert_close(euclidean(x, LABELS), cosine(x, LABELS), rtol=1e-6, atol=0)


def test_the_length_of_a_center_does_not_count_for_the_cosine() -> None:
    x, loss = torch.randn(5, 3), CenterLoss(4, 3, distance="cosine")
    before = loss(x, LABELS)
    with torch.no_grad():
        loss.centers.weight.mul_(3)
    torch.testing.assert_close(loss(x, LABELS), before)


def test_first_centers() -> None:
    weight = Centers(1000, 50).weight.detach()
    assert abs(weight.mean().item()) < 5 / math.sqrt(50_000)
    assert weight.std().item() == pytest.approx(1, abs=0.02)
    torch.testing.assert_close(Centers(20, 5, distance="cosine").weight.norm(dim=1), torch.ones(20))


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_gradients_of_embeddings_and_centers(distance: CenterDistance, reduction: CenterReduction) -> None:
    plain = CenterLoss(4, 3, distance=distance, reduction=reduction, center_lr=None).double()
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)

    def value(x: Tensor, centers: Tensor) -> Tensor:
        return torch.func.functional_call(plain, {"centers.weight": centers}, (x, LABELS))

    assert torch.autograd.gradcheck(value, (x, plain.centers.weight.detach().requires_grad_()))

    own = CenterLoss(4, 3, distance=distance, reduction=reduction).double()
    own.load_state_dict(plain.state_dict())
    expected = torch.autograd.grad(0.25 * plain(x, LABELS), (x, plain.centers.weight))
    actual = torch.autograd.grad(0.25 * own(x, LABELS), (x, own.centers.weight))
    # the own gradient of the Euclidean sum is divided by 1 + the images of the centre in the batch
    count = 1 + torch.tensor([1, 1, 3, 0])[:, None] if (distance, reduction) == ("euclidean", "sum") else 1
    torch.testing.assert_close(actual, (expected[0], 4 * expected[1] / count))


@pytest.mark.parametrize("weight", [1.0, 5e-4, 65536.0, 0.0])
def test_a_step_of_the_centers_does_not_depend_on_the_weight(weight: float) -> None:
    loss = CenterLoss(4, 3)
    x, before = torch.randn(5, 3, requires_grad=True), loss.centers.weight.detach().clone()
    own = own_optimizer(loss)
    assert own is not None
    (weight * loss(x, LABELS)).backward()
    own.step()
    after_step(loss)
    expected = before.clone()
    for k in range(4):
        # Wen et al. 2016, eq. 4: the sum of c - x by 1 + the number of images
        own_images = x.detach()[k == LABELS]
        expected[k] -= 0.5 * (before[k] - own_images).sum(0) / (1 + len(own_images))
    torch.testing.assert_close(loss.centers.weight.detach(), expected)
    assert x.grad is not None
    torch.testing.assert_close(x.grad, weight * (x.detach() - before[LABELS]))


@pytest.mark.parametrize("images", [1, 4, 16])
def test_centers_come_to_the_mean_of_their_embeddings(images: int) -> None:
    x, labels = torch.randn(2 * images, 3), torch.arange(2).repeat_interleave(images)
    loss = CenterLoss(2, 3)
    own = own_optimizer(loss)
    assert own is not None
    for _ in range(100):
        (5e-4 * loss(x, labels)).backward()
        own.step()
        own.zero_grad()
    means = torch.stack([x[:images].mean(0), x[images:].mean(0)])
    torch.testing.assert_close(loss.centers.weight.detach(), means, atol=1e-4, rtol=0)


def test_the_main_optimiser_may_have_the_centers() -> None:
    loss = CenterLoss(4, 3, center_lr=None)
    assert own_optimizer(loss) is None
    assert list(main_parameters(loss)) == [loss.centers.weight]
    x = torch.randn(5, 3)
    (0.25 * loss(x, LABELS)).backward()
    weight = loss.centers.weight
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad[1], 0.25 * (weight - x[3])[1].detach())


def test_cosine_centers_stay_of_unit_length_and_move_to_their_embeddings() -> None:
    loss = CenterLoss(3, 4, distance="cosine")
    x = F.normalize(torch.randn(6, 4), dim=1)
    labels = torch.tensor([0, 0, 1, 1, 1, 1])
    unused = loss.centers.weight[2].detach().clone()
    own = own_optimizer(loss)
    assert own is not None
    for _ in range(300):
        loss(x, labels).backward()
        own.step()
        own.zero_grad()
        after_step(loss)
        torch.testing.assert_close(loss.centers.weight.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(loss.centers.weight[0], F.normalize(x[:2].sum(0), dim=0), atol=1e-3, rtol=0)
    torch.testing.assert_close(loss.centers.weight[1], F.normalize(x[2:].sum(0), dim=0), atol=1e-3, rtol=0)
    torch.testing.assert_close(loss.centers.weight[2], unused)


def test_no_gradient_for_centers_without_grad_mode_or_when_frozen() -> None:
    loss = CenterLoss(4, 3)
    with torch.no_grad():
        assert not loss(torch.randn(5, 3), LABELS).requires_grad
    loss.requires_grad_(False)
    x = torch.randn(5, 3, requires_grad=True)
    loss(x, LABELS).backward()
    assert x.grad is not None
    assert loss.centers.weight.grad is None


def test_frozen_embeddings_still_teach_the_centers() -> None:
    loss = CenterLoss(4, 3)
    loss(torch.randn(5, 3), LABELS).backward()
    assert loss.centers.weight.grad is not None
    assert loss.centers.weight.grad[:3].any(dim=1).all()
    assert not loss.centers.weight.grad[3].any()


def test_empty_batch_and_state() -> None:
    for reduction in ("sum", "mean"):
        loss = CenterLoss(4, 3, reduction=reduction)  # type: ignore[arg-type]
        assert loss(torch.zeros(0, 3), torch.zeros(0).long()).item() == 0
    assert list(loss.state_dict()) == ["centers.weight"]
    with torch.device("meta"):
        assert CenterLoss(4, 3, distance="cosine").centers.weight.is_meta


def test_wrong_options_and_input() -> None:
    with pytest.raises(ValueError, match="distance: expected one of 'euclidean', 'cosine', got 'l1'"):
        CenterLoss(4, 3, distance="l1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reduction: expected one of 'sum', 'mean', 'none', got 'max'"):
        CenterLoss(4, 3, reduction="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_classes: got 0, expected a positive integer"):
        CenterLoss(0, 3)
    with pytest.raises(TypeError, match=r"dim: got 3\.0, expected a positive integer"):
        CenterLoss(4, 3.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"lr: got 0\.0, expected a finite number above 0"):
        CenterLoss(4, 3, center_lr=0.0)
    loss = CenterLoss(4, 3)
    with pytest.raises(ValueError, match=r"embeddings: got shape \(5, 2\), expected \(N, 3\)"):
        loss(torch.zeros(5, 2), LABELS)
    with pytest.raises(ValueError, match=r"labels: expected shape \(4,\)"):
        loss(torch.zeros(4, 3), LABELS)
    with pytest.raises(TypeError, match="labels: expected integers"):
        loss(torch.zeros(5, 3), LABELS.float())
    with pytest.raises(ValueError, match="labels: got values from 0 to 4, expected 0 to 3"):
        loss(torch.zeros(2, 3), torch.tensor([4, 0]))
    with pytest.raises(ValueError, match="labels: got values from -1 to 0, expected 0 to 3"):
        loss(torch.zeros(2, 3), torch.tensor([-1, 0]))


def test_own_parameters_are_found_once_and_kept_from_the_main_optimiser() -> None:
    center = CenterLoss(4, 3, center_lr=0.25)
    holder = nn.ModuleList([nn.Linear(2, 2), center, nn.ModuleList([center.centers, CenterLoss(5, 2)])])
    own = own_optimizer(holder)
    assert own is not None
    assert [(group["lr"], len(group["params"])) for group in own.param_groups] == [(0.25, 1), (0.5, 1)]
    assert all(group["momentum"] == group["weight_decay"] == 0 for group in own.param_groups)
    assert [p.shape for p in main_parameters(holder)] == [(2, 2), (2,)]
    assert own_optimizer(nn.Linear(2, 2)) is None


class Scaled(SteppedModule):
    """A parameter of its own beside centres at another learning rate."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.centers = Centers(4, 3)

    def own_lr(self) -> float:
        return 0.1


def test_each_module_has_its_own_learning_rate() -> None:
    own = own_optimizer(Scaled())
    assert own is not None
    assert [(group["lr"], group["params"][0].numel()) for group in own.param_groups] == [(0.1, 1), (0.5, 12)]
