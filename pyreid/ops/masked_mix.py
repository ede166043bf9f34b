"""The blend of local and global features at the end of a DBAM block."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyreid.ops._checks import check_device, check_mix_arguments, computing_dtype, promoted_type
from pyreid.ops._register import (
    check_transforms,
    forbid_double_backward,
    register_autograd,
)


def _empty_map(x: Tensor, wanted: bool, channels_last: bool) -> Tensor:
    if not wanted:
        return x.new_empty(0)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=memory_format)


@torch.library.register_fake("pyreid::masked_mix")
def _fake(local: Tensor, x: Tensor, identity: Tensor, mask: Tensor, channels_last: bool) -> Tensor:
    return _empty_map(x, True, channels_last)


@torch.library.register_fake("pyreid::masked_mix_backward")
def _fake_backward(
    grad: Tensor,
    local: Tensor,
    x: Tensor,
    identity: Tensor,
    mask: Tensor,
    channels_last: bool,
    for_local: bool,
    for_sum: bool,
    for_mask: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        _empty_map(x, for_local, channels_last),
        _empty_map(x, for_sum, channels_last),
        mask.new_empty(mask.shape if for_mask else 0),
    )


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, Tensor, bool], output: Tensor) -> None:
    *tensors, ctx.channels_last = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    for_local, for_x, for_identity, for_mask, _ = ctx.needs_input_grad
    dlocal, dx, dmask = torch.ops.pyreid.masked_mix_backward(
        grad, *ctx.saved_tensors, ctx.channels_last, for_local, for_x or for_identity, for_mask
    )
    # As in torch's own addition, one tensor is the gradient of both terms: autograd copies it before it writes to it.
    return (
        dlocal if for_local else None,
        dx if for_x else None,
        dx if for_identity else None,
        dmask if for_mask else None,
        None,
    )


_call = register_autograd("pyreid::masked_mix", _backward, setup_context=_setup_context)
forbid_double_backward("pyreid::masked_mix_backward")


def masked_mix(local: Tensor, x: Tensor, identity: Tensor, mask: Tensor) -> Tensor:
    """``mask * local + (1 - mask) * relu(x + identity)`` with one value of the mask per channel.

    A residual block's "add and ReLU" whose masked channels carry local features instead (SAFR, Sect. 4.1, eq. 1). One
    pass over the feature maps forward and one backward; only the inputs are kept for the backward pass.

    Where the mask is exactly 0 or 1 the result is exactly ``relu(x + identity)`` or ``local``, as long as both are
    finite: 0 times infinity is NaN here as in the formula. NaN propagates. The ReLU has no gradient at 0.

    Args:
        local: (N, C, H, W) or (N, C, L), float16, bfloat16, float32 or float64, with any strides.
        x: the residual branch before the addition, shaped like ``local``.
        identity: the shortcut, shaped like ``local``.
        mask: (C,) or (N, C), floating-point. It is used in float32, in float64 if the result is float64.

    Returns:
        a tensor shaped like ``x``, in the dtype to which ``local``, ``x`` and ``identity`` promote (half precision is
        computed in float32 and rounded once). It is channels-last if ``x`` is, else contiguous; inputs in another
        layout are copied first.

    Raises:
        TypeError: if an argument is not a floating-point tensor.
        ValueError: if shapes or devices do not fit.
    """
    check_mix_arguments(local, x, identity, mask)
    check_device("x", x)
    check_transforms("masked_mix", local, x, identity, mask)
    dtype = promoted_type(local, x, identity)
    channels_last = x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    mask = mask.to(computing_dtype(local, x, identity))
    return _call(local.to(dtype), x.to(dtype), identity.to(dtype), mask, channels_last)
