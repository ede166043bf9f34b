from __future__ import annotations

import torch

from pyreid.layers import CosineClassifier
from pyreid.layers.embedding import unit_length


def test_unit_length() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-8, 0.0]])
    torch.testing.assert_close(unit_length(x), torch.tensor([[0.6, 0.8], [0.0, 0.0], [1.0, 0.0]]))
    assert unit_length(x.half()).dtype == unit_length(x.bfloat16()).dtype == torch.float32
    assert unit_length(x.double()).dtype == torch.float64


def test_long_half_precision_rows_do_not_overflow() -> None:
    x = torch.full((1, 4), 60000.0, dtype=torch.float16)
    torch.testing.assert_close(unit_length(x), torch.full((1, 4), 0.5))


def test_cosine_classifier() -> None:
    layer = CosineClassifier(8, 5, scale=10.0)
    x = torch.randn(3, 8)
    logits = layer(x)
    torch.testing.assert_close(logits, 10 * torch.cosine_similarity(x[:, None], layer.weight[None], dim=2))
    torch.testing.assert_close(layer(7 * x), logits)
    with torch.no_grad():
        layer.weight.mul_(3)
    torch.testing.assert_close(layer(x), logits)


def test_cosine_classifier_stays_exact_under_autocast() -> None:
    layer = CosineClassifier(64, 5)
    x = torch.randn(3, 64)
    expected = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = layer(x)
    assert torch.equal(logits, expected)
