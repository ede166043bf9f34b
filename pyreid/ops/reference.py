"""The operators of :mod:`pyreid.ops` in plain PyTorch: the oracle of the tests, the path for export to ONNX, and a
fallback for dtypes and devices that have no kernel. Signatures, results and gradients are the same, for finite values
whose squares do not overflow; what infinities give may differ."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pyreid.ops._checks import (
    HALF_TYPES,
    Metric,
    Reduction,
    check_choice,
    check_float_tensor,
    check_gate_arguments,
    check_gem_arguments,
    check_k,
    check_labels,
    check_margin,
    check_mix_arguments,
    check_spatial_gate_arguments,
    computing_dtype,
    promoted_type,
    under_autocast,
    upcast,
)


def _safe_sqrt(squared: Tensor) -> Tensor:
    """Square root whose gradient at 0 is 0 instead of infinite. NaN stays NaN."""
    nonzero = squared != 0
    return torch.where(nonzero, squared.where(nonzero, torch.ones_like(squared)).sqrt(), 0)


def pairwise_distance(x: Tensor, y: Tensor | None = None, *, metric: Metric = "euclidean") -> Tensor:
    """See :func:`pyreid.ops.pairwise_distance`. Needs O(N M D) memory: the differences are summed as they stand."""
    check_choice("metric", metric, Metric)
    x = upcast(x)
    y = x if y is None else upcast(y)
    if metric == "cosine":
        return 1 - _unit_rows(x) @ _unit_rows(y).T
    squared = (x[:, None, :] - y[None, :, :]).square().sum(-1)
    return _safe_sqrt(squared) if metric == "euclidean" else squared


def nearest_neighbors(query: Tensor, gallery: Tensor, k: int, *, metric: Metric = "euclidean") -> tuple[Tensor, Tensor]:
    """See :func:`pyreid.ops.nearest_neighbors`. Needs O(Q G D) memory, and ranks by distances from differences."""
    check_k(k, gallery)
    dtype = computing_dtype(query, gallery)
    distances = pairwise_distance(query.to(dtype), gallery.to(dtype), metric=metric)
    indices = distances.argsort(dim=1, stable=True)[:, :k]
    return distances.gather(1, indices), indices


def _unit_rows(x: Tensor) -> Tensor:
    norm = _safe_sqrt(x.square().sum(-1, keepdim=True))
    # a row of zeros stays one, and gets no gradient
    return x * torch.where(norm == 0, 0, 1 / norm.where(norm != 0, torch.ones_like(norm)))


def _masks(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Positives (without the anchor), negatives, and the anchors that have both; (B, B), (B, B), (B,)."""
    same = labels[:, None] == labels[None, :]
    positives = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    return positives, ~same, positives.any(1) & (~same).any(1)


def _triplet_loss(d_ap: Tensor, d_an: Tensor, valid: Tensor, margin: float | None, reduction: Reduction) -> Tensor:
    difference = torch.where(valid, d_ap - d_an, 0)
    # -logsigmoid(-x) is softplus(x) without the cut that F.softplus makes at 20
    loss = -F.logsigmoid(-difference) if margin is None else F.relu(difference + margin)
    loss = torch.where(valid, loss, 0)
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.sum() / valid.sum().clamp(min=1)


def batch_hard_triplet(
    embeddings: Tensor, labels: Tensor, *, margin: float | None = 0.3, reduction: Reduction = "mean"
) -> Tensor:
    """See :func:`pyreid.ops.batch_hard_triplet`."""
    check_float_tensor("embeddings", embeddings, (2,))
    check_labels(labels, embeddings)
    check_margin(margin)
    check_choice("reduction", reduction, Reduction)
    embeddings = upcast(embeddings)
    if embeddings.shape[0] == 0:
        return embeddings.sum(1) if reduction == "none" else embeddings.sum()
    distance = pairwise_distance(embeddings)
    positives, negatives, valid = _masks(labels)
    # argmax and argmin take the lowest index under ties, and the gradient flows to that one alone
    hardest_positive = distance.masked_fill(~positives, -torch.inf).argmax(1, keepdim=True)
    hardest_negative = distance.masked_fill(~negatives, torch.inf).argmin(1, keepdim=True)
    d_ap = distance.gather(1, hardest_positive).squeeze(1)
    d_an = distance.gather(1, hardest_negative).squeeze(1)
    return _triplet_loss(d_ap, d_an, valid, margin, reduction)


