"""Triplet loss with softmax-weighted means of each anchor's distances to its positives and negatives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyreid.ops._register import (
    Reduction,
    check_choice,
    check_device,
    check_float_tensor,
    check_labels,
    check_margin,
    check_transforms,
    float32_under_autocast,
    forbid_double_backward,
    register_autograd,
    upcast,
)


@torch.library.register_fake("pyreid::batch_soft_triplet")
def _fake(embeddings: Tensor, labels: Tensor, margin: float | None, reduction: str) -> tuple[Tensor, Tensor, Tensor]:
    b = embeddings.shape[0]
    loss = embeddings.new_empty((b,) if reduction == "none" else ())
    return loss, embeddings.new_empty((b, b)), embeddings.new_empty((b,))


@torch.library.register_fake("pyreid::batch_soft_triplet_backward")
def _fake_backward(grad: Tensor, embeddings: Tensor, weights: Tensor, slopes: Tensor) -> Tensor:
    return embeddings.new_empty(embeddings.shape)


def _setup_context(
    ctx: Any, inputs: tuple[Tensor, Tensor, float | None, str], output: tuple[Tensor, Tensor, Tensor]
) -> None:
    _, weights, slopes = output
    ctx.save_for_backward(inputs[0], weights, slopes)
    ctx.mark_non_differentiable(weights, slopes)
    ctx.set_materialize_grads(False)  # no zeros for the outputs that only the backward uses


def _backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, None, None, None]:
    if grad is None:
        return None, None, None, None
    embeddings, weights, slopes = ctx.saved_tensors
    return torch.ops.pyreid.batch_soft_triplet_backward(grad, embeddings, weights, slopes), None, None, None


_call = register_autograd("pyreid::batch_soft_triplet", _backward, setup_context=_setup_context)
forbid_double_backward("pyreid::batch_soft_triplet_backward")
float32_under_autocast("pyreid::batch_soft_triplet")


def batch_soft_triplet(
    embeddings: Tensor, labels: Tensor, *, margin: float | None = None, reduction: Reduction = "mean"
) -> Tensor:
    """Batch-soft triplet loss: softmax-weighted means of the distances to all positives and negatives of each anchor
    (Compact-ReID, Eqs. 3 and 4; Ristani and Tomasi, "Features for Multi-Target Multi-Camera Tracking and
    Re-Identification").

    With Euclidean distances d, weights ``w_p = softmax(d_ap)`` over the positives and ``w_n = softmax(-d_an)`` over the
    negatives, and ``x = sum w_p d_ap - sum w_n d_an``, an anchor costs ``ln(1 + exp(x))`` with ``margin=None`` (the
    soft margin), or ``max(0, x + margin)``. The weights are differentiated through. The anchor is not its own positive,
    and an anchor without a positive or without a negative does not count. The softmax is taken relative to the largest
    of its entries, so that it holds at distances of any size. The gradient of a distance that is 0 is 0.

    Args:
        embeddings: (B, D), float16, bfloat16, float32 or float64; half precision is computed and returned in float32.
        labels: (B,), identities of any integer dtype, on the device of ``embeddings``.
        margin: of the hinge, finite; ``None`` for the soft margin.
        reduction: ``"mean"`` over the anchors that count, ``"sum"``, or ``"none"`` for (B,) losses, 0 for the anchors
            that do not count. A batch without an anchor that counts gives 0 and zero gradients.

    Returns:
        the loss, a scalar, or (B,) for ``reduction="none"``. NaN in a row of ``embeddings`` makes the loss of every
        anchor that counts NaN, its own and the others'.

    Raises:
        TypeError: if embeddings are not floating point, labels not integers, or the margin not a number.
        ValueError: if shapes or devices do not fit, the margin is not finite, or the reduction is unknown.
    """
    check_float_tensor("embeddings", embeddings, (2,))
    check_device("embeddings", embeddings)
    check_transforms("batch_soft_triplet", embeddings)
    check_labels(labels, embeddings)
    check_margin(margin)
    check_choice("reduction", reduction, Reduction)
    loss, _, _ = _call(upcast(embeddings), labels.long(), None if margin is None else float(margin), reduction)
    return loss
