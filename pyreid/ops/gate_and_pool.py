"""What surrounds the convolutions of DBAM's spatial gate: sigmoid, product, ReLU and the two global pools."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyreid.ops._register import (
    check_device,
    check_gate_arguments,
    check_transforms,
    forbid_double_backward,
    promoted_type,
)


@torch.library.register_fake("pyreid::gate_and_pool")
def _fake(x: Tensor, gate: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows = x.shape[:2]
    return x.new_empty(x.shape), x.new_empty(rows), x.new_empty(rows), x.new_empty(rows, dtype=torch.int64)


@torch.library.register_fake("pyreid::gate_and_pool_backward")
def _fake_backward(
    dlocal: Tensor | None,
    davg: Tensor | None,
    dlargest: Tensor | None,
    x: Tensor,
    gate: Tensor,
    index: Tensor,
    for_x: bool,
    for_gate: bool,
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape if for_x else 0), x.new_empty(x.shape if for_gate else 0)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    index = output[3]
    ctx.mark_non_differentiable(index)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs, index)


def _backward(
    ctx: Any, dlocal: Tensor | None, davg: Tensor | None, dlargest: Tensor | None, _: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    for_x, for_gate = ctx.needs_input_grad
    dx, dgate = torch.ops.pyreid.gate_and_pool_backward(dlocal, davg, dlargest, *ctx.saved_tensors, for_x, for_gate)
    return dx if for_x else None, dgate if for_gate else None


torch.library.register_autograd("pyreid::gate_and_pool", _backward, setup_context=_setup_context)
forbid_double_backward("pyreid::gate_and_pool_backward")


def gate_and_pool(x: Tensor, gate: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Local features ``relu(sigmoid(gate) * x)`` with their average and maximum over all positions of each channel.

    One pass over the feature maps forward and one backward; the inputs and the place of each maximum are kept for the
    backward pass. The gradient of a maximum goes to the first position, row by row, that attains it; the ReLU has no
    gradient at 0. NaN propagates into both pools.

    Args:
        x: (N, C, H, W) or (N, C, L), float16, bfloat16, float32 or float64, with any strides.
        gate: shaped like ``x``, before the sigmoid.

    Returns:
        local like ``x`` but contiguous, its average (N, C) and its maximum (N, C), in the dtype to which ``x`` and
        ``gate`` promote. Half precision is computed in float32 and rounded once: the pools are those of the values
        before rounding, and so is the choice of the maximum.

    Raises:
        TypeError: if x or gate is not a floating-point tensor.
        ValueError: if shapes or devices do not fit, or x has no positions.
    """
    check_gate_arguments(x, gate)
    check_device("x", x)
    check_transforms("gate_and_pool", x, gate)
    dtype = promoted_type(x, gate)
    local, avg, largest, _ = torch.ops.pyreid.gate_and_pool(x.to(dtype), gate.to(dtype))
    return local, avg, largest
