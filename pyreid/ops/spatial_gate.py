"""The gate of DBAM: local features weighted by what two depthwise convolutions see around them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pyreid.ops._checks import check_device, check_spatial_gate_arguments, computing_dtype, under_autocast
from pyreid.ops._register import (
    check_transforms,
    forbid_double_backward,
    register_autograd,
)
from pyreid.ops.gate_and_pool import gate_and_pool


@torch.library.register_fake("pyreid::spatial_gate")
def _fake(x: Tensor, weight1: Tensor, weight2: Tensor, negative_slope: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    planes = x.shape[:2]
    return x.new_empty(x.shape), x.new_empty(planes), x.new_empty(planes), x.new_empty(planes, dtype=torch.int64)


@torch.library.register_fake("pyreid::spatial_gate_backward")
def _fake_backward(
    dlocal: Tensor | None,
    davg: Tensor | None,
    dmax: Tensor | None,
    x: Tensor,
    weight1: Tensor,
    weight2: Tensor,
    argmax: Tensor,
    negative_slope: float,
    needs_x: bool,
    needs_weights: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    dx = x.new_empty(x.shape if needs_x else (0,))
    dweight1, dweight2 = (w.new_empty(w.shape if needs_weights else (0,)) for w in (weight1, weight2))
    return dx, dweight1, dweight2


def _setup_context(
    ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, float], output: tuple[Tensor, Tensor, Tensor, Tensor]
) -> None:
    x, weight1, weight2, ctx.negative_slope = inputs
    *_, argmax = output
    ctx.mark_non_differentiable(argmax)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, weight1, weight2, argmax)


def _backward(
    ctx: Any, dlocal: Tensor | None, davg: Tensor | None, dmax: Tensor | None, _: Tensor | None
) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
    needs_x, *needs_weight, _slope = ctx.needs_input_grad
    if dlocal is None and davg is None and dmax is None:
        return None, None, None, None
    dx, *dweights = torch.ops.pyreid.spatial_gate_backward(
        dlocal, davg, dmax, *ctx.saved_tensors, ctx.negative_slope, needs_x, any(needs_weight)
    )
    dweight1, dweight2 = (d if needed else None for d, needed in zip(dweights, needs_weight, strict=True))
    return dx if needs_x else None, dweight1, dweight2, None


_call = register_autograd("pyreid::spatial_gate", _backward, setup_context=_setup_context)
forbid_double_backward("pyreid::spatial_gate_backward")


def _full_gate(x: Tensor, weight1: Tensor, weight2: Tensor, negative_slope: float) -> tuple[Tensor, Tensor, Tensor]:
    if not under_autocast(x):  # which converts what it convolves
        weight1, weight2 = weight1.to(x.dtype), weight2.to(x.dtype)
    hidden = F.leaky_relu(F.conv2d(x, weight1, padding=1), negative_slope)
    local, avg, largest = gate_and_pool(x, F.conv2d(hidden, weight2, padding=1).to(x.dtype))
    return local, avg, largest


def spatial_gate(
    x: Tensor, weight1: Tensor, weight2: Tensor, *, negative_slope: float = 0.01
) -> tuple[Tensor, Tensor, Tensor]:
    """Local features ``relu(sigmoid(conv(leaky_relu(conv(x)))) * x)`` and their pools over the pixels.

    Both convolutions are 3x3, with zeros around the plane and no bias. With depthwise filters everything between ``x``
    and the results stays in the cache; the backward computes it again from ``x``. Full convolutions are torch's, in the
    dtype of ``x`` or of autocast; what surrounds them is one pass each way (:mod:`pyreid.ops.gate_and_pool`). The
    gradient of the maximum goes to the first pixel, row by row, that has it. NaN stays NaN in ``local`` and both pools.

    Half precision is computed in float32: the maximum and the average are taken before the values are rounded to the
    dtype of ``x``. Autocast changes nothing with depthwise filters: the dtype of ``x`` decides.

    The gate is the local attention of SAFR (Sect. 4.1, eq. 1) and of GLAMOR, whose authors use full convolutions.

    Args:
        x: (N, C, H, W), float16, bfloat16, float32 or float64, with any strides; what is not contiguous is copied.
        weight1: the filters of the first convolution, of any floating-point dtype: (C, 1, 3, 3), depthwise, used in
            float32 (float64 if x is), or (C, C, 3, 3), full, used in the dtype of x. Their gradient comes back in their
            own dtype.
        weight2: the filters of the second one, of the same shape.
        negative_slope: of the leaky ReLU.

    Returns:
        local (N, C, H, W), contiguous, its average (N, C) and its maximum (N, C), in the dtype of x.

    Raises:
        TypeError: if x or a weight is not a floating-point tensor, or negative_slope is not a number.
        ValueError: if a shape does not fit, x has no pixels or planes of 2^31 pixels, the devices differ, or
            negative_slope is not finite.
    """
    check_spatial_gate_arguments(x, weight1, weight2, negative_slope)
    check_device("x", x)
    check_transforms("spatial_gate", x, weight1, weight2)
    if weight1.shape[1] != 1:
        return _full_gate(x, weight1, weight2, negative_slope)
    computed_in = computing_dtype(x)
    local, avg, maximum, _ = _call(x, weight1.to(computed_in), weight2.to(computed_in), float(negative_slope))
    return local, avg, maximum
