from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pyreid.layers import CBAM


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def by_loops(layer: CBAM, x: Tensor) -> Tensor:
    """CBAM of one image (C, H, W), written out."""
    channels, height, width = x.shape
    planes = x.tolist()

    def mlp(pooled: list[float]) -> list[float]:
        hidden = [
            max(0.0, sum(w * p for w, p in zip(row, pooled, strict=True))) for row in layer.reduce.weight.tolist()
        ]
        return [sum(w * h for w, h in zip(row, hidden, strict=True)) for row in layer.expand.weight.tolist()]

    pixels = [[value for row in plane for value in row] for plane in planes]
    averages = mlp([sum(values) / len(values) for values in pixels])
    maxima = mlp([max(values) for values in pixels])
    gated = [
        [[value * sigmoid(a + m) for value in row] for row in plane]
        for plane, a, m in zip(planes, averages, maxima, strict=True)
    ]
    kernel = layer.conv.weight[0].tolist()
    reach = len(kernel[0]) // 2
    result = torch.empty_like(x)
    for r in range(height):
        for c in range(width):
            logit = 0.0
            for dr in range(-reach, reach + 1):
                for dc in range(-reach, reach + 1):
                    if 0 <= r + dr < height and 0 <= c + dc < width:
                        column = [gated[k][r + dr][c + dc] for k in range(channels)]
                        logit += kernel[0][dr + reach][dc + reach] * max(column)
                        logit += kernel[1][dr + reach][dc + reach] * sum(column) / channels
            for k in range(channels):
                result[k, r, c] = gated[k][r][c] * sigmoid(logit)
    return result


@pytest.mark.parametrize("size", [(4, 3), (1, 1), (9, 8)])
def test_by_loops(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layer = CBAM(6, ratio=2)
    x = 2 * torch.randn(2, 6, *size)
    found = layer(x)
    for image, expected in zip(found, x, strict=True):
        torch.testing.assert_close(image, by_loops(layer, expected), rtol=1e-4, atol=1e-5)


def test_gates_shrink_and_keep_signs() -> None:
    layer = CBAM(32)
    x = torch.randn(2, 32, 5, 7)
    found = layer(x)
    assert (found.abs() <= x.abs()).all()
    assert (found * x >= 0).all()
    assert layer(x[:0]).shape == (0, 32, 5, 7)


def test_parameters() -> None:
    """One MLP of ratio 16 for both pools, and one 7x7 convolution from two maps to one."""
    assert sum(p.numel() for p in CBAM(64).parameters()) == 2 * 64 * 4 + 2 * 7 * 7
    assert sum(p.numel() for p in CBAM(64, bias=True).parameters()) == 2 * 64 * 4 + 64 + 4 + 2 * 7 * 7
    assert CBAM(64, kernel_size=3).conv.weight.shape == (1, 2, 3, 3)


def test_all_parameters_learn() -> None:
    torch.manual_seed(0)
    layer = CBAM(32, ratio=4, bias=True)
    (layer(torch.randn(3, 32, 6, 6)) * torch.randn(3, 32, 6, 6)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 0}, r"ratio: got 0, expected 1 to 8 \(the channels\)"),
        ({"ratio": 9}, "ratio: got 9"),
        ({"ratio": 2, "kernel_size": 4}, "kernel_size: got 4, expected an odd positive number"),
        ({"ratio": 2, "kernel_size": -1}, "kernel_size: got -1"),
    ],
)
def test_wrong_arguments(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CBAM(8, **options)  # type: ignore[arg-type]
