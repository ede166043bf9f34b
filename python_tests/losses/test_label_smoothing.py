from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from pyreid.losses import LabelSmoothingCrossEntropy
from pyreid.losses.label_smoothing import SmoothingMode, smoothing_weights

MODES: tuple[SmoothingMode, ...] = ("standard", "sgn", "sgn_norm")


@pytest.mark.parametrize("num_classes", [2, 3, 4, 751])
def test_sums_of_the_targets(num_classes: int) -> None:
    def total(mode: SmoothingMode) -> float:
        true, other = smoothing_weights(num_classes, eps=0.1, mode=mode)
        return true + (num_classes - 1) * other

    assert total("standard") == pytest.approx(1)
    assert total("sgn") == pytest.approx(2 - 2 / num_classes)
    assert total("sgn_norm") == pytest.approx(1)


def test_targets_of_four_classes() -> None:
    assert smoothing_weights(4, eps=0.1, mode="sgn") == (0.75, 0.25)
    assert smoothing_weights(4, eps=0.1, mode="sgn_norm") == pytest.approx((0.5, 1 / 6))
    assert smoothing_weights(4, eps=0.1, mode="standard") == pytest.approx((0.925, 0.025))


@pytest.mark.parametrize("mode", MODES)
def test_against_loops(mode: SmoothingMode) -> None:
    logits = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 6, 3, 3, 1])
    n = 7
    q_true, q_other = {
        "standard": (1 - 0.2 + 0.2 / n, 0.2 / n),
        "sgn": (1 - 1 / n, 1 / n),
        "sgn_norm": ((1 - 1 / n) / (2 - 2 / n), (1 / n) / (2 - 2 / n)),
    }[mode]
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        log_z = math.log(sum(math.exp(value) for value in row))
        total -= sum((q_true if j == label else q_other) * (value - log_z) for j, value in enumerate(row))
    loss = LabelSmoothingCrossEntropy(0.2, mode)(logits, labels)
    assert loss.item() == pytest.approx(total / 5, rel=1e-12)
    assert torch.autograd.gradcheck(lambda x: LabelSmoothingCrossEntropy(0.2, mode)(x, labels), (logits,))


@pytest.mark.parametrize("eps", [0.0, 0.1, 0.3])
def test_standard_mode_is_pytorch_s(eps: float) -> None:
    logits, labels = torch.randn(6, 9), torch.randint(9, (6,))
    expected = F.cross_entropy(logits, labels, label_smoothing=eps)
    torch.testing.assert_close(LabelSmoothingCrossEntropy(eps)(logits, labels), expected)


def test_half_precision_is_computed_in_float32() -> None:
    logits, labels = torch.randn(4, 100).bfloat16(), torch.arange(4)
    loss = LabelSmoothingCrossEntropy()(logits, labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, LabelSmoothingCrossEntropy()(logits.float(), labels))


def test_other_integer_labels_and_extreme_logits() -> None:
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]])
    loss = LabelSmoothingCrossEntropy(0.0)(logits, torch.tensor([0, 1], dtype=torch.int32))
    assert loss.item() == 0


@pytest.mark.parametrize(
    ("logits", "labels", "error", "message"),
    [
        (torch.zeros(3), torch.zeros(3).long(), ValueError, r"logits: got shape \(3,\), expected \(N, C\)"),
        (torch.zeros(0, 4), torch.zeros(0).long(), ValueError, r"logits: got shape \(0, 4\)"),
        (torch.zeros(3, 4), torch.zeros(2).long(), ValueError, r"labels: got shape \(2,\), expected \(3,\)"),
        (torch.zeros(3, 4), torch.zeros(3), TypeError, "labels: got torch.float32, expected integers"),
        (torch.zeros(2, 4), torch.tensor([1, 4]), ValueError, "labels: got values from 1 to 4, expected 0 to 3"),
        (torch.zeros(2, 4), torch.tensor([-1, 3]), ValueError, "labels: got values from -1 to 3, expected 0 to 3"),
        (torch.zeros(2, 5), torch.tensor([1, 3]), ValueError, r"logits: got 5 classes, expected 4 \(num_classes\)"),
    ],
)
def test_wrong_input(logits: torch.Tensor, labels: torch.Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        LabelSmoothingCrossEntropy(num_classes=4)(logits, labels)


def test_wrong_options() -> None:
    with pytest.raises(ValueError, match=r"eps: got 1.0, expected a value in \[0, 1\)"):
        LabelSmoothingCrossEntropy(1.0)
    with pytest.raises(ValueError, match="mode: got 'hard', expected one of 'standard', 'sgn', 'sgn_norm'"):
        LabelSmoothingCrossEntropy(mode="hard")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_classes: got 0, expected a positive number or None"):
        LabelSmoothingCrossEntropy(num_classes=0)
    with pytest.raises(ValueError, match="num_classes: got 1, expected 2 or more for mode='sgn'"):
        LabelSmoothingCrossEntropy(mode="sgn", num_classes=1)


def test_compiles_without_graph_breaks() -> None:
    loss = LabelSmoothingCrossEntropy()
    logits, labels = torch.randn(4, 6), torch.arange(4)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(logits, labels), loss(logits, labels))
