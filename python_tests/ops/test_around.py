"""What programs do around operators: autocast over the backward pass, checkpoints, threads, direct calls."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pyreid import ops
from pyreid.layers import DBAM
from python_tests.ops.device_cases import CASES, Case, evaluate, results

# The last case of each operator, which is no small one. Full convolutions are torch's, and autocast's.
ONE_EACH = list({c.name.split()[0]: c for c in CASES if not c.name.endswith("full")}.values())


def test_no_operator_is_left_out() -> None:
    assert {c.name.split()[0] for c in ONE_EACH} == {*ops.__all__} - {"reference"}


ALL = pytest.mark.parametrize("case", ONE_EACH, ids=str)


def leaves(case: Case) -> list[Tensor]:
    return [t.requires_grad_() if t.is_floating_point() else t for t in case.inputs(torch.float32)]


@ALL
def test_backward_inside_autocast(case: Case) -> None:
    expected = results(case, case.inputs(torch.float32))
    for _ in range(5):  # wrong sizes of buffers need not show at once
        with torch.autocast("cpu", torch.bfloat16):
            got = evaluate(case, leaves(case))
        assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@ALL
def test_checkpoint_computes_the_inputs_again(case: Case) -> None:
    def run(*inputs: Tensor) -> Tensor:
        outputs = case.run(*(torch.sin(t) if t.is_floating_point() else t for t in inputs))
        return sum(o.sum() for o in ((outputs,) if isinstance(outputs, Tensor) else outputs) if o.requires_grad)

    inputs = leaves(case)
    wanted = [t for t in inputs if t.requires_grad]
    expected = torch.autograd.grad(run(*inputs), wanted)
    got = torch.autograd.grad(checkpoint(run, *inputs, use_reentrant=False), wanted)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("conv", ["depthwise", "full"])
def test_checkpoint_of_a_layer(conv: str) -> None:
    layer, x = DBAM(16, conv=conv), torch.randn(2, 16, 6, 5, requires_grad=True)  # type: ignore[arg-type]
    expected = torch.autograd.grad(layer(x, x).sum(), x)[0]
    assert torch.equal(torch.autograd.grad(checkpoint(layer, x, x, use_reentrant=False).sum(), x)[0], expected)


def test_threads_leave_the_precision_as_it_was() -> None:
    settings = torch.backends.mkldnn.matmul
    before, settings.fp32_precision = settings.fp32_precision, "bf16"
    query, gallery = torch.randn(8, 16), torch.randn(64, 16)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: ops.nearest_neighbors(query, gallery, 3), range(300)))
        after = settings.fp32_precision
    finally:
        sys.setswitchinterval(interval)
        settings.fp32_precision = before
    assert after == "bf16"


@pytest.mark.parametrize("kind", ["hard", "soft"])
@pytest.mark.parametrize("shape", [(1,), (6, 1), (5,)])
def test_gradients_of_another_shape_are_refused(kind: str, shape: tuple[int, ...]) -> None:
    x, labels = torch.randn(6, 4), torch.arange(6) // 2
    _, *saved = getattr(torch.ops.pyreid, f"batch_{kind}_triplet")(x, labels, 0.3, "mean")
    with pytest.raises(RuntimeError, match="grad does not fit embeddings"):
        getattr(torch.ops.pyreid, f"batch_{kind}_triplet_backward")(torch.ones(shape), x, *saved)
