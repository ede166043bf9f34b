"""Registration of the operators with torch: gradients, autocast, and what is not supported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

# What an operator's arguments may be for it to be called without detours.
_PLAIN_TYPES = frozenset({Tensor, torch.nn.Parameter, type(None), bool, int, float, str})
# Not public; without them every call takes the registered rule.
_BELOW_AUTOGRAD: Any = getattr(torch._C, "_AutoDispatchBelowAutograd", None)
_any_autocast = getattr(torch._C, "_is_any_autocast_enabled", lambda: True)


def register_autograd(
    op: str, backward: Callable[..., Any], *, setup_context: Callable[[Any, Any, Any], None]
) -> Callable[..., Any]:
    """Register as ``torch.library.register_autograd`` does, and return a shorter way to call ``op``.

    An ``autograd.Function`` around the kernels starts 10 us sooner than the dispatcher's rule written in Python, which
    tells in small batches. Plain tensors in eager mode take it; torch sees the operator with its registered rule where
    it looks closer: in compilation, in tracing, under autocast, and for subclasses of Tensor, fake ones among them.
    Gradients and errors are the same.

    Args:
        op: qualified name, as in ``"pyreid::gem_pool"``.
        backward: called with the context and the gradients of the outputs; returns those of all inputs.
        setup_context: called with the context, the inputs and the outputs.

    Returns:
        a function of the operator's arguments, all of them by position.
    """
    torch.library.register_autograd(op, backward, setup_context=setup_context)
    registered = getattr(torch.ops.pyreid, op.removeprefix("pyreid::")).default
    below_autograd: Any = _BELOW_AUTOGRAD
    if below_autograd is None:
        return registered

    class Direct(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            with below_autograd():
                output = registered(*inputs)
            setup_context(ctx, inputs, output)
            return output

        @staticmethod
        def backward(ctx: Any, *grads: Tensor | None) -> Any:
            # Not below autograd: reading the saved tensors may compute them again (torch.utils.checkpoint).
            return backward(ctx, *grads)

    def call(*inputs: Any) -> Any:
        if (
            torch.compiler.is_compiling()
            or not _PLAIN_TYPES.issuperset(map(type, inputs))
            or torch._C._get_tracing_state() is not None
            or _any_autocast()
        ):
            return registered(*inputs)
        return Direct.apply(*inputs)

    return call


def forbid_double_backward(op: str) -> None:
    """Give a backward operator an autograd rule that says what is not supported, instead of a wrong gradient."""

    def backward(ctx: Any, *grads: Tensor | None) -> None:
        raise RuntimeError(f"{op} cannot be differentiated twice; use the function in pyreid.ops.reference")

    torch.library.register_autograd(op, backward)


def float32_under_autocast(op: str) -> None:
    """Run ``op`` in float32 under autocast on CPU and CUDA: distances overflow float16 without a warning."""
    for device in ("cpu", "cuda"):
        torch.library.register_autocast(op, device, torch.float32)


def check_transforms(op: str, *tensors: object) -> None:
    """Raise RuntimeError under forward-mode differentiation and ``torch.func``.

    The operators have a rule for reverse mode only; without this check the tangent would be dropped in silence, as it
    is inside ``torch.compile``, where the question cannot be traced.
    """
    if torch.compiler.is_compiling():
        return
    forward = forward_ad._current_level >= 0 and any(
        isinstance(t, Tensor) and forward_ad.unpack_dual(t).tangent is not None for t in tensors
    )
    if forward or torch._C._functorch.peek_interpreter_stack() is not None:
        raise RuntimeError(
            f"{op} supports reverse-mode gradients only, not forward mode or torch.func; use the function of the same "
            "name in pyreid.ops.reference"
        )
