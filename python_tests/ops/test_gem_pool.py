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
from python_tests.ops.checks import DEVICES, ROUNDOFF, assert_close, gradients, tolerance

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
# below, at and above the widths of the vectors and of groups of threads, and long enough for a block of threads
LENGTHS = [1, 2, 5, 15, 16, 17, 33, 48, 49, 128, 576, 1100]


def computed_in(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def naive(x: Tensor, p: float | Tensor, eps: float = 1e-6) -> Tensor:
    """Pooling by loops over Python floats, scaled so that float64 suffices for every finite input."""
    n, c = x.shape[:2]
    exponents = p.double().expand(c).tolist() if isinstance(p, Tensor) else [p] * c
    out = torch.zeros(n, c, dtype=torch.float64)
    for i in range(n):
        for j, exponent in enumerate(exponents):
            row = [max(v, eps) for v in x[i, j].double().flatten().tolist()]
            largest = max(row)
            mean = math.fsum((v / largest) ** exponent for v in row) / len(row)
            out[i, j] = largest * mean ** (1 / exponent)
    return out


def assert_pools_to(out: Tensor, expected: Tensor, dtype: torch.dtype, p: float) -> None:
    """Relative error per value: a few log2(n) roundoffs of the mean, divided by p, and the rounding to half."""
    allowed = tolerance(computed_in(dtype), max(1.0, 1 / p)) + (ROUNDOFF[dtype] if dtype != computed_in(dtype) else 0)
    torch.testing.assert_close(out.double().cpu(), expected, rtol=allowed, atol=torch.finfo(dtype).smallest_normal)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [3.0, 1.0, 2.0, 2.6, 0.3, 50.0])
def test_equals_loops(p: float, dtype: torch.dtype, device: str) -> None:
    for length in LENGTHS:
        x = torch.randn(2, 3, length).to(dtype)
        out = ops.gem_pool(x.to(device), p)
        assert out.dtype == dtype
        assert_pools_to(out, naive(x, p), dtype, p)
        learnable = torch.full((3,), p, dtype=torch.float64)  # the path that also computes the slope
        assert_pools_to(ops.gem_pool(x.to(device), learnable.to(device)), naive(x, p), dtype, p)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(), (1,), (4,)])
@pytest.mark.parametrize("p_dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_tensor_exponent(p_dtype: torch.dtype, shape: tuple[int, ...], device: str) -> None:
    x = torch.rand(3, 4, 5, 3)
    p = (1 + 4 * torch.rand(shape)).to(p_dtype)
    leaf = p.to(device).requires_grad_()
    out = ops.gem_pool(x.to(device), leaf)
    assert_pools_to(out, naive(x, p), torch.float32, 1.0)
    (dp,) = torch.autograd.grad(out.sum(), leaf)
    assert (dp.shape, dp.dtype) == (p.shape, p_dtype)


def test_golden() -> None:
    x = torch.tensor([[[1.0, 2.0, 3.0]]])
    torch.testing.assert_close(ops.gem_pool(x), torch.tensor([[2.289428]]), rtol=0, atol=5e-7)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [3.0, 1.0, 2.0, 2.6, 0.7, 12.0])
def test_gradients_equal_reference(p: float, dtype: torch.dtype, device: str) -> None:
    for length in LENGTHS:
        # some values lie below eps; the others are not so small that p < 1 gives them a huge gradient
        x = torch.randn(2, 3, length)
        x = torch.where(x.abs() < 0.1, 0.1, x).to(dtype)
        ours = gradients(lambda a: ops.gem_pool(a, p), x.to(device))[0]
        expected = gradients(lambda a: reference.gem_pool(a, p), x.double())[0]
        assert ours.dtype == dtype
        assert torch.equal(ours.cpu() == 0, (expected == 0) | (ours.cpu() == 0))
        # one rounding of the incoming gradient and one of the result for half types
        half = 2.5 * ROUNDOFF[dtype] if dtype != computed_in(dtype) else 0
        allowed = tolerance(computed_in(dtype)) + half
        scale = expected.abs().amax(2, keepdim=True).clamp(min=1e-3)
        torch.testing.assert_close(ours.double().cpu() / scale, expected / scale, rtol=0, atol=allowed)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1,), (6,)])
