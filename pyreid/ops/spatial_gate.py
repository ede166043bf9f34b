"""The gate of DBAM: local features weighted by what two depthwise convolutions see around them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyreid.ops._register import (
    check_device,
    check_spatial_gate_arguments,
    check_transforms,
    forbid_double_backward,
)


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


torch.library.register_autograd("pyreid::spatial_gate", _backward, setup_context=_setup_context)
forbid_double_backward("pyreid::spatial_gate_backward")


def spatial_gate(
    x: Tensor, weight1: Tensor, weight2: Tensor, *, negative_slope: float = 0.01
) -> tuple[Tensor, Tensor, Tensor]:
    """Local features ``relu(sigmoid(conv(leaky_relu(conv(x)))) * x)`` and their pools over the pixels.

    Both convolutions are depthwise, 3x3, with zeros around the plane and no bias. Everything between ``x`` and the
    results stays in the cache; the backward computes it again from ``x``. The gradient of the maximum goes to the first
    pixel, row by row, that has it. NaN stays NaN in ``local`` and in both pools.

    Half precision is computed in float32: the maximum and the average are taken before the values are rounded to the
    dtype of ``x``. Autocast changes nothing: the dtype of ``x`` decides.

    The gate is the local attention of SAFR (Sect. 4.1, eq. 1) and of GLAMOR, whose authors use full convolutions.

    Args:
        x: (N, C, H, W), float16, bfloat16, float32 or float64, with any strides; what is not contiguous is copied.
        weight1: the filters of the first convolution, (C, 1, 3, 3), of any floating-point dtype. They are used in
            float32 (float64 if x is), and their gradient comes back in their own dtype.
        weight2: the filters of the second one, likewise.
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
    computed_in = torch.float64 if x.dtype == torch.float64 else torch.float32
    local, avg, maximum, _ = torch.ops.pyreid.spatial_gate(
        x, weight1.to(computed_in), weight2.to(computed_in), float(negative_slope)
    )
    return local, avg, maximum
