from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyreid.losses import (
    CenterLoss,
    Centers,
    GlobPushLoss,
    GrowingMargin,
    PushLoss,
    after_step,
    main_parameters,
    own_optimizer,
)

LABELS = [1, 1, 0, 3, 0]


def cosine_distance(a: list[float], b: list[float]) -> float:
    return 1 - sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def push_terms(x: Tensor, centers: Tensor, margin: float, *, smart: bool) -> list[float]:
    rows, c = x.tolist(), centers.tolist()
    return [
        margin + smart * cosine_distance(row, c[LABELS[i]]) - cosine_distance(row, other)
        for i, row in enumerate(rows)
        for j, other in enumerate(rows)
        if LABELS[i] != LABELS[j]
    ]


def glob_push_terms(x: Tensor, centers: Tensor, margin: float, *, smart: bool) -> list[list[float]]:
    rows, c = x.tolist(), centers.tolist()
    return [
        [
            margin + smart * cosine_distance(row, c[LABELS[i]]) - cosine_distance(row, other)
            for k, other in enumerate(c)
            if LABELS[i] != k
        ]
        for i, row in enumerate(rows)
    ]


def active_mean(terms: list[float]) -> float:
    active = [term for term in terms if term > 0]
    assert 0 < len(active) < len(terms), "the case shows nothing: all or none are active"
    return sum(active) / len(active)


@pytest.fixture
def centers() -> Centers:
    return Centers(4, 3, distance="cosine").double()


@pytest.mark.parametrize("smart", [False, True])
def test_values_against_loops(centers: Centers, smart: bool) -> None:
    x, labels = torch.randn(5, 3, dtype=torch.float64), torch.tensor(LABELS)
    expected = active_mean(push_terms(x, centers.weight, 0.6, smart=smart))
    loss = PushLoss(centers, smart=smart, margin=0.6, final_margin=None)(x, labels)
    assert loss.item() == pytest.approx(expected)

    terms = glob_push_terms(x, centers.weight, 0.6, smart=smart)
    loss = GlobPushLoss(centers, smart=smart, margin=0.6, final_margin=None)(x, labels)
    assert loss.item() == pytest.approx(active_mean([term for row in terms for term in row]))
    each = GlobPushLoss(centers, smart=smart, margin=0.6, final_margin=None, reduction="none")(x, labels)
    active = [[term for term in row if term > 0] for row in terms]
    assert each.tolist() == pytest.approx([sum(row) / max(len(row), 1) for row in active])


@pytest.mark.parametrize("smart", [False, True])
def test_on_its_own_center_an_embedding_sees_the_distances_of_the_centers(centers: Centers, smart: bool) -> None:
    labels = torch.arange(4)
    loss = GlobPushLoss(centers, smart=smart, margin=2.5, final_margin=None)(centers.weight.detach(), labels)
    c = centers.weight.tolist()
    terms = [2.5 - cosine_distance(c[y], c[k]) for y in range(4) for k in range(4) if y != k]
    assert loss.item() == pytest.approx(sum(terms) / len(terms))


def test_by_hand() -> None:
    centers = Centers(2, 2, distance="cosine")
    with torch.no_grad():
        centers.weight.copy_(torch.eye(2))
    x, labels = torch.tensor([[1.0, 0.0], [0.6, 0.8]]), torch.tensor([0, 1])
    # cosines: x0.c = (1, 0), x1.c = (.6, .8), x0.x1 = .6; own distances 0 and .2
    assert PushLoss(smart=False, margin=0.5, final_margin=None)(x, labels).item() == pytest.approx(0.1)
    smart = PushLoss(centers, margin=0.5, final_margin=None)(x, labels)
    assert smart.item() == pytest.approx((0.1 + 0.3) / 2)
    # 0.5 - 1 is not active, 0.5 - 0.4 is
    assert GlobPushLoss(centers, smart=False, margin=0.5, final_margin=None)(x, labels).item() == pytest.approx(0.1)
    assert GlobPushLoss(centers, margin=0.5, final_margin=None)(x, labels).item() == pytest.approx(0.3)


def losses(centers: Centers, *, detach_centers: bool = True) -> list[PushLoss | GlobPushLoss]:
    options = {"margin": 0.6, "final_margin": None, "detach_centers": detach_centers}
    return [kind(centers, smart=smart, **options) for kind in (PushLoss, GlobPushLoss) for smart in (False, True)]  # type: ignore[arg-type]


def test_gradients(centers: Centers) -> None:
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor(LABELS)
    for loss in losses(centers):
        assert torch.autograd.gradcheck(lambda x, loss=loss: loss(x, labels), (x,))
    centers.weight.grad = None
    for loss in losses(centers):
        loss(x, labels).backward()
    assert centers.weight.grad is None


def test_gradients_of_centers(centers: Centers) -> None:
    x, labels = torch.randn(5, 3, dtype=torch.float64, requires_grad=True), torch.tensor(LABELS)
    plain = Centers(4, 3, distance="cosine", lr=None).double()
    plain.load_state_dict(centers.state_dict())
    pairs = zip(losses(plain, detach_centers=False)[1:], losses(centers, detach_centers=False)[1:], strict=True)
    for loss, own in pairs:

        def value(x: Tensor, weight: Tensor, loss: nn.Module = loss) -> Tensor:
            return torch.func.functional_call(loss, {"centers.weight": weight}, (x, labels))

        assert torch.autograd.gradcheck(value, (x, plain.weight.detach().requires_grad_()))
        expected = torch.autograd.grad(0.25 * loss(x, labels), (x, plain.weight))
        actual = torch.autograd.grad(0.25 * own(x, labels), (x, centers.weight))
        torch.testing.assert_close(actual, (expected[0], 4 * expected[1]))