def test_exponent_gradient_equals_reference(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> None:
    for length in LENGTHS:
        x, p = torch.randn(20, 6, length).to(dtype), (1 + 4 * torch.rand(shape)).to(dtype)
        ours = gradients(ops.gem_pool, x.to(device), p.to(device))
        expected = gradients(reference.gem_pool, x.double(), p.double())
        assert_close(ours[0], expected[0], dtype, scale=1.0)
        # a sum of 20 or 120 terms, each at most about ln(1e6 largest) / p of the pooled value
        assert_close(ours[1], expected[1], dtype, scale=120.0 / len(p))


@pytest.mark.parametrize("shape", [None, (), (1,), (3,)])
def test_gradcheck(shape: tuple[int, ...] | None) -> None:
    x = torch.rand(2, 3, 4, 2, dtype=torch.float64) + 0.1
    x[0, 0, 0, 0] = -1.0
    x.requires_grad_()
    if shape is None:
        for p in (1.0, 2.0, 3.0, 2.5):
            assert torch.autograd.gradcheck(lambda a, p=p: ops.gem_pool(a, p), (x,))
    else:
        exponent = (1 + 3 * torch.rand(shape, dtype=torch.float64)).requires_grad_()
        assert torch.autograd.gradcheck(ops.gem_pool, (x, exponent))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [0, 1, 4])
def test_opcheck(channels: int, dtype: torch.dtype, device: str) -> None:
    x = torch.rand(3, 4, 5, device=device, dtype=dtype).requires_grad_()
    p = None if channels == 0 else torch.full((channels,), 2.5, device=device, requires_grad=True)
    torch.library.opcheck(torch.ops.pyreid.gem_pool, (x, p, 3.0, 1e-6))
    _, statistics = torch.ops.pyreid.gem_pool(x.detach(), None if p is None else p.detach(), 3.0, 1e-6)
    arguments = (torch.rand(3, 4, device=device), x.detach(), statistics, None if p is None else p.detach(), 3.0, 1e-6)
    torch.library.opcheck(torch.ops.pyreid.gem_pool_backward, arguments)


@pytest.mark.parametrize("device", DEVICES)
def test_compiles_without_graph_breaks(device: str) -> None:
    x = torch.rand(2, 4, 3, 3, device=device, dtype=torch.bfloat16).requires_grad_()
    p = torch.full((4,), 3.0, device=device, requires_grad=True)
    compiled = torch.compile(lambda a, b: ops.gem_pool(a, b).sum(), fullgraph=True, backend="aot_eager")
    ours = torch.autograd.grad(compiled(x, p), (x, p))
    expected = torch.autograd.grad(ops.gem_pool(x, p).sum(), (x, p))
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))


@pytest.mark.parametrize("device", DEVICES)
def test_first_power_is_average_pooling(device: str) -> None:
    x = torch.rand(3, 5, 7, 4, device=device, dtype=torch.float64) + 0.1
    assert_close(ops.gem_pool(x, 1.0), x.mean((2, 3)), torch.float64)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("p", [0.5, 1.0, 3.0, 7.7, 50.0, 1e6])
def test_lies_between_the_largest_and_its_share(p: float, device: str) -> None:
    x = torch.rand(8, 16, 4, 4, device=device)
    largest = x.amax((2, 3))
    for exponent in (p, torch.tensor([p], device=device)):
        out = ops.gem_pool(x, exponent)
        assert (out <= largest).all()
        assert (out >= largest * 16 ** (-1 / p) * (1 - tolerance(torch.float32, max(1.0, 1 / p)))).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, 0.1, 7.7])
