"""The two ways into an operator: the short one of eager mode and the registered rule."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

from pyreid import ops
from pyreid.ops import _register

X, LABELS = torch.randn(12, 20), torch.arange(12) // 3
OPS = [ops.batch_hard_triplet, ops.batch_soft_triplet]


class Logged(Tensor):
    """A subclass that sees the operators that are called on it."""

    seen: list[str]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cls.seen.append(str(func))
        with no_dispatch():
            return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("op", OPS)
def test_both_ways_give_the_same_bits(op: Any) -> None:
    leaf = X.clone().requires_grad_()
    direct = op(leaf, LABELS)
    registered = getattr(torch.ops.pyreid, op.__name__)(leaf, LABELS, *_defaults(op))[0]
    assert direct.grad_fn.name() != registered.grad_fn.name()
    assert torch.equal(direct, registered)
    grads = [torch.autograd.grad(value, leaf)[0] for value in (direct, registered)]
    assert torch.equal(*grads)
    with torch.no_grad():
        assert torch.equal(op(leaf, LABELS), registered)
        assert not op(leaf, LABELS).requires_grad


def _defaults(op: Any) -> tuple[float | None, str]:
    return op.__kwdefaults__["margin"], op.__kwdefaults__["reduction"]


@pytest.mark.parametrize("op", OPS)
def test_subclasses_modes_tracing_and_autocast_see_the_operator(op: Any) -> None:
    name = f"pyreid.{op.__name__}.default"
    Logged.seen = []
    op(X.as_subclass(Logged), LABELS)
    assert name in Logged.seen

    class Log(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    seen: list[str] = []
    leaf = X.clone().requires_grad_()
    with Log():
        torch.autograd.grad(op(leaf, LABELS), leaf)
    assert {name, f"pyreid.{op.__name__}_backward.default"} <= set(seen)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert "GeneratedBackward" in op(leaf, LABELS).grad_fn.name()
    graph = make_fx(lambda x: op(x, LABELS))(X)
    assert name in {str(node.target) for node in graph.graph.nodes}


def test_tensors_that_change_before_the_backward_are_noticed() -> None:
    leaf = X.clone().requires_grad_()
    doubled = 2 * leaf
    loss = ops.batch_soft_triplet(doubled, LABELS)
    doubled.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_without_the_private_name_calls_are_registered_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_register, "_BELOW_AUTOGRAD", None)
    monkeypatch.setattr(torch.library, "register_autograd", lambda *_, **__: None)
    call = _register.register_autograd("pyreid::batch_hard_triplet", lambda *_: None, setup_context=lambda *_: None)
    assert call is torch.ops.pyreid.batch_hard_triplet.default
