"""Inputs, names and a naive oracle for the tests of both triplet operators."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pyreid import ops

KINDS = ["hard", "soft"]
MARGINS = [None, 0.3]
REDUCTIONS = ["mean", "sum", "none"]


def triplet(kind: str, module: object = ops) -> Callable[..., Tensor]:
    function: Callable[..., Tensor] = getattr(module, f"batch_{kind}_triplet")
    return function


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def naive(kind: str, x: Tensor, labels: Tensor, margin: float | None) -> list[float | None]:
    """Loss of each anchor by loops over Python floats; None for anchors that do not count."""
    rows, ids = x.double().tolist(), labels.tolist()
    out: list[float | None] = []
    for i, a in enumerate(rows):
        distances = [math.sqrt(math.fsum((u - v) ** 2 for u, v in zip(a, b, strict=True))) for b in rows]
        positives = [distances[j] for j in range(len(rows)) if ids[j] == ids[i] and j != i]
        negatives = [distances[j] for j in range(len(rows)) if ids[j] != ids[i]]
        if not positives or not negatives:
            out.append(None)
            continue
        if kind == "hard":
            difference = max(positives) - min(negatives)
        else:
            weights = [math.exp(d - max(positives)) for d in positives]
            mean_p = math.fsum(w * d for w, d in zip(weights, positives, strict=True)) / math.fsum(weights)
            weights = [math.exp(min(negatives) - d) for d in negatives]
            mean_n = math.fsum(w * d for w, d in zip(weights, negatives, strict=True)) / math.fsum(weights)
            difference = mean_p - mean_n
        out.append(softplus(difference) if margin is None else max(0.0, difference + margin))
    return out


def reduce_losses(losses: list[float | None], reduction: str) -> Tensor:
    if reduction == "none":
        return torch.tensor([loss or 0.0 for loss in losses], dtype=torch.float64)
    valid = [loss for loss in losses if loss is not None]
    total = math.fsum(valid)
    return torch.tensor(total / max(1, len(valid)) if reduction == "mean" else total, dtype=torch.float64)


def batch(b: int, d: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Random embeddings and labels with some anchors that have no positive."""
    labels = torch.randint(0, max(2, b // 3), (b,)) - 2
    return torch.randn(b, d).to(dtype), labels