def test_equal_values_pool_to_themselves(p: float, device: str) -> None:
    x = 10 ** (8 * torch.rand(40, 25, 1, device=device) - 4)
    for exponent in (p, torch.tensor([p], device=device)):
        for length in (1, 7, 16, 49, 1200):
            out = ops.gem_pool(x.expand(-1, -1, length), exponent)
            assert (out <= x[..., 0]).all()
            assert_close(out / x[..., 0], torch.ones_like(out), torch.float32)
            if device == "cpu" and length == 1:
                assert torch.equal(out, x[..., 0])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, 2.6])
def test_other_rows_do_not_matter(p: float, device: str) -> None:
    x = torch.rand(2, 40, 6, 5, device=device)
    odd = x.clone()
    odd[0, 3, 0, 0], odd[1, 0], odd[1, 1, 2, 2], odd[1, 2, 1, 1] = torch.nan, 1e15, torch.inf, 3e38
    same = [(0, slice(4, 40)), (1, slice(3, 40))]
    for change in (torch.clone, channels_last):
        leaves = [change(a).requires_grad_() for a in (x, odd)]
        outs = [ops.gem_pool(leaf, p) for leaf in leaves]
        grads = [torch.autograd.grad(out.sum(), leaf)[0] for out, leaf in zip(outs, leaves, strict=True)]
        assert all(torch.equal(outs[0][i], outs[1][i]) and torch.equal(grads[0][i], grads[1][i]) for i in same)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_zero_input_gives_eps_and_no_gradient(dtype: torch.dtype, device: str) -> None:
    x = torch.zeros(2, 3, 4, 4, device=device, dtype=dtype, requires_grad=True)
    p = torch.full((3,), 3.0, device=device, requires_grad=True)
    out = ops.gem_pool(x, p)
    assert torch.equal(out, torch.full_like(out, 1e-6))
    dx, dp = torch.autograd.grad(out.sum(), (x, p))
    assert torch.equal(dx, torch.zeros_like(dx))
    assert torch.equal(dp, torch.zeros_like(dp))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("p", [1.0, 3.0, 2.2])
def test_values_at_eps_have_a_gradient_as_in_clamp(p: float, device: str) -> None:
    x = torch.tensor([[[0.25, 0.25, 0.125, 0.0, -torch.inf]]], device=device, requires_grad=True)
    (dx,) = torch.autograd.grad(ops.gem_pool(x, p, eps=0.25).sum(), x)
    torch.testing.assert_close(dx.cpu(), torch.tensor([[[0.2, 0.2, 0.0, 0.0, 0.0]]]))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("p", [3.0, 10.0, 2.5, torch.tensor([3.0])])
