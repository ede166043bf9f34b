from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pyreid.ops import reference
from pyreid.ops.gate_and_pool import gate_and_pool
from python_tests.ops.checks import DEVICES, ROUNDOFF, tolerance

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
# positions below, at and above the widths of the vectors and of a warp, odd ones, and enough for a block of threads
SHAPES = [(2, 3, 1, 1), (2, 5, 7, 7), (3, 4, 8, 16), (2, 3, 11, 11), (1, 2, 35, 33), (2, 40, 49)]


def computed_in(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def half_roundoff(dtype: torch.dtype) -> float:
    return ROUNDOFF[dtype] if dtype != computed_in(dtype) else 0


def maps(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    return torch.randn(shape).to(dtype), (3 * torch.randn(shape)).to(dtype)


def naive(x: Tensor, gate: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Local features and their pools by loops over Python floats."""
    local = torch.zeros(x.shape, dtype=torch.float64)
    avg, largest = torch.zeros(2, *x.shape[:2], dtype=torch.float64)
    for n, c in itertools.product(range(x.shape[0]), range(x.shape[1])):
        pairs = zip(x[n, c].double().flatten().tolist(), gate[n, c].double().flatten().tolist(), strict=True)
        row = [max(v / (1 + math.exp(-g)), 0.0) for v, g in pairs]
        local[n, c] = torch.tensor(row, dtype=torch.float64).view(x.shape[2:])
        avg[n, c] = math.fsum(row) / len(row)
        largest[n, c] = max(row)
    return local, avg, largest


def gradients_of(
    function: Callable[..., tuple[Tensor, ...]], x: Tensor, gate: Tensor, used: tuple[int, ...] = (0, 1, 2)
) -> list[Tensor]:
    """Gradients of a fixed projection of the results with these numbers."""
    leaves = [t.detach().clone().requires_grad_() for t in (x, gate)]
    out = function(*leaves)
    total = 0
    for k in used:
        weight = torch.linspace(-1 + k, 1, out[k].numel(), dtype=torch.float64).cos().view(out[k].shape).to(out[k])
        total = total + (out[k] * weight).sum()
    return list(torch.autograd.grad(total, leaves))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_loops(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> None:
    inputs = maps(shape, dtype)
    for out, expected in zip(gate_and_pool(*(t.to(device) for t in inputs)), naive(*inputs), strict=True):
        assert out.dtype == dtype
        # relative to each value: a few roundoffs, about log2(n) of them for the average, and the rounding to half
        allowed = tolerance(computed_in(dtype)) + half_roundoff(dtype)
        smallest = 2.0**-24 if dtype == torch.float16 else 1e-37
        torch.testing.assert_close(out.double().cpu(), expected, rtol=allowed, atol=smallest)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("used", [(0, 1, 2), (0,), (1,), (2,), (0, 2), (1, 2)])
def test_gradients_equal_reference(used: tuple[int, ...], dtype: torch.dtype, device: str) -> None:
    for shape in SHAPES:
        inputs = maps(shape, dtype)
        ours = gradients_of(gate_and_pool, *(t.to(device) for t in inputs), used)
        expected = gradients_of(reference.gate_and_pool, *(t.double() for t in inputs), used)
        for a, b in zip(ours, expected, strict=True):
            assert a.dtype == dtype
            # half types round the three incoming gradients, the results that the projection weighs, and the outcome
            allowed = tolerance(computed_in(dtype)) + 4 * half_roundoff(dtype)
            torch.testing.assert_close(a.double().cpu(), b, rtol=allowed, atol=allowed)


@pytest.mark.parametrize("shape", [(2, 3, 4, 2), (2, 3, 1)])
def test_gradcheck(shape: tuple[int, ...]) -> None:
    inputs = [t.requires_grad_() for t in maps(shape, torch.float64)]
    assert torch.autograd.gradcheck(gate_and_pool, inputs)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_maximum_is_the_first_of_equals(dtype: torch.dtype, device: str) -> None:
    for length in (3, 17, 40, 1100):
        for first in (0, length // 2, length - 2):
            x = torch.full((1, 2, length), 0.25)
            x[0, 0, [first, length - 1]] = 2.0
            x[0, 1] = -x[0, 0]  # all gated to 0: the first place, which the ReLU closes
            leaves = [t.to(device, dtype).requires_grad_() for t in (x, torch.ones_like(x))]
            _, _, largest = gate_and_pool(*leaves)
            dx, dgate = torch.autograd.grad(largest.sum(), leaves)
            for grad in (dx, dgate):
                assert grad.nonzero().tolist() == [[0, 0, first]]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_propagates(dtype: torch.dtype, device: str) -> None:
    for length in (3, 17, 40, 1100):
        for place in (0, length // 2, length - 1):
            x, gate = maps((1, 3, length), dtype)
            x[0, 0, place] = torch.nan
            gate[0, 1, place] = torch.nan
            leaves = [t.to(device).requires_grad_() for t in (x, gate)]
            local, avg, largest = gate_and_pool(*leaves)
            assert local.isnan().nonzero().tolist() == [[0, 0, place], [0, 1, place]]
            assert avg.isnan().tolist() == largest.isnan().tolist() == [[True, True, False]]
            for a, b in zip(
                torch.autograd.grad(largest.sum(), leaves),
                torch.autograd.grad(reference.gate_and_pool(*leaves)[2].sum(), leaves),
                strict=True,
            ):
                assert torch.equal(a.isnan(), b.isnan())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_saturated_gates(dtype: torch.dtype, device: str) -> None:
    gate = torch.tensor([-30000.0, -torch.inf, 30000.0, torch.inf, -7.0], device=device).to(dtype).view(1, 1, 5)
    x = torch.full_like(gate, 2.0)
    leaves = [x.requires_grad_(), gate.requires_grad_()]
    local, _, _ = gate_and_pool(*leaves)
    dx, dgate = torch.autograd.grad(local.sum(), leaves)
    small = 1 / (1 + math.exp(7))
    allowed = tolerance(computed_in(dtype)) + half_roundoff(dtype)
    for actual, expected in (
        (local, [0, 0, 2, 2, 2 * small]),
        (dx, [0, 0, 1, 1, small]),
        (dgate, [0, 0, 0, 0, 2 * small * (1 - small)]),
    ):
        wanted = torch.tensor(expected, dtype=torch.float64)
        torch.testing.assert_close(actual.flatten().double().cpu(), wanted, rtol=allowed, atol=0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck(dtype: torch.dtype, device: str) -> None:
    x, gate = (t.to(device) for t in maps((3, 4, 5), dtype))
    torch.library.opcheck(torch.ops.pyreid.gate_and_pool, (x.clone().requires_grad_(), gate.clone().requires_grad_()))
    local, avg, largest, index = torch.ops.pyreid.gate_and_pool(x, gate)
    for given in ((local, avg, largest), (None, avg, None), (local, None, largest)):
        for wanted in ((True, True), (False, True), (True, False)):
            torch.library.opcheck(torch.ops.pyreid.gate_and_pool_backward, (*given, x, gate, index, *wanted))


@pytest.mark.parametrize("device", DEVICES)
def test_only_wanted_gradients_are_computed(device: str) -> None:
    x, gate = (t.to(device) for t in maps((2, 3, 7, 5)))
    dx, dgate = gradients_of(gate_and_pool, x, gate, (0,))
    weight = torch.linspace(-1, 1, x.numel(), dtype=torch.float64).cos().view(x.shape).to(x)
    for index, expected in enumerate((dx, dgate)):
        leaves = [t.clone().requires_grad_(k == index) for k, t in enumerate((x, gate))]
        (gate_and_pool(*leaves)[0] * weight).sum().backward()
        assert torch.equal(leaves[index].grad, expected)
        assert leaves[1 - index].grad is None


@pytest.mark.parametrize("device", DEVICES)
def test_compiles_without_graph_breaks(device: str) -> None:
    leaves = [t.to(device).requires_grad_() for t in maps((2, 4, 3, 5), torch.bfloat16)]

    def call(x: Tensor, gate: Tensor) -> Tensor:
        local, avg, largest = gate_and_pool(x, gate)
        return (local.sum() + avg.sum() + largest.sum()).float()

    torch._dynamo.reset()
    ours = torch.autograd.grad(torch.compile(call, fullgraph=True, backend="aot_eager")(*leaves), leaves)
    assert all(torch.equal(a, b) for a, b in zip(ours, torch.autograd.grad(call(*leaves), leaves), strict=True))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(0, 4, 3, 3), (4, 0, 3, 3), (0, 0, 2)])
def test_empty(shape: tuple[int, ...], device: str) -> None:
    leaves = [t.to(device).requires_grad_() for t in maps(shape)]
    local, avg, largest = gate_and_pool(*leaves)
    assert local.shape == shape
    assert avg.shape == largest.shape == shape[:2]
    grads = torch.autograd.grad(local.sum() + avg.sum() + largest.sum(), leaves)
    assert all(g.shape == shape for g in grads)


@pytest.mark.parametrize("device", DEVICES)
def test_strides_do_not_matter(device: str) -> None:
    def strided(t: Tensor) -> list[Tensor]:
        return [t, t.contiguous(memory_format=torch.channels_last), t.transpose(2, 3), t[:1].expand(4, 6, 9, 9)]

    x, gate = (t.to(device) for t in maps((4, 6, 9, 9)))
    for a, b in itertools.product(strided(x), strided(gate)):
        ours = [*gate_and_pool(a, b), *gradients_of(gate_and_pool, a, b)]
        dense = (a.clone(memory_format=torch.contiguous_format), b.clone(memory_format=torch.contiguous_format))
        expected = [*gate_and_pool(*dense), *gradients_of(gate_and_pool, *dense)]
        assert all(torch.equal(p, q) for p, q in zip(ours, expected, strict=True))


@pytest.mark.parametrize("device", DEVICES)
def test_bits_repeat(device: str) -> None:
    inputs = [t.to(device) for t in maps((9, 70, 13, 11))]
    runs = [[*gate_and_pool(*inputs), *gradients_of(gate_and_pool, *inputs)] for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    inputs = maps((9, 70, 13, 11))
    threads, runs = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            runs.append([*gate_and_pool(*inputs), *gradients_of(gate_and_pool, *inputs)])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(runs[0], run, strict=True))


@pytest.mark.parametrize("isa", ["baseline", "avx2"])
def test_on_lesser_instruction_sets(isa: str) -> None:
    chosen = "equals_loops or equal_reference or first_of or nan or saturated"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__, "-k", chosen],
        env={**os.environ, "PYREID_CPU_ISA": isa},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_dtypes_promote_as_in_torch() -> None:
    for dtypes in itertools.product(DTYPES, repeat=2):
        leaves = [t.to(d).requires_grad_() for t, d in zip(maps((2, 3, 2, 2)), dtypes, strict=True)]
        out = gate_and_pool(*leaves)
        assert {t.dtype for t in out} == {(leaves[0] * leaves[1]).dtype}
        assert [t.dtype for t in reference.gate_and_pool(*leaves)] == [t.dtype for t in out]
        assert tuple(t.dtype for t in torch.autograd.grad(out[0].sum(), leaves)) == dtypes


def test_second_derivative_is_refused() -> None:
    leaves = [t.requires_grad_() for t in maps((2, 3, 4))]
    grads = torch.autograd.grad(gate_and_pool(*leaves)[0].sum(), leaves, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        grads[0].sum().backward()


IMAGE = torch.zeros(2, 3, 4, 4)


@pytest.mark.parametrize("function", [gate_and_pool, reference.gate_and_pool])
@pytest.mark.parametrize(
    ("x", "gate", "error", "match"),
    [
        ([[1.0]], IMAGE, TypeError, "x: expected a torch.Tensor"),
        (IMAGE.long(), IMAGE, TypeError, "x: expected float16"),
        (IMAGE[0, 0], IMAGE, ValueError, "x: expected a 3-D or 4-D tensor"),
        (IMAGE[:, :, :0], IMAGE, ValueError, r"x: expected at least one position.*\(2, 3, 0, 4\)"),
        (IMAGE, IMAGE[:, :2], ValueError, r"gate: expected shape \(2, 3, 4, 4\) to match x, got \(2, 2, 4, 4\)"),
        (IMAGE, IMAGE.to("meta"), ValueError, "gate: on meta, but x is on cpu"),
    ],
)
def test_bad_input(function: object, x: object, gate: object, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        function(x, gate)  # type: ignore[operator]
