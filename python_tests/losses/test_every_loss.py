"""What holds for every loss: compiled code, half precision, autocast, NaN, and on CUDA no wait for the device."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyreid.losses import (
    AMSoftmaxLoss,
    ArcFaceLoss,
    BatchHardTripletLoss,
    BatchSoftTripletLoss,
    CenterLoss,
    Centers,
    GlobPushLoss,
    LabelSmoothingCrossEntropy,
    PushLoss,
    TripletLoss,
    WeightedSum,
    after_step,
)

CLASSES, DIM = 4, 6
LABELS = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])


class Several(nn.Module):
    """A weighted sum of terms that share centres."""

    def __init__(self) -> None:
        super().__init__()
        center = CenterLoss(CLASSES, DIM, distance="cosine")
        push = PushLoss(center.centers, detach_centers=False)
        self.terms = nn.ModuleDict({"center": center, "push": push, "glob_push": GlobPushLoss(center.centers)})
        self.total = WeightedSum(dict.fromkeys(self.terms, 1.0), mode="balanced")

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        total: Tensor = self.total({name: term(embeddings, labels) for name, term in self.terms.items()})
        return total


def centers() -> Centers:
    return Centers(CLASSES, DIM, distance="cosine")


OF_EMBEDDINGS: dict[str, Callable[[], nn.Module]] = {
    "batch_hard": BatchHardTripletLoss,
    "batch_soft": BatchSoftTripletLoss,
    "triplet": TripletLoss,
    "triplet_nonzero": lambda: TripletLoss(reduction="mean_nonzero"),
    "triplet_soft_margin": lambda: TripletLoss(None),
    "center": lambda: CenterLoss(CLASSES, DIM),
    "center_mean": lambda: CenterLoss(CLASSES, DIM, reduction="mean", center_lr=None),
    "center_cosine": lambda: CenterLoss(CLASSES, DIM, distance="cosine"),
    "push": lambda: PushLoss(smart=False, margin=0.9, final_margin=1.0),
    "push_smart": lambda: PushLoss(centers(), margin=0.5),
    "push_learning": lambda: PushLoss(centers(), margin=0.5, detach_centers=False),
    "glob_push": lambda: GlobPushLoss(centers(), smart=False, margin=0.9, final_margin=1.0),
    "glob_push_smart": lambda: GlobPushLoss(centers(), margin=0.5),
    "several": Several,
}
OF_LOGITS: dict[str, Callable[[], nn.Module]] = {
    "label_smoothing": LabelSmoothingCrossEntropy,
    "am_softmax": AMSoftmaxLoss,
    "arcface": ArcFaceLoss,
}
ALL = {**OF_EMBEDDINGS, **OF_LOGITS}


def make_input(name: str) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(len(LABELS), DIM, generator=generator)
    if name in OF_EMBEDDINGS:
        return x
    return F.normalize(x, dim=1) @ F.normalize(torch.randn(CLASSES, DIM, generator=generator), dim=1).T


def value_and_gradients(loss: nn.Module, x: Tensor, labels: Tensor) -> tuple[Tensor, list[Tensor]]:
    x = x.detach().clone().requires_grad_()
    loss.zero_grad()
    value = loss(x, labels)
    value.backward()
    gradients = [x.grad, *(p.grad for p in loss.parameters())]
    return value.detach(), [g for g in gradients if g is not None]


def make(name: str) -> nn.Module:
    torch.manual_seed(0)
    return ALL[name]()


@pytest.mark.parametrize("name", ALL)
def test_compiles_without_graph_breaks(name: str) -> None:
    loss, x = make(name), make_input(name)
    expected = value_and_gradients(loss, x, LABELS)
    assert expected[0] > 0
    assert expected[1][0].any()
    compiled = torch.compile(make(name), fullgraph=True, backend="aot_eager")
    actual = value_and_gradients(compiled, x, LABELS)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    x = make_input(name).to(dtype)
    half, _ = value_and_gradients(make(name), x, LABELS)
    full, _ = value_and_gradients(make(name), x.float(), LABELS)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=0, atol=0)


@pytest.mark.parametrize("name", ALL)
def test_autocast_changes_nothing(name: str) -> None:
    x = make_input(name)
    expected = value_and_gradients(make(name), x, LABELS)
    with torch.autocast("cpu", torch.bfloat16):
        actual = value_and_gradients(make(name), x, LABELS)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", ALL)
def test_nan_stays_visible(name: str) -> None:
    x = make_input(name)
    x[3] = float("nan")
    assert make(name)(x, LABELS).isnan()


@pytest.mark.parametrize("name", ALL)
def test_other_integer_labels_and_double(name: str) -> None:
    x = make_input(name)
    expected = make(name)(x, LABELS)
    for dtype in (torch.int32, torch.uint8):
        torch.testing.assert_close(make(name)(x, LABELS.to(dtype)), expected, rtol=0, atol=0)
    double = make(name).double()(x.double(), LABELS)
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), expected)
    mixed = make(name)(x.double(), LABELS)  # float64 embeddings beside float32 centres
    assert mixed.dtype == torch.float64


@pytest.mark.gpu
@pytest.mark.parametrize("name", ALL)
def test_on_cuda_it_is_the_same_and_never_waits(name: str) -> None:
    x = make_input(name)
    expected = value_and_gradients(make(name), x, LABELS)
    loss, x, labels = make(name).cuda(), x.cuda(), LABELS.cuda()
    value_and_gradients(loss, x, labels)  # what is set up once may wait
    loss = make(name).cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        value, gradients = value_and_gradients(loss, x, labels)
        after_step(loss)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close((value.cpu(), [g.cpu() for g in gradients]), expected, rtol=1e-4, atol=1e-5)