@pytest.mark.parametrize(
    ("dtype", "large", "small"),
    [
        (torch.float16, 60000.0, 6e-5),
        (torch.bfloat16, 3e38, 1e-30),
        (torch.float32, 3.4e38, 1e-37),
        (torch.float64, 1e308, 1e-300),
    ],
)
def test_no_overflow(dtype: torch.dtype, large: float, small: float, p: float | Tensor, device: str) -> None:
    rows = [[large] * 4, [large, 0.5 * large, 0.0, 1.0], [small] * 4, [small, 0.5 * small, 0.0, 1.0], [0.0] * 3 + [-1]]
    x = torch.tensor([rows], dtype=torch.float64).to(dtype)
    exponent = p.to(device) if isinstance(p, Tensor) else p
    eps = torch.finfo(computed_in(dtype)).tiny
    leaf = x.to(device).requires_grad_()
    out = ops.gem_pool(leaf, exponent, eps=eps)
    if device == "cpu" or dtype != torch.float64:
        assert_pools_to(out, naive(x, p, eps), dtype, 3.0)
    else:  # p times the difference of logarithms near 1024, each with its roundoff
        allowed = 2 * float(p) * math.log(2) * math.log2(large) * ROUNDOFF[dtype]
        torch.testing.assert_close(out.double().cpu(), naive(x, p, eps), rtol=allowed, atol=0)
    (dx,) = torch.autograd.grad(out.sum(), leaf)
    assert torch.isfinite(dx).all()
    expected = torch.full((4,), 0.25, dtype=torch.float64)
    torch.testing.assert_close(dx[0, 0].double().cpu(), expected, rtol=2 * ROUNDOFF[dtype], atol=0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("p", [0.05, 0.5, 3.0, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_many_decades_in_a_row(dtype: torch.dtype, p: float, device: str) -> None:
    decades = 37 if dtype == torch.float32 else 150  # float64 itself has no room for the expected values of 300
    x = torch.logspace(-decades, decades, 50, dtype=torch.float64).to(dtype).reshape(1, 1, 50)
    eps = torch.finfo(dtype).tiny
    leaf = x.to(device).requires_grad_()
    out = ops.gem_pool(leaf, p, eps=eps)
    assert_pools_to(out, naive(x, p, eps), dtype, p)
    ours = torch.autograd.grad(out.sum(), leaf)[0].double().cpu()
    largest = x.double().max()
    mean = ((x.double() / largest) ** p).mean()
    expected = ((x.double() / largest) ** (p - 1) * mean ** (1 / p - 1) / 50).to(dtype).double()
    # powers of numbers near 1 lose p, those of numbers far from 1 the logarithm of the ratio
    allowed = tolerance(dtype, max(20.0, 1 / p))
    torch.testing.assert_close(ours, expected, rtol=allowed, atol=float(torch.finfo(dtype).tiny))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, 2.5])
def test_nan_and_infinity_propagate(p: float, dtype: torch.dtype, device: str) -> None:
    for length in (3, 16, 40, 1100):
        for place in (0, length // 2, length - 1):
            x = torch.rand(1, 4, length)
            x[0, 1, place] = torch.nan if place % 2 else -torch.tensor(torch.nan)  # 0 / 0 is negative on x86
            x[0, 2, place] = torch.inf
            x[0, 3, place] = -torch.inf
            for exponent in (p, torch.full((4,), p, device=device)):
                out = ops.gem_pool(x.to(device, dtype), exponent)[0]
                assert torch.isfinite(out[[0, 3]]).all()
                assert out[1].isnan()
                assert out[2] == torch.inf
            reference_out = reference.gem_pool(x.to(dtype), p)[0]
            assert reference_out[1].isnan()
            assert reference_out[2] == torch.inf
    leaf = x.to(device, dtype).requires_grad_()
    (dx,) = torch.autograd.grad(ops.gem_pool(leaf, p).sum(), leaf)
    assert torch.isfinite(dx[0, [0, 3]]).all()
    assert dx[0, 3, -1] == 0


@pytest.mark.parametrize("device", DEVICES)
def test_half_is_the_rounded_float_result(device: str) -> None:
    # all float16 and many bfloat16 bit patterns, subnormal and negative ones among them, through the conversions
    patterns = torch.arange(-(2**15), 2**15, dtype=torch.int16)
    for dtype in (torch.float16, torch.bfloat16):
        x = patterns.view(dtype)
        x = x[x.isfinite()]
        rows = x[: len(x) // 16 * 16].reshape(1, -1, 16).to(device)
        single = rows[..., :1]
        eps = 2.0**-26
        assert torch.equal(ops.gem_pool(single, 1.0, eps=eps), single[..., 0].float().clamp(min=eps).to(dtype))
        ours, expected = (ops.gem_pool(a, 3.0, eps=eps) for a in (rows, rows.float()))
        torch.testing.assert_close(ours, expected.to(dtype), rtol=2 * ROUNDOFF[dtype], atol=2.0**-24)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_gradients_are_rounded_to_nearest_even(dtype: torch.dtype, device: str) -> None:
    # with p = 1 the gradient of the only value is the incoming one: float32 values of every size, rounded once
    grad = torch.cat(
        [torch.randn(4000) * 10.0 ** torch.arange(-9, 11).repeat(200)[:4000], torch.tensor([0.0, 65520.0])]
    )
    stored = grad.to(dtype)
    next_stored = torch.nextafter(stored, torch.tensor(torch.inf, dtype=dtype))
    ties = (stored.double() + next_stored.double()).float() / 2
    grad = torch.cat([grad, stored.float(), ties[ties.isfinite()]])
    x = torch.ones(len(grad), 1, 1, dtype=dtype, device=device)
    _, statistics = torch.ops.pyreid.gem_pool(x, None, 1.0, 1e-6)
    dx, _ = torch.ops.pyreid.gem_pool_backward(grad.reshape(-1, 1).to(device), x, statistics, None, 1.0, 1e-6)
    assert torch.equal(dx.flatten().cpu(), grad.to(dtype))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(0, 4, 3, 3), (4, 0, 3, 3), (0, 0, 2)])
def test_empty(shape: tuple[int, ...], device: str) -> None:
    for count in (1, shape[1]):
        x = torch.zeros(shape, device=device, requires_grad=True)
        p = torch.full((count,), 3.0, device=device, requires_grad=True)
        out = ops.gem_pool(x, p)
        assert out.shape == shape[:2]
        dx, dp = torch.autograd.grad(out.sum(), (x, p))
        assert dx.shape == x.shape
        assert torch.equal(dp, torch.zeros_like(p))


@pytest.mark.parametrize("device", DEVICES)
def test_strides_do_not_matter(device: str) -> None:
    x = torch.rand(4, 6, 8, 10, device=device)
    p = 1 + torch.rand(6, device=device)
    for strided in (x.transpose(2, 3), x[:, ::2, 1:, ::3], x[:1] + 0, x.permute(1, 0, 2, 3)[:, :3]):
        exponent = p[: strided.shape[1]] if strided.shape[1] == 6 else p[::2]
        ours = [ops.gem_pool(strided, exponent), *gradients(ops.gem_pool, strided, exponent)]
        assert ours[1].is_contiguous()
        dense = strided.contiguous()
        expected = [ops.gem_pool(dense, exponent.contiguous()), *gradients(ops.gem_pool, dense, exponent.contiguous())]
        assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))


