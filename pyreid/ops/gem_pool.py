"""Generalised-mean (GeM) pooling."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyreid.ops._checks import check_device, check_gem_arguments, computing_dtype, under_autocast
from pyreid.ops._register import (
    check_transforms,
    forbid_double_backward,
    register_autograd,
)


@torch.library.register_fake("pyreid::gem_pool")
def _fake(x: Tensor, p: Tensor | None, value: float, eps: float) -> tuple[Tensor, Tensor]:
    rows, dtype = x.shape[:2], computing_dtype(x)
    return x.new_empty(rows, dtype=dtype), x.new_empty((2 if p is None else 3, *rows), dtype=dtype)


@torch.library.register_fake("pyreid::gem_pool_backward")
def _fake_backward(
    grad: Tensor, x: Tensor, statistics: Tensor, p: Tensor | None, value: float, eps: float
) -> tuple[Tensor, Tensor]:
    # As in csrc/ops: dx has the strides of an x that is read without a copy, contiguous or with channels last.
    uncopied = x.is_contiguous() or x.movedim(1, -1).is_contiguous()
    dx = torch.empty_like(x) if uncopied else x.new_empty(x.shape)
    return dx, grad.new_empty((0,) if p is None else p.shape)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor | None, float, float], output: tuple[Tensor, Tensor]) -> None:
    x, p, ctx.value, ctx.eps = inputs
    _, statistics = output
    ctx.mark_non_differentiable(statistics)
    ctx.save_for_backward(x, statistics, *(() if p is None else (p,)))


def _backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, Tensor | None, None, None]:
    x, statistics, *rest = ctx.saved_tensors
    p = rest[0] if rest else None
    dx, dp = torch.ops.pyreid.gem_pool_backward(grad, x, statistics, p, ctx.value, ctx.eps)
    return dx, None if p is None else dp, None, None


_call = register_autograd("pyreid::gem_pool", _backward, setup_context=_setup_context)
forbid_double_backward("pyreid::gem_pool_backward")


def gem_pool(x: Tensor, p: float | Tensor = 3.0, *, eps: float = 1e-6) -> Tensor:
    """Generalised-mean pooling ``(mean_i max(x_i, eps)^p)^(1/p)`` over all positions of each channel.

    ``p = 1`` is average pooling, and the result goes to the maximum as ``p`` grows. Every row is scaled by its largest
    value inside, so no finite input overflows, whatever ``p`` and the dtype of ``x``. Values below ``eps``, minus
    infinity among them, count as ``eps`` and have no gradient; NaN and infinity make the result NaN and infinite.

    The relative error grows as ``1 / p``: below ``p = 1e-2`` the result is not accurate, and tiny ``p`` gives the
    maximum instead of the geometric mean.

    A tensor ``p`` is learnable: its gradient is computed along with the forward pass. Its values are not checked,
    because that would wait for the device; keep them positive by clamping the parameter (1e-2 to 50, say) or by a
    softplus. A value that is not positive and finite gives a meaningless result.

    Generalised-mean pooling is from "Fine-tuning CNN Image Retrieval with No Human Annotation" (Radenović, Tolias,
    Chum, Sect. 3.2).

    Args:
        x: (N, C, H, W) or (N, C, L), float16, bfloat16, float32 or float64, with any strides. Contiguous and
            channels-last maps are read as they are, and their gradient lies in memory as they do; others are copied.
            Half precision is computed in float32.
        p: a number above 0, or a floating-point tensor of shape (), (1,) or (C,) on the device of x, which is used
            in float32 (float64 if x is).
        eps: the lower bound on the values, above 0.

    Returns:
        (N, C) in the dtype of x; under autocast, float32 for half precision.

    Raises:
        TypeError: if x or a tensor p is not floating-point, or p is neither a tensor nor a number.
        ValueError: if the shape of x or p does not fit, x has no positions, the devices differ, p is a number that is
            not positive and finite, or eps is not a positive normal number.
    """
    check_gem_arguments(x, p, eps)
    check_device("x", x)
    check_transforms("gem_pool", x, p)
    computed_in = computing_dtype(x)
    if isinstance(p, Tensor):
        pooled, _ = _call(x, p.to(computed_in).reshape(-1), 0.0, float(eps))
    else:
        pooled, _ = _call(x, None, float(p), float(eps))
    return pooled if under_autocast(x) else pooled.to(x.dtype)