def batch_soft_triplet(
    embeddings: Tensor, labels: Tensor, *, margin: float | None = None, reduction: Reduction = "mean"
) -> Tensor:
    """See :func:`pyreid.ops.batch_soft_triplet`."""
    check_float_tensor("embeddings", embeddings, (2,))
    check_labels(labels, embeddings)
    check_margin(margin)
    check_choice("reduction", reduction, Reduction)
    embeddings = upcast(embeddings)
    if embeddings.shape[0] == 0:
        return embeddings.sum(1) if reduction == "none" else embeddings.sum()
    distance = pairwise_distance(embeddings)
    positives, negatives, valid = _masks(labels)

    def weighted_mean(mask: Tensor, sign: int) -> Tensor:
        # rows without an entry get one that is masked out later, so that no softmax is over nothing
        mask = mask | ~mask.any(1, keepdim=True)
        weights = (sign * distance).masked_fill(~mask, -torch.inf).softmax(1)
        return (weights * distance).sum(1)

    return _triplet_loss(weighted_mean(positives, 1), weighted_mean(negatives, -1), valid, margin, reduction)


def gem_pool(x: Tensor, p: float | Tensor = 3.0, *, eps: float = 1e-6) -> Tensor:
    """See :func:`pyreid.ops.gem_pool`."""
    check_gem_arguments(x, p, eps)
    dtype = torch.float32 if x.dtype in HALF_TYPES and under_autocast(x) else x.dtype
    x = upcast(x).flatten(2).clamp(min=eps)
    exponent = p.to(x.dtype).reshape(1, -1, 1) if isinstance(p, Tensor) else x.new_tensor(p)
    # scaling by the largest value keeps every power in (0, 1]: no overflow at any finite input
    largest = x.detach().amax(2, keepdim=True)
    mean = (x / largest).pow(exponent).mean(2, keepdim=True)
    pooled = torch.where(largest == torch.inf, largest, largest * mean.pow(1 / exponent))
    return pooled.squeeze(2).to(dtype)


def masked_mix(local: Tensor, x: Tensor, identity: Tensor, mask: Tensor) -> Tensor:
    """See :func:`pyreid.ops.masked_mix`."""
    check_mix_arguments(local, x, identity, mask)
    dtype = promoted_type(local, x, identity)
    local, x, identity = (upcast(t.to(dtype)) for t in (local, x, identity))
    mask = mask.to(x.dtype)[(..., *(None,) * (x.dim() - 2))]
    return (mask * local + (1 - mask) * F.relu(x + identity)).to(dtype)


def gate_and_pool(x: Tensor, gate: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`pyreid.ops.gate_and_pool.gate_and_pool`."""
    check_gate_arguments(x, gate)
    dtype = promoted_type(x, gate)
    x, gate = upcast(x.to(dtype)), upcast(gate.to(dtype))
    local = F.relu(torch.sigmoid(gate) * x)
    rows = local.flatten(2)
    # argmax takes the lowest index under ties, and the gradient flows to that one alone
    largest = rows.gather(2, rows.argmax(2, keepdim=True)).squeeze(2)
    return local.to(dtype), rows.mean(2).to(dtype), largest.to(dtype)


def spatial_gate(
    x: Tensor, weight1: Tensor, weight2: Tensor, *, negative_slope: float = 0.01
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`pyreid.ops.spatial_gate`."""
    check_spatial_gate_arguments(x, weight1, weight2, negative_slope)
    dtype, x = x.dtype, upcast(x)
    with torch.autocast(x.device.type, enabled=False):  # which would convolve in half precision
        groups = x.shape[1] // weight1.shape[1]
        hidden = F.leaky_relu(F.conv2d(x, weight1.to(x.dtype), padding=1, groups=groups), negative_slope)
        gate = F.conv2d(hidden, weight2.to(x.dtype), padding=1, groups=groups)
    local, avg, largest = gate_and_pool(x, gate)
    return local.to(dtype), avg.to(dtype), largest.to(dtype)
