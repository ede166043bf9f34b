from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pyreid import ops
from pyreid.ops import reference
from python_tests.ops.checks import DEVICES, ROUNDOFF, gradients, tolerance

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
# positions below, at and above the widths of the vectors and of a warp, odd ones, and enough for a block of threads
SHAPES = [(2, 3, 1, 1), (2, 5, 7, 7), (3, 16, 8, 16), (2, 36, 11, 11), (1, 2, 35, 33), (2, 40, 49)]


def computed_in(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def maps(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, channels_last: bool = False) -> list[Tensor]:
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return [torch.randn(shape).to(dtype).contiguous(memory_format=memory_format) for _ in range(3)]


def layouts(shape: tuple[int, ...]) -> list[bool]:
    return [False, True] if len(shape) == 4 else [False]


def naive(local: Tensor, x: Tensor, identity: Tensor, mask: Tensor) -> Tensor:
    """The formula by loops over Python floats."""
    out = torch.zeros(x.shape, dtype=torch.float64)
    for n, c in itertools.product(range(x.shape[0]), range(x.shape[1])):
        m = float(mask[c] if mask.dim() == 1 else mask[n, c])
        rows = (t[n, c].double().flatten().tolist() for t in (local, x, identity))
        values = [m * l + (1 - m) * max(a + b, 0.0) for l, a, b in zip(*rows, strict=True)]  # noqa: E741
        out[n, c] = torch.tensor(values, dtype=torch.float64).view(x.shape[2:])
    return out


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_loops(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> None:
    for channels_last, mask_shape in itertools.product(layouts(shape), (shape[1:2], shape[:2])):
        inputs = maps(shape, dtype, channels_last)
        mask = torch.rand(mask_shape)
        out = ops.masked_mix(*(t.to(device) for t in inputs), mask.to(device))
        assert out.dtype == dtype
        assert out.stride() == inputs[1].stride()
        # a few roundoffs of terms of size up to 10, and the rounding to half
        allowed = tolerance(computed_in(dtype)) + (ROUNDOFF[dtype] if dtype != computed_in(dtype) else 0)
        torch.testing.assert_close(out.double().cpu(), naive(*inputs, mask), rtol=allowed, atol=allowed)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_equal_reference(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> None:
    for channels_last, mask_shape in itertools.product(layouts(shape), (shape[1:2], shape[:2])):
        inputs = maps(shape, dtype, channels_last)
        mask = torch.rand(mask_shape, dtype=computed_in(dtype))
        ours = gradients(ops.masked_mix, *(t.to(device) for t in (*inputs, mask)))
        expected = gradients(reference.masked_mix, *(t.double() for t in (*inputs, mask)))
        half = ROUNDOFF[dtype] if dtype != computed_in(dtype) else 0
        for a, b in zip(ours[:3], expected[:3], strict=True):
            assert a.dtype == dtype
            assert a.stride() == inputs[1].stride()
            # one rounding of the incoming gradient and one of the result for half types
            allowed = tolerance(computed_in(dtype)) + 2.5 * half
            torch.testing.assert_close(a.double().cpu(), b, rtol=allowed, atol=allowed)
        # a sum over positions, and over samples for a mask (C,); terms are at most about 5
        terms = inputs[0].numel() / mask.numel()
        allowed = 5 * terms * (tolerance(computed_in(dtype)) + half)
        torch.testing.assert_close(ours[3].double().cpu(), expected[3], rtol=0, atol=allowed)
        assert ours[3].dtype == mask.dtype


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_mask_of_zero_or_one_is_exact(channels_last: bool, dtype: torch.dtype, device: str) -> None:
    local, x, identity = (t.to(device) for t in maps((3, 21, 9, 5), dtype, channels_last))
    plain = F.relu(x + identity)
    for shape in ((21,), (3, 21)):
        assert torch.equal(ops.masked_mix(local, x, identity, torch.zeros(shape, device=device)), plain)
        assert torch.equal(ops.masked_mix(local, x, identity, torch.ones(shape, device=device)), local)
    mask = (torch.rand(3, 21, device=device) > 0.5).float()
    expected = torch.where(mask[..., None, None] == 1, local, plain)
    assert torch.equal(ops.masked_mix(local, x, identity, mask), expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mask_dtype", DTYPES)
def test_dtypes_promote_as_in_torch(mask_dtype: torch.dtype, device: str) -> None:
    for dtypes in itertools.product(DTYPES, repeat=3):
        inputs = [t.to(device, d).requires_grad_() for t, d in zip(maps((2, 3, 2, 2)), dtypes, strict=True)]
        mask = torch.rand(3, device=device).to(mask_dtype).requires_grad_()
        out = ops.masked_mix(*inputs, mask)
        expected = inputs[0] + (inputs[1] + inputs[2])
        assert out.dtype == expected.dtype
        assert reference.masked_mix(*inputs, mask).dtype == expected.dtype
        grads = torch.autograd.grad(out.sum(), (*inputs, mask))
        assert [g.dtype for g in grads] == [*dtypes, mask_dtype]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("mask_shape", [(3,), (2, 3)])
def test_gradcheck(mask_shape: tuple[int, ...], channels_last: bool) -> None:
    inputs = maps((2, 3, 4, 2), torch.float64, channels_last)
    mask = torch.rand(mask_shape, dtype=torch.float64)
    assert torch.autograd.gradcheck(ops.masked_mix, [t.requires_grad_() for t in (*inputs, mask)])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_only_wanted_gradients_are_computed(channels_last: bool, device: str) -> None:
    inputs = [t.to(device) for t in (*maps((2, 9, 7, 11), channels_last=channels_last), torch.rand(2, 9))]
    everything = gradients(ops.masked_mix, *inputs)
    for wanted in itertools.product([False, True], repeat=4):
        if not any(wanted):
            continue
        leaves = [t.clone().requires_grad_(w) for t, w in zip(inputs, wanted, strict=True)]
        out = ops.masked_mix(*leaves)
        weight = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).cos().view(out.shape).to(out)
        (out * weight).sum().backward()
        for leaf, expected, w in zip(leaves, everything, wanted, strict=True):
            assert torch.equal(leaf.grad, expected) if w else leaf.grad is None


@pytest.mark.parametrize("device", DEVICES)
def test_gradients_of_x_and_identity_are_safe_to_accumulate(device: str) -> None:
    """They are one tensor: what autograd or the caller adds to one must not show in the other."""
    local, x, identity = (t.to(device).requires_grad_() for t in maps((2, 4, 5, 3)))
    mask = torch.rand(4, device=device)
    (expected,) = torch.autograd.grad(ops.masked_mix(local, x, identity, mask).sum(), x)
    for _ in range(2):
        ops.masked_mix(local, x, identity, mask).sum().backward()
    assert torch.equal(x.grad, 2 * expected)
    assert torch.equal(identity.grad, 2 * expected)
    x.grad.zero_()
    assert torch.equal(identity.grad, 2 * expected)
    # one tensor on both sides, and a side with a second use
    twice = x.detach().clone().requires_grad_()
    ours = torch.autograd.grad((ops.masked_mix(local, twice, twice, mask) + 3 * twice).sum(), twice)
    theirs = torch.autograd.grad((reference.masked_mix(local, twice, twice, mask) + 3 * twice).sum(), twice)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_nan_and_infinity(channels_last: bool, dtype: torch.dtype, device: str) -> None:
    """As in the formula, with the ReLU's rule that NaN and its gradient pass."""
    for shape in ((1, 8, 5, 1), (1, 8, 40, 1), (1, 8, 1100, 1)):
        local, x, identity = maps(shape, dtype, channels_last)
        last = shape[2] - 1
        local[0, 0, 0], x[0, 1, last], identity[0, 2, 1] = torch.nan, torch.nan, torch.nan
        x[0, 3, 1], local[0, 4, last] = torch.inf, torch.inf
        x[0, 5, 0] = -torch.inf
        for values in ([0.25] * 8, [0.0, 1.0] * 4, [1.0, 0.0] * 4):
            inputs = [t.to(device).requires_grad_() for t in (local, x, identity, torch.tensor(values))]
            ours, theirs = ops.masked_mix(*inputs), reference.masked_mix(*inputs)
            torch.testing.assert_close(ours, theirs, equal_nan=True)
            grad = torch.ones_like(ours)
            for a, b in zip(
                torch.autograd.grad(ours, inputs, grad), torch.autograd.grad(theirs, inputs, grad), strict=True
            ):
                assert torch.equal(a.isfinite(), b.isfinite())
                # up to 1100 terms of the mask's gradient, each a few units
                allowed = tolerance(torch.float32, 2000.0 if a.dim() == 1 else 1.0) + 2.5 * ROUNDOFF[dtype]
                torch.testing.assert_close(a, b, rtol=allowed, atol=allowed, equal_nan=True)


@pytest.mark.parametrize("device", DEVICES)
def test_no_gradient_at_zero(device: str) -> None:
    x = torch.tensor([-1.0, 0.0, -0.0, 1.0, 2.0**-149], device=device).view(1, 1, 5).requires_grad_()
    identity = torch.zeros(1, 1, 5, device=device)
    (dx,) = torch.autograd.grad(ops.masked_mix(identity, x, identity, identity[0, 0, :1]).sum(), x)
    assert dx.flatten().tolist() == [0.0, 0.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize("device", DEVICES)
def test_large_values_do_not_overflow_half(device: str) -> None:
    x = torch.full((1, 2, 3), 60000.0, dtype=torch.float16, device=device)
    out = ops.masked_mix(x, x, x, torch.tensor([1.0, 0.5], device=device))
    assert torch.equal(out[0, 0], x[0, 0])
    assert torch.equal(ops.masked_mix(x, x / 2, x / 2, torch.tensor([0.0, 0.5], device=device)), x)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("mask_shape", [(4,), (3, 4)])
def test_opcheck(mask_shape: tuple[int, ...], channels_last: bool, dtype: torch.dtype, device: str) -> None:
    inputs = [t.to(device) for t in (*maps((3, 4, 5, 3), dtype, channels_last), torch.rand(mask_shape))]
    torch.library.opcheck(torch.ops.pyreid.masked_mix, ([t.requires_grad_() for t in inputs] + [channels_last]))
    detached = [t.detach() for t in inputs]
    for wanted in ((True, True, True), (False, True, False), (True, False, True)):
        arguments = (detached[0] + 1, *detached, channels_last, *wanted)
        torch.library.opcheck(torch.ops.pyreid.masked_mix_backward, arguments)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_compiles_without_graph_breaks(channels_last: bool, device: str) -> None:
    inputs = [t.to(device) for t in (*maps((2, 4, 3, 5), torch.bfloat16, channels_last), torch.rand(2, 4))]
    inputs = [t.requires_grad_() for t in inputs]
    torch._dynamo.reset()
    compiled = torch.compile(lambda *a: ops.masked_mix(*a), fullgraph=True, backend="aot_eager")
    out = compiled(*inputs)
    assert out.stride() == inputs[1].stride()
    ours = torch.autograd.grad(out.sum(), inputs)
    expected = torch.autograd.grad(ops.masked_mix(*inputs).sum(), inputs)
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(0, 4, 3, 3), (4, 0, 3, 3), (2, 3, 0, 5), (0, 0, 2)])
def test_empty(shape: tuple[int, ...], device: str) -> None:
    for mask_shape in (shape[1:2], shape[:2]):
        inputs = [t.to(device).requires_grad_() for t in (*maps(shape), torch.rand(mask_shape))]
        out = ops.masked_mix(*inputs)
        assert out.shape == shape
        *grads, dmask = torch.autograd.grad(out.sum(), inputs)
        assert all(g.shape == shape for g in grads)
        assert torch.equal(dmask, torch.zeros_like(dmask))


@pytest.mark.parametrize("device", DEVICES)
def test_strides_do_not_matter(device: str) -> None:
    def strided(kind: str) -> Tensor:
        x = torch.randn(4, 6, 8, 10, device=device)
        if kind == "channels last":
            return x.contiguous(memory_format=torch.channels_last)
        if kind == "expanded":
            return x[:1, :, :, :1].expand(4, 6, 8, 10)
        if kind == "transposed":
            return torch.randn(4, 6, 10, 8, device=device).transpose(2, 3)
        if kind == "odd offset":
            return torch.randn(4 * 6 * 8 * 10 + 1, device=device)[1:].view(4, 6, 8, 10)
        return x

    mask = torch.rand(6, 4, device=device).T
    kinds = ["dense", "channels last", "expanded", "transposed", "odd offset"]
    for kind_of_local, kind_of_x, kind_of_identity in itertools.product(kinds, repeat=3):
        inputs = [strided(kind) for kind in (kind_of_local, kind_of_x, kind_of_identity)]
        out = ops.masked_mix(*inputs, mask)
        memory_format = torch.channels_last if kind_of_x == "channels last" else torch.contiguous_format
        assert out.is_contiguous(memory_format=memory_format)
        dense = [t.clone(memory_format=memory_format) for t in inputs]
        ours = [out, *gradients(ops.masked_mix, *inputs, mask)]
        expected = [ops.masked_mix(*dense, mask.contiguous()), *gradients(ops.masked_mix, *dense, mask.contiguous())]
        assert all(torch.equal(a, b) for a, b in zip(ours[:4], expected[:4], strict=True))
        # packs begin elsewhere at an odd address, and with them the order of the sum
        torch.testing.assert_close(ours[4], expected[4], rtol=0, atol=tolerance(torch.float32, 80.0))


@pytest.mark.parametrize("device", DEVICES)
def test_layout_changes_no_element(device: str) -> None:
    inputs = [t.to(device) for t in (*maps((3, 37, 9, 7)), torch.rand(3, 37))]
    last = [t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t for t in inputs]
    assert torch.equal(ops.masked_mix(*inputs), ops.masked_mix(*last))
    for a, b in list(zip(gradients(ops.masked_mix, *inputs), gradients(ops.masked_mix, *last), strict=True))[:3]:
        assert torch.equal(a, b)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("per_sample", [False, True])
def test_bits_repeat(per_sample: bool, channels_last: bool, device: str) -> None:
    shape = (9, 70, 13, 11)
    inputs = [t.to(device) for t in (*maps(shape, channels_last=channels_last), torch.rand(shape[not per_sample : 2]))]
    runs = [[ops.masked_mix(*inputs), *gradients(ops.masked_mix, *inputs)] for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("per_sample", [False, True])
def test_bits_do_not_depend_on_the_number_of_threads(per_sample: bool, channels_last: bool) -> None:
    shape = (9, 70, 13, 11)
    inputs = [*maps(shape, channels_last=channels_last), torch.rand(shape[not per_sample : 2])]
    threads, runs = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            runs.append([ops.masked_mix(*inputs), *gradients(ops.masked_mix, *inputs)])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(runs[0], run, strict=True))


@pytest.mark.parametrize("isa", ["baseline", "avx2"])
def test_on_lesser_instruction_sets(isa: str) -> None:
    chosen = "equals_loops or equal_reference or exact or nan_and or layout_changes"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__, "-k", chosen],
        env={**os.environ, "PYREID_CPU_ISA": isa},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("device", DEVICES)
def test_keeps_only_its_inputs(device: str) -> None:
    inputs = [t.to(device).requires_grad_() for t in (*maps((2, 3, 4, 4)), torch.rand(3))]
    kept: list[Tensor] = []

    def remember(t: Tensor) -> Tensor:
        kept.append(t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda t: t):
        ops.masked_mix(*inputs)
    assert {t.data_ptr() for t in kept} == {t.data_ptr() for t in inputs}


def test_autocast_changes_nothing() -> None:
    inputs = [*maps((2, 3, 4, 4), torch.bfloat16), torch.rand(3)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, twin = ops.masked_mix(*inputs), reference.masked_mix(*inputs)
    assert ours.dtype == twin.dtype == torch.bfloat16
    assert torch.equal(ours, ops.masked_mix(*inputs))


def test_second_derivative_is_refused() -> None:
    inputs = [t.requires_grad_() for t in (*maps((2, 3, 4, 4)), torch.rand(3))]
    grads = torch.autograd.grad(ops.masked_mix(*inputs).sum(), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        grads[0].sum().backward()


IMAGE, MASK = torch.zeros(2, 3, 4, 4), torch.zeros(3)


@pytest.mark.parametrize("function", [ops.masked_mix, reference.masked_mix])
@pytest.mark.parametrize(
    ("local", "x", "identity", "mask", "error", "match"),
    [
        ([[1.0]], IMAGE, IMAGE, MASK, TypeError, "local: expected a torch.Tensor"),
        (IMAGE, IMAGE.long(), IMAGE, MASK, TypeError, "x: expected float16"),
        (IMAGE, IMAGE[0, 0], IMAGE, MASK, ValueError, "x: expected a 3-D or 4-D tensor"),
        (IMAGE, IMAGE, IMAGE[0], MASK, ValueError, "identity: expected a 4-D tensor"),
        (IMAGE[:, :, 1:], IMAGE, IMAGE, MASK, ValueError, r"local: expected shape \(2, 3, 4, 4\) to match x, got"),
        (IMAGE, IMAGE, IMAGE.to("meta"), MASK, ValueError, "identity: on meta, but x is on cpu"),
        (IMAGE, IMAGE, IMAGE, MASK.bool(), TypeError, "mask: expected float16"),
        (IMAGE, IMAGE, IMAGE, MASK[:2], ValueError, r"mask: expected shape \(3,\) or \(2, 3\) to match x, got \(2,\)"),
        (IMAGE, IMAGE, IMAGE, torch.zeros(3, 2), ValueError, r"mask: expected shape .*, got \(3, 2\)"),
        (IMAGE, IMAGE, IMAGE, MASK.to("meta"), ValueError, "mask: on meta, but x is on cpu"),
    ],
)
def test_bad_input(
    function: object, local: object, x: object, identity: object, mask: object, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        function(local, x, identity, mask)  # type: ignore[operator]
