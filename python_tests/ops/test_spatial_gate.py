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
from python_tests.ops.checks import DEVICES, ROUNDOFF, assert_close, exact_convolutions, gradients, tolerance

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
# a pixel, a row and a column; planes and rows below and above the widths of vectors, warps and tiles
SHAPES = [(1, 1, 1, 1), (2, 3, 1, 7), (3, 2, 9, 1), (2, 19, 7, 7), (1, 17, 11, 11), (2, 3, 16, 8), (1, 2, 70, 33)]
SHAPES_WITH_LONG_SIDES = [*SHAPES, (1, 2, 3, 300), (1, 1, 300, 5), (1, 2, 60, 64)]


def computed_in(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def make_inputs(shape: tuple[int, int, int, int], dtype: torch.dtype, device: str = "cpu") -> tuple[Tensor, ...]:
    weights = (torch.rand(shape[1], 1, 3, 3, dtype=torch.float64) - 0.5 for _ in range(2))
    x = torch.randn(shape, dtype=torch.float64).to(dtype)
    return x.to(device), *(w.to(computed_in(dtype)).to(device) for w in weights)


def gradients_of(function: object, inputs: tuple[Tensor, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Gradients of fixed random projections, numbers of ``dtype``, of local, avg and max by each input."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    outputs = function(*leaves)  # type: ignore[operator]
    generator = torch.Generator().manual_seed(0)
    grads = [torch.randn(o.shape, generator=generator).to(dtype).to(o) for o in outputs]
    return list(torch.autograd.grad(outputs, leaves, grads))


def naive(x: Tensor, weight1: Tensor, weight2: Tensor, slope: float) -> tuple[Tensor, Tensor, Tensor]:
    """By loops over Python floats."""
    n, c, height, width = x.shape
    local = torch.zeros(x.shape, dtype=torch.float64)

    def convolve(plane: list[list[float]], kernel: list[list[float]]) -> list[list[float]]:
        taps = [(i, j) for i in range(3) for j in range(3)]
        return [
            [
                math.fsum(
                    kernel[i][j] * plane[row + i - 1][column + j - 1]
                    for i, j in taps
                    if 0 <= row + i - 1 < height and 0 <= column + j - 1 < width
                )
                for column in range(width)
            ]
            for row in range(height)
        ]

    for sample in range(n):
        for channel in range(c):
            hidden = convolve(x[sample, channel].double().tolist(), weight1[channel, 0].double().tolist())
            hidden = [[v if v > 0 else slope * v for v in row] for row in hidden]
            gate = convolve(hidden, weight2[channel, 0].double().tolist())
            sigmoid = torch.tensor([[1 / (1 + math.exp(-v)) for v in row] for row in gate], dtype=torch.float64)
            local[sample, channel] = (sigmoid * x[sample, channel].double()).clamp(min=0)
    return local, local.mean((2, 3)), local.amax((2, 3))


def assert_near(actual: Tensor, expected: Tensor, dtype: torch.dtype, scale: float = 1.0) -> None:
    """The error of a few dozen operations in the computing dtype, and the rounding of a half result."""
    half = ROUNDOFF[dtype] if dtype != computed_in(dtype) else 0.0
    absolute = tolerance(computed_in(dtype), scale)
    torch.testing.assert_close(actual.double().cpu(), expected.double().cpu(), rtol=half, atol=absolute + half * 1e-3)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("slope", [0.01, -0.5, 0.0])
def test_equals_loops(slope: float, dtype: torch.dtype, device: str) -> None:
    for shape in SHAPES:
        x, weight1, weight2 = make_inputs(shape, dtype, device)
        out = ops.spatial_gate(x, weight1, weight2, negative_slope=slope)
        for name, a, b in zip(
            ("local", "avg", "max"), out, naive(x.cpu(), weight1.cpu(), weight2.cpu(), slope), strict=True
        ):
            assert a.dtype == dtype, name
            # |a| is at most (9/2)^2 max|x|, and so is what its rounding errors are relative to
            assert_near(a, b, dtype, scale=8.0)
        assert torch.equal(out[2], out[0].amax((2, 3)))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("slope", [0.01, -0.5, 0.0])
def test_gradients_equal_reference(slope: float, dtype: torch.dtype, device: str) -> None:
    for shape in SHAPES_WITH_LONG_SIDES:
        inputs = make_inputs(shape, dtype, device)
        ours = gradients_of(lambda *a: ops.spatial_gate(*a, negative_slope=slope), inputs)
        doubles = tuple(a.cpu().double() for a in inputs)
        expected = gradients_of(lambda *a: reference.spatial_gate(*a, negative_slope=slope), doubles, dtype)
        for a, like in zip(ours, inputs, strict=True):
            assert (a.dtype, a.shape) == (like.dtype, like.shape)
        assert_near(ours[0], expected[0], dtype, scale=16.0)
        # a weight's gradient sums a product for each pixel; errors add up as their square root
        for a, b in zip(ours[1:], expected[1:], strict=True):
            scale = 4 * math.sqrt(shape[0] * shape[2] * shape[3])
            torch.testing.assert_close(a.double().cpu(), b, rtol=0, atol=tolerance(computed_in(dtype), scale))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("weight_dtype", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_of_another_dtype(dtype: torch.dtype, weight_dtype: torch.dtype, device: str) -> None:
    x, *weights = make_inputs((2, 5, 6, 4), dtype, device)
    weight1, weight2 = (w.to(weight_dtype) for w in weights)
    out = ops.spatial_gate(x, weight1, weight2)
    cast = (x, weight1.to(computed_in(dtype)), weight2.to(computed_in(dtype)))
    assert all(torch.equal(a, b) for a, b in zip(out, ops.spatial_gate(*cast), strict=True))
    ours, expected = gradients_of(ops.spatial_gate, (x, weight1, weight2)), gradients_of(ops.spatial_gate, cast)
    assert [g.dtype for g in ours] == [dtype, weight_dtype, weight_dtype]
    assert all(torch.equal(a, b.to(a.dtype)) for a, b in zip(ours, expected, strict=True))
    twin = gradients_of(reference.spatial_gate, (x, weight1, weight2))
    assert [g.dtype for g in twin] == [dtype, weight_dtype, weight_dtype]


def test_gradcheck() -> None:
    for shape in ((2, 3, 4, 5), (1, 2, 1, 6), (1, 9, 3, 3)):
        inputs = tuple(a.requires_grad_() for a in make_inputs(shape, torch.float64))
        assert torch.autograd.gradcheck(lambda *a: ops.spatial_gate(*a, negative_slope=0.2), inputs)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("used", [(0,), (1,), (2,), (0, 1), (1, 2)])
def test_outputs_may_be_unused(used: tuple[int, ...], device: str) -> None:
    inputs = tuple(a.requires_grad_() for a in make_inputs((2, 19, 9, 6), torch.float64, device))
    ours, expected = (
        torch.autograd.grad(sum(f(*inputs)[i].square().sum() for i in used), inputs)
        for f in (ops.spatial_gate, reference.spatial_gate)
    )
    for a, b in zip(ours, expected, strict=True):
        assert_close(a, b, torch.float64, scale=100.0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("needed", [(0,), (1,), (2,), (1, 2), (0, 2)])
def test_inputs_may_be_frozen(needed: tuple[int, ...], device: str) -> None:
    inputs = make_inputs((2, 3, 9, 6), torch.float32, device)
    every = gradients_of(ops.spatial_gate, inputs)
    leaves = [a.clone().requires_grad_(i in needed) for i, a in enumerate(inputs)]
    outputs = ops.spatial_gate(*leaves)
    generator = torch.Generator().manual_seed(0)
    grads = [torch.randn(o.shape, generator=generator).to(o) for o in outputs]
    some = torch.autograd.grad(outputs, [leaves[i] for i in needed], grads)
    assert all(torch.equal(a, every[i]) for a, i in zip(some, needed, strict=True))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_opcheck(dtype: torch.dtype, device: str) -> None:
    x, weight1, weight2 = make_inputs((2, 3, 5, 4), dtype, device)
    leaves = tuple(a.clone().requires_grad_() for a in (x, weight1, weight2))
    torch.library.opcheck(torch.ops.pyreid.spatial_gate, (*leaves, 0.01))
    *outputs, argmax = torch.ops.pyreid.spatial_gate(x, weight1, weight2, 0.01)
    for absent in range(4):
        grads = [None if i == absent else o for i, o in enumerate(outputs)]
        for needs in ((True, True), (True, False), (False, True)):
            arguments = (*grads, x, weight1, weight2, argmax, 0.01, *needs)
            torch.library.opcheck(torch.ops.pyreid.spatial_gate_backward, arguments)


@pytest.mark.parametrize("device", DEVICES)
def test_compiles_without_graph_breaks(device: str) -> None:
    x, weight1, weight2 = make_inputs((2, 4, 5, 3), torch.bfloat16, device)

    def call(*inputs: Tensor) -> tuple[Tensor, ...]:
        return ops.spatial_gate(*inputs)

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    inputs = (x, weight1.bfloat16(), weight2)
    ours, expected = gradients_of(compiled, inputs), gradients_of(call, inputs)
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(compiled(*inputs), call(*inputs), strict=True))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_first_of_equal_maxima_gets_the_gradient(dtype: torch.dtype, device: str) -> None:
    for shape in ((2, 18, 6, 7), (1, 2, 65, 40), (1, 3, 4, 200)):
        n, c, height, width = shape
        x = torch.ones(shape, dtype=dtype, device=device)
        first = torch.randint(height * width, (n, c), device=device)
        later = torch.maximum(first, torch.randint(height * width, (n, c), device=device))
        x.flatten(2).scatter_(2, torch.stack([first, later], 2), 3.0)
        x.requires_grad_()
        zeros = torch.zeros(c, 1, 3, 3, device=device)  # every gate is 1/2
        _, _, largest = ops.spatial_gate(x, zeros, zeros)
        assert torch.equal(largest, torch.full_like(largest, 1.5))
        (dx,) = torch.autograd.grad(largest.sum(), x)
        expected = torch.zeros_like(x).flatten(2).scatter_(2, first[..., None], 0.5)
        assert torch.equal(dx.flatten(2), expected)


@pytest.mark.parametrize("device", DEVICES)
def test_derivatives_at_zero_as_in_torch(device: str) -> None:
    x = torch.zeros(1, 2, 5, 4, device=device).requires_grad_()
    weight1, weight2 = torch.ones(2, 1, 3, 3, device=device), torch.ones(2, 1, 3, 3, device=device)
    (dx,) = torch.autograd.grad(ops.spatial_gate(x, weight1, weight2)[0].sum(), x)
    assert torch.equal(dx, torch.zeros_like(dx))  # relu'(0) = 0
    # h = 0 wherever x is: the gradient that comes through a single positive pixel is scaled by the slope
    y = torch.zeros(1, 1, 1, 2, device=device, dtype=torch.float64)
    y[..., 0] = 1.0
    kernel = torch.zeros(1, 1, 3, 3, device=device, dtype=torch.float64)
    kernel[..., 1, 2] = 1.0  # h = (y_1, 0), both zero; a = (leaky(h_1), 0)
    for slope in (0.5, 0.0, 2.0):
        leaves = [y.clone().requires_grad_(), kernel.clone().requires_grad_(), kernel.clone().requires_grad_()]
        ours, expected = (
            torch.autograd.grad(f(*leaves, negative_slope=slope)[0].sum(), leaves)
            for f in (ops.spatial_gate, reference.spatial_gate)
        )
        for a, b in zip(ours, expected, strict=True):
            assert_close(a, b, torch.float64)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_propagates(dtype: torch.dtype, device: str) -> None:
    for shape in ((1, 20, 7, 5), (1, 3, 66, 34), (1, 3, 2, 300)):
        x, weight1, weight2 = make_inputs(shape, dtype, device)
        clean = ops.spatial_gate(x, weight1, weight2)
        x[0, 1, -1, -1] = torch.nan
        local, avg, largest = ops.spatial_gate(x, weight1, weight2)
        assert local[0, 1, -1, -1].isnan()
        assert avg[0, 1].isnan()
        assert largest[0, 1].isnan()
        others = [c for c in range(shape[1]) if c != 1]
        for a, b in zip((local, avg, largest), clean, strict=True):
            assert torch.equal(a[:, others], b[:, others])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_large_values_keep_the_gate_finite(dtype: torch.dtype, device: str) -> None:
    for sign in (1.0, -1.0):
        x = torch.full((1, 2, 4, 4), 100.0, dtype=dtype, device=device).requires_grad_()
        weight1 = torch.full((2, 1, 3, 3), 10.0, device=device, dtype=computed_in(dtype))
        out = ops.spatial_gate(x, weight1, sign * weight1)
        expected = x if sign > 0 else torch.zeros_like(x)
        assert torch.equal(out[0], expected)
        (dx,) = torch.autograd.grad(sum(o.sum() for o in out), x)
        assert torch.isfinite(dx).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_is_the_rounded_float_result(dtype: torch.dtype, device: str) -> None:
    for shape in SHAPES_WITH_LONG_SIDES:
        inputs = make_inputs(shape, dtype, device)
        wide = (inputs[0].float(), *inputs[1:])
        for a, b in zip(ops.spatial_gate(*inputs), ops.spatial_gate(*wide), strict=True):
            assert torch.equal(a, b.to(dtype))
        ours, expected = (gradients_of(ops.spatial_gate, i, dtype) for i in (inputs, wide))
        for a, b in zip(ours, expected, strict=True):
            assert torch.equal(a, b.to(a.dtype))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(0, 4, 3, 3), (4, 0, 3, 3), (0, 0, 2, 2)])
def test_empty(shape: tuple[int, int, int, int], device: str) -> None:
    inputs = tuple(a.requires_grad_() for a in make_inputs(shape, torch.float32, device))
    local, avg, largest = ops.spatial_gate(*inputs)
    assert (local.shape, avg.shape, largest.shape) == (shape, shape[:2], shape[:2])
    for a, b in zip(torch.autograd.grad(local.sum() + avg.sum() + largest.sum(), inputs), inputs, strict=True):
        assert torch.equal(a, torch.zeros_like(b))


@pytest.mark.parametrize("device", DEVICES)
def test_strides_do_not_matter(device: str) -> None:
    x, weight1, weight2 = make_inputs((4, 6, 8, 10), torch.float32, device)
    for strided in (x.contiguous(memory_format=torch.channels_last), x.transpose(2, 3), x[:, ::2, 1:, ::3], x[:1] + 0):
        step = 6 // strided.shape[1]
        weights = (weight1[::step], weight2.transpose(2, 3)[::step])
        inputs = (strided, *weights)
        dense = tuple(a.contiguous() for a in inputs)
        ours = [*ops.spatial_gate(*inputs), *gradients_of(ops.spatial_gate, inputs)]
        expected = [*ops.spatial_gate(*dense), *gradients_of(ops.spatial_gate, dense)]
        assert ours[0].is_contiguous()
        assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))
    # gradients that come in with strides, as those of a sum or of a channels-last layer do
    leaf = x.clone().requires_grad_()
    grad = torch.randn(4, 6, 8, 10, device=device)
    runs = [
        torch.autograd.grad(ops.spatial_gate(leaf, weight1, weight2)[0], leaf, g)[0]
        for g in (grad, grad.contiguous(memory_format=torch.channels_last))
    ]
    assert torch.equal(*runs)


