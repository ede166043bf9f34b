"""batch_hard_triplet and batch_soft_triplet: values, gradients, arguments and how torch sees them."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pyreid import ops
from pyreid.ops import reference
from python_tests.ops.checks import DEVICES, assert_close, gradients
from python_tests.ops.triplets import KINDS, MARGINS, REDUCTIONS, batch, naive, reduce_losses, triplet

INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("kind", KINDS)
def test_equals_loops(kind: str, margin: float | None, reduction: str, dtype: torch.dtype, device: str) -> None:
    computed_in = torch.float64 if dtype == torch.float64 else torch.float32
    for b, d in [(2, 1), (3, 5), (9, 16), (17, 33), (35, 130)]:
        x, labels = batch(b, d, dtype)
        out = triplet(kind)(x.to(device), labels.to(device), margin=margin, reduction=reduction)
        expected = reduce_losses(naive(kind, x, labels, margin), reduction)
        assert out.dtype == computed_in
        # two distances of size sqrt(2 d), as often as the sum has anchors
        scale = (1 + 2 * (2 * d) ** 0.5) * (b if reduction == "sum" else 1)
        assert_close(out, expected, computed_in, scale=scale)


@pytest.mark.parametrize("device", DEVICES)
def test_more_rows_and_columns_than_one_block(device: str) -> None:
    x, labels = batch(150, 300, torch.float64)
    for kind in KINDS:
        out = gradients(lambda a: triplet(kind)(a, labels.to(a.device), reduction="none"), x.to(device))  # noqa: B023
        expected = gradients(lambda a: triplet(kind, reference)(a, labels, reduction="none"), x)  # noqa: B023
        assert_close(out[0], expected[0], torch.float64, scale=10.0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_equal_reference(
    kind: str, margin: float | None, reduction: str, dtype: torch.dtype, device: str
) -> None:
    for b, d in [(3, 5), (17, 33), (37, 130)]:
        x, labels = batch(b, d, dtype)

        def loss(a: Tensor, module: object = ops, labels: Tensor = labels) -> Tensor:
            return triplet(kind, module)(a, labels.to(a.device), margin=margin, reduction=reduction)

        ours = gradients(loss, x.to(device))[0]
        expected = gradients(lambda a: loss(a, reference), x.double())[0]
        # d weights of size up to 1 + (spread of the distances), on unit vectors: sums of a few units
        assert_close(ours, expected, dtype, scale=10.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("margin", MARGINS)
def test_gradcheck(kind: str, margin: float | None) -> None:
    x = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 0, 1, 2, 0, 2])
    for reduction in REDUCTIONS:
        function = lambda a: triplet(kind)(a, labels, margin=margin, reduction=reduction)  # noqa: B023, E731
        assert torch.autograd.gradcheck(function, (x,))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "labels", [[], [3], [4, 4, 4, 4], [1, 2, 3, 4]], ids=["empty", "one", "one identity", "no positive"]
)
def test_nothing_to_compare_costs_nothing(
    labels: list[int], kind: str, margin: float | None, reduction: str, device: str
) -> None:
    x = torch.randn(len(labels), 6, device=device, requires_grad=True)
    for module in (ops, reference):
        ids = torch.tensor(labels, dtype=torch.int64, device=device)
        out = triplet(kind, module)(x, ids, margin=margin, reduction=reduction)
        assert torch.equal(out, torch.zeros(len(labels) if reduction == "none" else (), device=device))
        (grad,) = torch.autograd.grad(out.sum(), x)
        assert torch.equal(grad, torch.zeros_like(x))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
def test_zero_columns(kind: str, device: str) -> None:
    x = torch.zeros(4, 0, device=device, requires_grad=True)
    out = triplet(kind)(x, torch.tensor([0, 0, 1, 1], device=device), margin=0.25)
    assert out.item() == 0.25
    out.backward()
    assert x.grad is not None
    assert x.grad.shape == (4, 0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
def test_anchors_without_positive_do_not_count(kind: str, device: str) -> None:
    x = torch.randn(5, 8, device=device)
    labels = torch.tensor([0, 0, 1, 1, 2], device=device)
    losses = triplet(kind)(x, labels, margin=5.0, reduction="none")
    assert losses[4].item() == 0
    assert (losses[:4] > 0).all()
    assert_close(triplet(kind)(x, labels, margin=5.0), losses[:4].double().mean(), torch.float32, scale=5.0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_any_integer_type(kind: str, dtype: torch.dtype, device: str) -> None:
    x, labels = torch.randn(12, 9, device=device), torch.tensor([7, 7, 7, 120, 120, 3, 3, 0, 0, 0, 1, 127])
    expected = triplet(kind)(x, labels.to(device))
    assert torch.equal(triplet(kind)(x, labels.to(device, dtype)), expected)
    assert_close(triplet(kind, reference)(x.double(), labels.to(device, dtype)), expected, torch.float32, scale=10.0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
def test_labels_that_differ_in_high_bits_only(kind: str, device: str) -> None:
    x = torch.randn(4, 9, device=device)
    high = torch.tensor([1, 1, 1 + 2**40, 1 + 2**40], device=device)
    assert torch.equal(triplet(kind)(x, high), triplet(kind)(x, torch.tensor([0, 0, 1, 1], device=device)))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_opcheck(kind: str, reduction: str, device: str) -> None:
    x, labels = torch.randn(6, 7, device=device, requires_grad=True), torch.tensor([0, 0, 1, 1, 2, 2], device=device)
    op = getattr(torch.ops.pyreid, f"batch_{kind}_triplet")
    torch.library.opcheck(op, (x, labels, None, reduction))
    torch.library.opcheck(op, (x, labels, 0.3, reduction))
    loss, *saved = op(x.detach(), labels, None, reduction)
    backward = getattr(torch.ops.pyreid, f"batch_{kind}_triplet_backward")
    torch.library.opcheck(backward, (torch.ones_like(loss), x.detach(), *saved))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("kind", KINDS)
def test_compiles_without_graph_breaks(kind: str, margin: float | None, device: str) -> None:
    x = torch.randn(6, 8, device=device, requires_grad=True)
    labels = torch.tensor([0, 0, 1, 1, 2, 2], dtype=torch.int32, device=device)
    compiled = torch.compile(
        lambda a: triplet(kind)(a, labels, margin=margin), fullgraph=True, backend="aot_eager", dynamic=False
    )
    compiled(x).backward()
    (expected,) = torch.autograd.grad(triplet(kind)(x, labels, margin=margin), x)
    assert x.grad is not None
    assert torch.equal(x.grad, expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
def test_strides_do_not_matter(kind: str, device: str) -> None:
    x, labels = torch.randn(20, 24, device=device), torch.arange(24, device=device) // 4
    loss = lambda a: triplet(kind)(a, labels[::2], reduction="none")  # noqa: E731
    strided, dense = x.T[::2], x.T[::2].contiguous()
    assert torch.equal(loss(strided), loss(dense))
    assert torch.equal(gradients(loss, strided)[0], gradients(loss, dense)[0])
    # a gradient that arrives expanded, as from sum()
    leaf = dense.clone().requires_grad_()
    (grad,) = torch.autograd.grad(loss(leaf).sum(), leaf)
    (expected,) = torch.autograd.grad(triplet(kind)(leaf, labels[::2], reduction="sum"), leaf)
    assert torch.equal(grad, expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
def test_bits_repeat(kind: str, device: str) -> None:
    x, labels = torch.randn(70, 300, device=device, requires_grad=True), torch.arange(70, device=device) // 4
    runs = [(out := triplet(kind)(x, labels), torch.autograd.grad(out, x)[0]) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


CHILD = """
import sys, torch
from pyreid import ops
torch.manual_seed(0)
out = []
for dtype in (torch.float32, torch.float64):
    for b, d in ((5, 3), (70, 300), (150, 1100)):
        x, labels = torch.randn(b, d, dtype=dtype).requires_grad_(), torch.randint(0, b // 3, (b,))
        for loss in (ops.batch_hard_triplet, ops.batch_soft_triplet):
            value = loss(x, labels, reduction="none")
            out += [value.detach(), torch.autograd.grad(value.mean(), x)[0]]
torch.save(out, sys.argv[1])
"""


def in_a_process(path: Path, **environment: str) -> list[Tensor]:
    subprocess.run([sys.executable, "-c", CHILD, str(path)], check=True, env={**os.environ, **environment})
    tensors: list[Tensor] = torch.load(path)
    return tensors


def test_threads_and_instruction_sets(tmp_path: Path) -> None:
    path = tmp_path / "out.pt"
    one = in_a_process(path, OMP_NUM_THREADS="1")
    assert all(torch.equal(a, b) for a, b in zip(one, in_a_process(path, OMP_NUM_THREADS="2"), strict=True))
    for isa in ("avx2", "baseline"):
        for a, b in zip(one, in_a_process(path, PYREID_CPU_ISA=isa), strict=True):
            # distances up to sqrt(2 * 1100)
            assert_close(a, b, a.dtype, scale=100.0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
def test_autocast_stays_float32(kind: str, device: str) -> None:
    x, labels = 300 * torch.randn(8, 64, device=device), torch.arange(8, device=device) // 2
    with torch.autocast(device, dtype=torch.bfloat16):
        out = triplet(kind)(x, labels)
        from_half = triplet(kind)(x.bfloat16(), labels)
        # the function upcasts by itself; the operator, called directly, is told to by autocast
        direct = getattr(torch.ops.pyreid, f"batch_{kind}_triplet")(x.bfloat16(), labels, 0.3, "mean")[0]
    assert (out.dtype, from_half.dtype) == (torch.float32, torch.float32)
    assert torch.equal(out, triplet(kind)(x, labels))
    assert torch.equal(direct, triplet(kind)(x.bfloat16(), labels, margin=0.3))


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_half_precision_has_its_type(kind: str) -> None:
    x = torch.randn(6, 16, dtype=torch.float16, requires_grad=True)
    triplet(kind)(x, torch.arange(6) // 2).backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.float16


@pytest.mark.parametrize("kind", KINDS)
def test_second_derivative_is_refused(kind: str) -> None:
    x = torch.randn(6, 4, requires_grad=True)
    (grad,) = torch.autograd.grad(triplet(kind)(x, torch.arange(6) // 2), x, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        grad.sum().backward()


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_no_host_synchronisation(kind: str) -> None:
    x, labels = torch.randn(72, 256, device="cuda", requires_grad=True), torch.arange(72, device="cuda").int() // 4
    torch.autograd.grad(triplet(kind)(x, labels), x)
    torch.cuda.set_sync_debug_mode("error")
    try:
        torch.autograd.grad(triplet(kind)(x, labels), x)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("module", [ops, reference])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("x", "labels", "options", "error", "match"),
    [
        ([[1.0]], torch.zeros(1, dtype=torch.int64), {}, TypeError, "embeddings: expected a torch.Tensor"),
        (torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2).int(), {}, TypeError, "embeddings: expected float16"),
        (torch.zeros(2), torch.zeros(2).int(), {}, ValueError, "embeddings: expected a 2-D tensor"),
        (torch.zeros(2, 3), [0, 1], {}, TypeError, "labels: expected a torch.Tensor"),
        (torch.zeros(2, 3), torch.zeros(2), {}, TypeError, "labels: expected integers"),
        (torch.zeros(2, 3), torch.zeros(3).int(), {}, ValueError, r"labels: expected shape \(2,\)"),
        (torch.zeros(2, 3), torch.zeros(2, 1).int(), {}, ValueError, r"labels: expected shape \(2,\)"),
        (torch.zeros(2, 3), torch.zeros(2).int(), {"margin": "soft"}, TypeError, "margin: expected a number"),
        (torch.zeros(2, 3), torch.zeros(2).int(), {"margin": math.nan}, ValueError, "margin: expected a finite"),
        (torch.zeros(2, 3), torch.zeros(2).int(), {"reduction": "max"}, ValueError, "reduction: expected one of"),
    ],
)
def test_bad_input(
    x: object, labels: object, options: dict[str, object], error: type[Exception], match: str, kind: str, module: object
) -> None:
    with pytest.raises(error, match=match):
        triplet(kind, module)(x, labels, **options)
