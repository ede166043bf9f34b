"""Triplet loss with the hardest positive and the hardest negative of each anchor in the batch."""

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


@torch.library.register_fake("pyreid::batch_hard_triplet")
def _fake(embeddings: Tensor, labels: Tensor, margin: float | None, reduction: str) -> tuple[Tensor, Tensor, Tensor]:
    b = embeddings.shape[0]
    loss = embeddings.new_empty((b,) if reduction == "none" else ())
    return loss, embeddings.new_empty((2, b), dtype=torch.int32), embeddings.new_empty((2, b))


@torch.library.register_fake("pyreid::batch_hard_triplet_backward")
def _fake_backward(grad: Tensor, embeddings: Tensor, pairs: Tensor, slopes: Tensor) -> Tensor:
    return embeddings.new_empty(embeddings.shape)


def _setup_context(
    ctx: Any, inputs: tuple[Tensor, Tensor, float | None, str], output: tuple[Tensor, Tensor, Tensor]
) -> None:
    _, pairs, slopes = output
    ctx.save_for_backward(inputs[0], pairs, slopes)
    ctx.mark_non_differentiable(pairs, slopes)
    ctx.set_materialize_grads(False)  # no zeros for the outputs that only the backward uses


def _backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, None, None, None]:
    if grad is None:
        return None, None, None, None
    embeddings, pairs, slopes = ctx.saved_tensors
    return torch.ops.pyreid.batch_hard_triplet_backward(grad, embeddings, pairs, slopes), None, None, None


_call = register_autograd("pyreid::batch_hard_triplet", _backward, setup_context=_setup_context)
forbid_double_backward("pyreid::batch_hard_triplet_backward")
float32_under_autocast("pyreid::batch_hard_triplet")


def batch_hard_triplet(
    embeddings: Tensor, labels: Tensor, *, margin: float | None = 0.3, reduction: Reduction = "mean"
) -> Tensor:
    """Batch-hard triplet loss: farthest positive against nearest negative of each anchor (Hermans et al., "In Defense
    of the Triplet Loss for Person Re-Identification", Sect. 2).

    With Euclidean distances d, an anchor costs ``max(0, d_ap - d_an + margin)``, or ``ln(1 + exp(d_ap - d_an))`` with
    ``margin=None`` (the soft margin, also used by DaRe, Eq. 2), where p is its farthest positive and n its nearest
    negative. The anchor is not its own positive, and an anchor without a positive or without a negative does not count.
    The lowest index wins a tie and alone gets the gradient. The gradient of a distance that is 0 is 0. Distances are
    summed from differences, so that near duplicates keep their digits.

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
    check_transforms("batch_hard_triplet", embeddings)
    check_labels(labels, embeddings)
    check_margin(margin)
    check_choice("reduction", reduction, Reduction)
    loss, _, _ = _call(upcast(embeddings), labels.long(), None if margin is None else float(margin), reduction)
    return loss