def channels_last(x: Tensor) -> Tensor:
    """The same values with channels last in memory, also for (N, C, L)."""
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def assert_equal_strides(a: Tensor, b: Tensor) -> None:
    """Equal strides of dimensions with more than one element."""
    assert a.shape == b.shape
    assert [s for s, n in zip(a.stride(), a.shape, strict=True) if n > 1] == [
        s for s, n in zip(b.stride(), b.shape, strict=True) if n > 1
    ]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape",
    [
        (3, 5, 7, 7),
        (2, 300, 4, 3),  # more channels than a task on the CPU or a block has, and not whole packs
        (2, 64, 16, 8),
        (1, 17, 3, 50),
        (2, 1, 4, 3),  # contiguous as well
        (4, 6, 1, 1),  # the same
        (4, 6, 1, 5),
        (3, 9, 70),
        (1, 2, 2, 1),
    ],
)
def test_channels_last(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> None:
    x = torch.randn(shape)
    x = torch.where(x.abs() < 0.1, 0.1, x).to(device, dtype)
    last = channels_last(x)
    if len(shape) == 4:
        assert last.is_contiguous(memory_format=torch.channels_last)
    roundoff = 0 if dtype == computed_in(dtype) else 2 * ROUNDOFF[dtype]
    for p in (1.0, 2.0, 3.0, 2.6, torch.tensor([2.6]), 1 + 3 * torch.rand(shape[1])):
        exponent = p.to(device) if isinstance(p, Tensor) else p
        out = ops.gem_pool(last, exponent)
        expected = ops.gem_pool(x, exponent)
        assert out.is_contiguous()
        torch.testing.assert_close(out, expected, rtol=tolerance(computed_in(dtype)) + roundoff, atol=0)
        weight = torch.randn(out.shape).to(out)
        leaves = [a.detach().requires_grad_() for a in (last, x)]
        ps = [exponent.detach().requires_grad_() for _ in range(2)] if isinstance(exponent, Tensor) else []
        ours, theirs = (
            torch.autograd.grad(
                (ops.gem_pool(leaf, ps[i] if ps else exponent) * weight).sum(), [leaf, ps[i]] if ps else [leaf]
            )
            for i, leaf in enumerate(leaves)
        )
        assert_equal_strides(ours[0], last)
        allowed = tolerance(computed_in(dtype)) + roundoff
        largest = theirs[0].double().abs().max().item()
        torch.testing.assert_close(ours[0].double(), theirs[0].double(), rtol=0, atol=allowed * largest)
        if ps:
            # sums of terms of about 1, one for each row
            assert_close(ours[1], theirs[1], computed_in(dtype), scale=float(shape[0] * shape[1]))


def test_channels_last_is_not_copied() -> None:
    x = channels_last(torch.rand(2, 8, 4, 4)).requires_grad_()
    grad = torch.ones(2, 8)
    with torch.profiler.profile() as profile:
        torch.autograd.grad(ops.gem_pool(x), x, grad)
    names = {event.name for event in profile.events()}
    assert "pyreid::gem_pool" in names
    assert not names & {"aten::clone", "aten::copy_"}


@pytest.mark.parametrize("device", DEVICES)
def test_channels_last_of_rows_that_need_care(device: str) -> None:
    x = torch.rand(2, 40, 6, 5)
    x[0, 3, 2, 2], x[0, 17, 0, 0], x[1, 33, 5, 4], x[1, 5] = torch.nan, torch.inf, -torch.inf, 3e38
    x[1, 6], x[1, 7, 0, 0] = 1e-37, 3e38
    last = channels_last(x).to(device)
    for p in (3.0, 2.5, torch.full((40,), 2.5, device=device)):
        for eps in (1e-6, float(torch.finfo(torch.float32).tiny)):
            leaves = [a.detach().requires_grad_() for a in (last, x.to(device))]
            ours, theirs = (ops.gem_pool(leaf, p, eps=eps) for leaf in leaves)
            torch.testing.assert_close(ours, theirs, rtol=tolerance(torch.float32), atol=0, equal_nan=True)
            mine, other = (
                torch.autograd.grad(a.sum(), leaf)[0] for a, leaf in zip((ours, theirs), leaves, strict=True)
            )
            finite = theirs.detach().isfinite()
            torch.testing.assert_close(mine[finite], other[finite], rtol=tolerance(torch.float32, 2.0), atol=1e-9)


def test_channels_last_gradcheck() -> None:
    x = channels_last(torch.rand(2, 3, 4, 2, dtype=torch.float64) + 0.1).requires_grad_()
    exponent = (1 + 3 * torch.rand(3, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(ops.gem_pool, (x, exponent))
    assert torch.autograd.gradcheck(ops.gem_pool, (x, 3.0))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(3, 4, 5, 2), (2, 4, 1, 1), (2, 1, 3, 3), (3, 4, 5)])
def test_channels_last_opcheck_and_compile(shape: tuple[int, ...], device: str) -> None:
    x = channels_last(torch.rand(shape)).to(device).requires_grad_()
    p = torch.full((shape[1],), 2.5, device=device, requires_grad=True)
    torch.library.opcheck(torch.ops.pyreid.gem_pool, (x, p, 0.0, 1e-6))
    _, statistics = torch.ops.pyreid.gem_pool(x.detach(), p.detach(), 0.0, 1e-6)
    arguments = (torch.rand(shape[:2], device=device), x.detach(), statistics, p.detach(), 0.0, 1e-6)
    torch.library.opcheck(torch.ops.pyreid.gem_pool_backward, arguments)
    compiled = torch.compile(lambda a, b: ops.gem_pool(a, b).sum(), fullgraph=True, backend="aot_eager")
    ours = torch.autograd.grad(compiled(x, p), (x, p))
    expected = torch.autograd.grad(ops.gem_pool(x, p).sum(), (x, p))
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))
    assert_equal_strides(ours[0], x)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("count", [1, 300])
