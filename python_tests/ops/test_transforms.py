"""What torch may do to a call: forward mode, torch.func, and compiling with changing shapes and options."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from pyreid import ops
from pyreid.losses import BatchHardTripletLoss, BatchSoftTripletLoss
from pyreid.ops.gate_and_pool import gate_and_pool

LABELS = torch.arange(4).repeat(2)
FILTERS = torch.ones(1, 1, 3, 3) / 9


def gate(x: Tensor) -> Tensor:
    local, avg, largest = ops.spatial_gate(x[None, None], FILTERS, FILTERS)
    return local.sum() + avg.sum() + largest.sum()


CALLS: dict[str, Callable[[Tensor], Tensor]] = {
    "pairwise_distance": lambda x: ops.pairwise_distance(x).sum(),
    "batch_hard_triplet": lambda x: ops.batch_hard_triplet(x, LABELS),
    "batch_soft_triplet": lambda x: ops.batch_soft_triplet(x, LABELS),
    "nearest_neighbors": lambda x: ops.nearest_neighbors(x, x, 3)[0].sum(),
    "gem_pool": lambda x: ops.gem_pool(x[None]).sum(),
    "masked_mix": lambda x: ops.masked_mix(x[None], x[None], x[None], x[:, 0]).sum(),
    "gate_and_pool": lambda x: gate_and_pool(x[None], x[None])[0].sum(),
    "spatial_gate": gate,
}


@pytest.mark.parametrize("name", CALLS)
def test_forward_mode_is_refused(name: str) -> None:
    x, tangent = torch.randn(8, 16), torch.randn(8, 16)
    with pytest.raises(RuntimeError, match=f"{name} supports reverse-mode gradients only"):
        torch.func.jvp(CALLS[name], (x,), (tangent,))
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, tangent)
        with pytest.raises(RuntimeError, match=f"{name} supports reverse-mode gradients only"):
            CALLS[name](dual)
        CALLS[name](x)  # another tensor without a tangent is fine


@pytest.mark.parametrize("name", CALLS)
def test_functional_gradients_are_refused(name: str) -> None:
    with pytest.raises(RuntimeError, match=f"{name} supports reverse-mode gradients only"):
        torch.func.grad(CALLS[name])(torch.randn(8, 16))


@pytest.mark.parametrize("name", CALLS)
def test_compiles_with_dynamic_shapes(name: str) -> None:
    def call(x: Tensor, labels: Tensor) -> Tensor:
        if name.startswith("batch"):
            return getattr(ops, name)(x, labels, margin=0.3)
        return CALLS[name](x)

    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend="aot_eager")
    for rows in (8, 12, 20):
        x, labels = torch.randn(rows, 16, requires_grad=True), torch.arange(4).repeat(rows // 4)
        (grad,) = torch.autograd.grad(compiled(x, labels), x)
        (expected,) = torch.autograd.grad(call(x, labels), x)
        assert torch.equal(grad, expected)


@pytest.mark.parametrize(
    ("op", "loss"),
    [(ops.batch_hard_triplet, BatchHardTripletLoss), (ops.batch_soft_triplet, BatchSoftTripletLoss)],
    ids=["hard", "soft"],
)
def test_compiles_with_changing_margins(op: Callable[..., Tensor], loss: Callable[..., torch.nn.Module]) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(lambda x, m: op(x, LABELS, margin=m), fullgraph=True, backend="aot_eager")
    x = torch.randn(8, 16)
    for margin in (0.3, 0.4, 0.5):
        assert torch.equal(compiled(x, margin), op(x, LABELS, margin=margin))
    module = torch.compile(loss(0.3), fullgraph=True, dynamic=True, backend="aot_eager")
    assert torch.equal(module(x, LABELS), loss(0.3)(x, LABELS))