@pytest.mark.parametrize("device", DEVICES)
def test_bits_repeat(device: str) -> None:
    for shape in ((5, 37, 13, 11), (2, 7, 66, 70)):
        inputs = make_inputs(shape, torch.float32, device)
        runs = [[*ops.spatial_gate(*inputs), *gradients_of(ops.spatial_gate, inputs)] for _ in range(2)]
        assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    inputs = make_inputs((5, 137, 23, 21), torch.float32)
    threads, runs = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            runs.append([*ops.spatial_gate(*inputs), *gradients_of(ops.spatial_gate, inputs)])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(runs[0], run, strict=True))


@pytest.mark.parametrize("isa", ["baseline", "avx2"])
def test_on_lesser_instruction_sets(isa: str) -> None:
    chosen = "equals_loops or equals_reference or equal_maxima or nan_prop or rounded"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__, "-k", chosen],
        env={**os.environ, "PYREID_CPU_ISA": isa},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_autocast_changes_nothing(dtype: torch.dtype, device: str) -> None:
    inputs = make_inputs((2, 8, 6, 6), dtype, device)
    for function in (ops.spatial_gate, reference.spatial_gate):
        expected = [*function(*inputs), *gradients_of(function, inputs)]
        with torch.autocast(device, dtype=torch.bfloat16):
            ours = [*function(*inputs), *gradients_of(function, inputs)]
        assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))
        assert ours[0].dtype == dtype