def test_bits_repeat(count: int, device: str) -> None:
    rows, p = torch.rand(9, 300, 7, 7, device=device), 1 + 3 * torch.rand(count, device=device)
    for x in (rows, channels_last(rows)):
        runs = [[ops.gem_pool(x, p), *gradients(ops.gem_pool, x, p)] for _ in range(2)]
        assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize("count", [1, 300])
@pytest.mark.parametrize("last", [False, True])
def test_bits_do_not_depend_on_the_number_of_threads(last: bool, count: int) -> None:
    x, p = torch.rand(9, 300, 7, 7), 1 + 3 * torch.rand(count)
    x = channels_last(x) if last else x
    threads, runs = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            runs.append([ops.gem_pool(x, p), *gradients(ops.gem_pool, x, p)])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(runs[0], run, strict=True))


@pytest.mark.parametrize("isa", ["baseline", "avx2"])
def test_on_lesser_instruction_sets(isa: str) -> None:
    chosen = "equals_loops or equals_reference or no_overflow or nan_and or rounded or channels_last"
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
def test_autocast_gives_float32(dtype: torch.dtype, device: str) -> None:
    x = torch.rand(4, 8, 6, 6, device=device).to(dtype)
    p = torch.full((8,), 2.5, device=device)
    with torch.autocast(device, dtype=torch.bfloat16):
        ours, twin = ops.gem_pool(x, p), reference.gem_pool(x, p)
    assert ours.dtype == twin.dtype == torch.float32
    assert_close(ours, ops.gem_pool(x.float(), p), torch.float32)
    assert_close(ours, twin, torch.float32)