def test_no_active_term_gives_zero_and_zero_gradients(centers: Centers) -> None:
    eye = torch.eye(3, dtype=torch.float64)
    with torch.no_grad():
        centers.weight[:3] = eye
        centers.weight[3] = -eye[0]
    for loss in losses(centers):  # all distances are at least 1, above the margin of 0.6
        x = eye.clone().requires_grad_()
        value = loss(x, torch.arange(3))
        value.backward()
        assert value.item() == 0
        assert x.grad is not None
        assert not x.grad.any()


def test_one_identity_has_nothing_to_push() -> None:
    x = torch.randn(4, 3, requires_grad=True)
    PushLoss(smart=False, margin=2.0, final_margin=None)(x, torch.full((4,), 7)).backward()
    assert x.grad is not None
    assert not x.grad.any()
    loss = GlobPushLoss(Centers(1, 3, distance="cosine"), margin=2.0, final_margin=None)
    assert loss(x, torch.zeros(4).long()).item() == 0
    assert PushLoss(smart=False)(torch.zeros(0, 3), torch.zeros(0).long()).item() == 0


def test_margin_grows_with_the_steps() -> None:
    margin = GrowingMargin(0.15, end=0.6, steps=40_000)
    expected = {0: 0.15, 10_000: 0.2625, 20_000: 0.375, 40_000: 0.6, 100_000: 0.6}
    for step, value in expected.items():
        margin.step.fill_(step)
        assert float(margin(torch.float64)) == pytest.approx(value, rel=1e-12)
        assert float(margin()) == pytest.approx(value, rel=1e-6)
    fixed = GrowingMargin(0.15, end=None, steps=1)
    after_step(fixed)
    assert fixed() == 0.15


def test_the_loss_follows_the_margin_and_a_resumed_one_goes_on() -> None:
    x, labels = torch.tensor([[1.0, 0.0], [0.6, 0.8]]), torch.tensor([0, 1])

    def make() -> PushLoss:
        return PushLoss(smart=False, margin=0.5, final_margin=0.9, margin_steps=4)

    loss, values = make(), []
    for _ in range(6):
        values.append(loss(x, labels).item())
        after_step(loss)
    assert values == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.5])

    interrupted = make()
    after_step(interrupted)
    after_step(interrupted)
    resumed = make()
    resumed.load_state_dict(interrupted.state_dict())
    assert resumed(x, labels).item() == pytest.approx(0.3)
    after_step(resumed)
    assert resumed(x, labels).item() == pytest.approx(0.4)
    assert interrupted(x, labels).item() == pytest.approx(0.3)


def test_centers_are_shared_and_learn_once() -> None:
    center = CenterLoss(4, 3, distance="cosine")
    together = nn.ModuleList([center, PushLoss(center.centers), GlobPushLoss(center.centers)])
    own = own_optimizer(together)
    assert own is not None
    assert [p for group in own.param_groups for p in group["params"]] == [center.centers.weight]
    assert not list(main_parameters(together))
    fresh = CenterLoss(4, 3, distance="cosine")
    copy = nn.ModuleList([fresh, PushLoss(fresh.centers), GlobPushLoss(fresh.centers)])
    copy.load_state_dict(together.state_dict())
    assert torch.equal(fresh.centers.weight, center.centers.weight)

    x, labels = F.normalize(torch.randn(5, 3), dim=1), torch.tensor(LABELS)
    torch.stack([loss(x, labels) for loss in together]).sum().backward()
    together_grad = center.centers.weight.grad
    assert together_grad is not None
    fresh(x, labels).backward()
    assert fresh.centers.weight.grad is not None
    torch.testing.assert_close(together_grad, fresh.centers.weight.grad)  # pushes take them as constants


def test_wrong_options_and_input(centers: Centers) -> None:
    with pytest.raises(ValueError, match="centers: got None, expected Centers for the smart margin"):
        PushLoss()
    for kind in (PushLoss, GlobPushLoss):
        with pytest.raises(ValueError, match="centers: got distance='euclidean', expected distance='cosine'"):
            kind(Centers(4, 3))
        with pytest.raises(TypeError, match="centers: got CenterLoss, expected Centers"):
            kind(CenterLoss(4, 3, distance="cosine"))
        with pytest.raises(ValueError, match=r"margin: got -0\.1, expected a finite number of at least 0"):
            kind(centers, margin=-0.1)
        with pytest.raises(ValueError, match=r"final_margin: got 0\.1, expected a finite number of at least 0\.15"):
            kind(centers, final_margin=0.1)
        with pytest.raises(ValueError, match="margin_steps: got 0, expected a positive integer"):
            kind(centers, margin_steps=0)
        with pytest.raises(ValueError, match=r"embeddings: got shape \(2, 5\), expected \(N, 3\)"):
            kind(centers)(torch.zeros(2, 5), torch.zeros(2).long())
        with pytest.raises(ValueError, match="labels: got values from 0 to 4, expected 0 to 3"):
            kind(centers)(torch.zeros(2, 3), torch.tensor([0, 4]))
    with pytest.raises(ValueError, match="reduction: expected one of 'mean', 'none', got 'sum'"):
        GlobPushLoss(centers, reduction="sum")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"labels: expected shape \(2,\)"):
        PushLoss(smart=False)(torch.zeros(2, 3), torch.zeros(3).long())