def test_second_derivative_is_refused() -> None:
    x, weight1, weight2 = make_inputs((2, 3, 4, 4), torch.float32)
    x.requires_grad_()
    (grad,) = torch.autograd.grad(ops.spatial_gate(x, weight1, weight2)[0].sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        grad.sum().backward()


IMAGE, WEIGHT = torch.zeros(2, 3, 4, 4), torch.zeros(3, 1, 3, 3)


@pytest.mark.parametrize("function", [ops.spatial_gate, reference.spatial_gate])
@pytest.mark.parametrize(
    ("x", "weight1", "weight2", "slope", "error", "match"),
    [
        ([[1.0]], WEIGHT, WEIGHT, 0.01, TypeError, "x: expected a torch.Tensor, got list"),
        (IMAGE.long(), WEIGHT, WEIGHT, 0.01, TypeError, "x: expected float16.*got torch.int64"),
        (IMAGE[0], WEIGHT, WEIGHT, 0.01, ValueError, r"x: expected a 4-D tensor, got shape \(3, 4, 4\)"),
        (IMAGE[:, :, :0], WEIGHT, WEIGHT, 0.01, ValueError, r"x: expected at least one pixel.*\(2, 3, 0, 4\)"),
        (torch.zeros(1, 3, 1, 1).expand(1, 3, 2**16, 2**15), WEIGHT, WEIGHT, 0.01, ValueError, r"less than 2\^31"),
        (IMAGE, None, WEIGHT, 0.01, TypeError, "weight1: expected a torch.Tensor, got NoneType"),
        (IMAGE, WEIGHT, WEIGHT.int(), 0.01, TypeError, "weight2: expected float16.*got torch.int32"),
        (IMAGE, WEIGHT[:, 0], WEIGHT, 0.01, ValueError, r"weight1: expected a 4-D tensor, got shape \(3, 3, 3\)"),
        (IMAGE, WEIGHT, WEIGHT[:2], 0.01, ValueError, r"weight2: expected shape \(3, 1, 3, 3\).*got \(2, 1, 3, 3\)"),
        (
            IMAGE,
            torch.zeros(3, 3, 3, 3),
            WEIGHT,
            0.01,
            ValueError,
            r"weight2: expected shape .*as weight1",
        ),
        (IMAGE, torch.zeros(3, 2, 3, 3), WEIGHT, 0.01, ValueError, r"weight1: expected .* \(3, 3, 3, 3\) for full"),
        (IMAGE, WEIGHT, torch.zeros(3, 1, 5, 5), 0.01, ValueError, r"weight2: expected shape \(3, 1, 3, 3\)"),
        (IMAGE, WEIGHT.to("meta"), WEIGHT, 0.01, ValueError, "weight1: on meta, but x is on cpu"),
        (IMAGE, WEIGHT, WEIGHT, "0.1", TypeError, "negative_slope: expected a number, got str"),
        (IMAGE, WEIGHT, WEIGHT, True, TypeError, "negative_slope: expected a number, got bool"),
        (IMAGE, WEIGHT, WEIGHT, math.nan, ValueError, "negative_slope: expected a finite number, got nan"),
        (IMAGE, WEIGHT, WEIGHT, math.inf, ValueError, "negative_slope: expected a finite number, got inf"),
    ],
)
def test_bad_input(
    function: object, x: object, weight1: object, weight2: object, slope: object, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        function(x, weight1, weight2, negative_slope=slope)  # type: ignore[operator]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@exact_convolutions()
def test_full_convolutions(dtype: torch.dtype, device: str) -> None:
    x, weight1, weight2 = torch.randn(2, 5, 6, 7), 0.2 * torch.randn(5, 5, 3, 3), 0.2 * torch.randn(5, 5, 3, 3)
    inputs = [t.to(device, dtype) for t in (x, weight1, weight2)]
    doubles = [t.double() for t in (x, weight1, weight2)]
    for ours, expected in zip(ops.spatial_gate(*inputs), reference.spatial_gate(*doubles), strict=True):
        assert_close(ours, expected, dtype, scale=16)
    for index in range(3):
        ours = gradients(lambda *t, index=index: ops.spatial_gate(*t)[index], *inputs)
        expected = gradients(lambda *t, index=index: reference.spatial_gate(*t)[index], *doubles)
        for a, b in zip(ours, expected, strict=True):
            assert_close(a, b, dtype, scale=64)


def test_full_convolutions_in_half_precision() -> None:
    x, weight = torch.randn(2, 5, 6, 7).bfloat16(), 0.2 * torch.randn(5, 5, 3, 3)
    weight.requires_grad_()
    local, avg, largest = ops.spatial_gate(x, weight, weight)
    assert {local.dtype, avg.dtype, largest.dtype} == {torch.bfloat16}
    (grad,) = torch.autograd.grad(local.float().sum(), weight)
    assert grad.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        mixed = ops.spatial_gate(x.float(), weight, weight)[0]
    assert mixed.dtype == torch.float32
    expected = reference.spatial_gate(x, weight, weight)[0]
    # the gate is rounded to bfloat16: a relative error of the sigmoid of up to |gate| roundoff
    for actual in (local, mixed):
        torch.testing.assert_close(actual.float(), expected.float(), rtol=0.1, atol=0.02)