def test_second_derivative_is_refused() -> None:
    x = torch.rand(3, 4, 5, requires_grad=True)
    (grad,) = torch.autograd.grad(ops.gem_pool(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        grad.sum().backward()


IMAGE = torch.zeros(2, 3, 4, 4)


@pytest.mark.parametrize("function", [ops.gem_pool, reference.gem_pool])
@pytest.mark.parametrize(
    ("x", "p", "eps", "error", "match"),
    [
        ([[1.0]], 3.0, 1e-6, TypeError, "x: expected a torch.Tensor"),
        (IMAGE.long(), 3.0, 1e-6, TypeError, "x: expected float16"),
        (IMAGE[0, 0], 3.0, 1e-6, ValueError, "x: expected a 3-D or 4-D tensor"),
        (IMAGE[:, :, :0], 3.0, 1e-6, ValueError, r"x: expected at least one position.*\(2, 3, 0, 4\)"),
        (IMAGE, 0.0, 1e-6, ValueError, r"p: expected a finite number above 0, got 0\.0"),
        (IMAGE, -1, 1e-6, ValueError, "p: expected a finite number above 0, got -1"),
        (IMAGE, math.inf, 1e-6, ValueError, "p: expected a finite number above 0, got inf"),
        (IMAGE, math.nan, 1e-6, ValueError, "p: expected a finite number above 0, got nan"),
        (IMAGE, "3", 1e-6, TypeError, "p: expected a number or a torch.Tensor, got str"),
        (IMAGE, torch.ones(2), 1e-6, ValueError, r"p: expected shape \(\), \(1,\) or \(3,\) to match x, got \(2,\)"),
        (IMAGE, torch.ones(3, dtype=torch.int64), 1e-6, TypeError, "p: expected float16"),
        (IMAGE, torch.ones(3, device="meta"), 1e-6, ValueError, "p: on meta, but x is on cpu"),
        (IMAGE, 3.0, 0.0, ValueError, r"eps: expected a finite number of at least 1\.18e-38, got 0\.0"),
        (IMAGE, 3.0, 1e-50, ValueError, "eps: expected a finite number of at least"),
        (IMAGE, 3.0, math.nan, ValueError, "eps: expected a finite number of at least"),
    ],
)
def test_bad_input(
    function: object, x: object, p: float | Tensor, eps: float, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        function(x, p, eps=eps)  # type: ignore[operator]
