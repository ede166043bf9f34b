from __future__ import annotations

import contextlib
import importlib
import math

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from pyreid import ops
from pyreid.errors import ExtensionError
from pyreid.ops import _register, reference
from python_tests.ops.checks import DEVICES, assert_close, gradients

_kernels = importlib.import_module("pyreid.ops.pairwise_distance")  # the function hides the module of its name

METRICS = ["euclidean", "sqeuclidean", "cosine"]


def naive(x: Tensor, y: Tensor, metric: str) -> Tensor:
    """Distances by loops over Python floats."""
    out = torch.zeros(len(x), len(y), dtype=torch.float64)
    for i, a in enumerate(x.double().tolist()):
        for j, b in enumerate(y.double().tolist()):
            if metric == "cosine":
                norms = math.sqrt(math.fsum(u * u for u in a)) * math.sqrt(math.fsum(v * v for v in b))
                out[i, j] = 1 - (math.fsum(u * v for u, v in zip(a, b, strict=True)) / norms if norms else 0.0)
            else:
                squared = math.fsum((u - v) ** 2 for u, v in zip(a, b, strict=True))
                out[i, j] = math.sqrt(squared) if metric == "euclidean" else squared
    return out


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("n", "m", "d"), [(1, 1, 1), (3, 5, 7), (17, 4, 33), (6, 19, 130)])
def test_equals_loops(n: int, m: int, d: int, metric: str, dtype: torch.dtype, device: str) -> None:
    x, y = torch.randn(n, d).to(dtype), torch.randn(m, d).to(dtype)
    out = ops.pairwise_distance(x.to(device), y.to(device), metric=metric)
    computed_in = torch.float64 if dtype == torch.float64 else torch.float32
    assert out.dtype == computed_in
    # a squared distance is a sum of d terms of size about 4; its square root halves the relative error
    assert_close(out, naive(x, y, metric), computed_in, scale=4.0 * d if metric == "sqeuclidean" else 1 + d**0.5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", METRICS)
def test_gradients_equal_reference(metric: str, device: str) -> None:
    x, y = torch.randn(9, 21, dtype=torch.float64), torch.randn(6, 21, dtype=torch.float64)
    ours = gradients(lambda a, b: ops.pairwise_distance(a, b, metric=metric), x.to(device), y.to(device))
    expected = gradients(lambda a, b: reference.pairwise_distance(a, b, metric=metric), x, y)
    for a, b in zip(ours, expected, strict=True):
        assert_close(a, b, torch.float64, scale=20.0)
    self_ours = gradients(lambda a: ops.pairwise_distance(a, metric=metric), x.to(device))[0]
    assert_close(self_ours, gradients(lambda a: reference.pairwise_distance(a, metric=metric), x)[0], torch.float64, 20)


@pytest.mark.parametrize("metric", METRICS)
def test_gradcheck(metric: str) -> None:
    x, y = (torch.randn(n, 5, dtype=torch.float64, requires_grad=True) for n in (4, 3))
    assert torch.autograd.gradcheck(lambda a, b: ops.pairwise_distance(a, b, metric=metric), (x, y))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", METRICS)
def test_opcheck(metric: str, device: str) -> None:
    x = torch.randn(5, 7, device=device, requires_grad=True)
    y = torch.randn(4, 7, device=device, requires_grad=True)
    torch.library.opcheck(torch.ops.pyreid.pairwise_distance, (x, y, metric, False))
    distance = torch.rand(5, 4, device=device)
    torch.library.opcheck(
        torch.ops.pyreid.pairwise_distance_backward, (distance, distance, x.detach(), y.detach(), metric)
    )


@pytest.mark.parametrize("device", DEVICES)
def test_compiles_without_graph_breaks(device: str) -> None:
    x = torch.randn(6, 8, device=device, requires_grad=True)
    compiled = torch.compile(lambda a: ops.pairwise_distance(a).sum(), fullgraph=True, backend="aot_eager")
    compiled(x).backward()
    (expected,) = torch.autograd.grad(ops.pairwise_distance(x).sum(), x)
    assert x.grad is not None
    assert torch.equal(x.grad, expected)


@pytest.mark.parametrize("device", DEVICES)
def test_near_duplicates_keep_their_digits(device: str) -> None:
    # far from the origin |x|^2 + |y|^2 - 2 x.y alone would have no correct digit left
    x = torch.randn(8, 64) + 100
    y = x + 1e-3 * torch.randn(8, 64)
    out = ops.pairwise_distance(x.to(device), y.to(device))
    assert_close(out.diagonal(), naive(x, y, "euclidean").diagonal(), torch.float32, scale=0.01)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", METRICS)
def test_diagonal_is_zero_and_its_gradient_too(metric: str, device: str) -> None:
    x = torch.randn(5, 16, device=device, requires_grad=True)
    out = ops.pairwise_distance(x, metric=metric)
    assert torch.equal(out.diagonal(), torch.zeros(5, device=device))
    twins = torch.ones(2, 3, device=device, requires_grad=True)
    (grad,) = torch.autograd.grad(ops.pairwise_distance(twins).sum(), twins)
    assert torch.equal(grad, torch.zeros_like(grad))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", METRICS)
def test_diagonal_of_rows_that_have_no_distance(metric: str, device: str) -> None:
    x = torch.ones(4, 8, device=device)
    x[1, 3], x[2, 5] = torch.nan, torch.inf
    x[3] = 0
    diagonal = ops.pairwise_distance(x, metric=metric).diagonal().cpu()
    torch.testing.assert_close(
        diagonal, torch.tensor([0, torch.nan, torch.nan, float(metric == "cosine")]), equal_nan=True
    )
    torch.testing.assert_close(
        reference.pairwise_distance(x, metric=metric).diagonal().cpu(), diagonal, equal_nan=True, atol=1e-6, rtol=0
    )


def test_gradient_at_a_row_without_direction() -> None:
    x, y = torch.randn(3, 5, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    x[0] = y[1] = 0
    ours = gradients(lambda a, b: ops.pairwise_distance(a, b, metric="cosine"), x, y)
    for a, b in zip(
        ours, gradients(lambda a, b: reference.pairwise_distance(a, b, metric="cosine"), x, y), strict=True
    ):
        assert_close(a, b, torch.float64)
    assert not ours[0][0].any()
    assert not ours[1][1].any()


@pytest.mark.parametrize("device", DEVICES)
def test_zero_rows_have_no_direction(device: str) -> None:
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]], device=device, requires_grad=True)
    y = torch.tensor([[1.0, 0.0], [0.0, 0.0]], device=device)
    out = ops.pairwise_distance(x, y, metric="cosine")
    torch.testing.assert_close(out.cpu(), torch.tensor([[1.0, 1.0], [0.4, 1.0]]))
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert torch.isfinite(grad).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("n", "m", "d"), [(0, 4, 3), (4, 0, 3), (0, 0, 3), (2, 3, 0)])
@pytest.mark.parametrize("metric", METRICS)
def test_empty(n: int, m: int, d: int, metric: str, device: str) -> None:
    x, y = torch.zeros(n, d, device=device, requires_grad=True), torch.zeros(m, d, device=device, requires_grad=True)
    out = ops.pairwise_distance(x, y, metric=metric)
    assert out.shape == (n, m)
    assert torch.equal(out, torch.full_like(out, float(metric == "cosine")))
    dx, dy = torch.autograd.grad(out.sum(), (x, y))
    assert (dx.shape, dy.shape) == (x.shape, y.shape)


@pytest.mark.parametrize("device", DEVICES)
def test_strides_do_not_matter(device: str) -> None:
    x, y = torch.randn(12, 10, device=device), torch.randn(20, 8, device=device)
    strided = ops.pairwise_distance(x.T[::2], y.T[:5, :12])
    assert torch.equal(strided, ops.pairwise_distance(x.T[::2].contiguous(), y.T[:5, :12].contiguous()))


@pytest.mark.parametrize("device", DEVICES)
def test_bits_repeat(device: str) -> None:
    x = torch.randn(50, 300, device=device, requires_grad=True)
    runs = [(out := ops.pairwise_distance(x), torch.autograd.grad(out.square().sum(), x)[0]) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize("device", DEVICES)
def test_autocast_stays_float32(device: str) -> None:
    x = 300 * torch.randn(4, 64, device=device)
    with torch.autocast(device, dtype=torch.bfloat16):
        out = ops.pairwise_distance(x)
    assert out.dtype == torch.float32
    assert torch.equal(out, ops.pairwise_distance(x))


@pytest.mark.parametrize("raises", [False, True])
def test_products_on_cuda_run_in_full_float32_and_settings_come_back(raises: bool) -> None:
    # without a device: the functions that are the operators on CUDA, over kernels that only look
    settings = torch.backends.cuda.matmul
    seen: list[tuple[str, bool]] = []

    def look(*arguments: object) -> Tensor | tuple[Tensor, Tensor]:
        seen.append((settings.fp32_precision, torch.is_autocast_enabled("cuda")))
        if raises:
            raise ValueError("no")
        return (x + 0, x + 0) if len(arguments) == 5 else x + 0

    x, before = torch.rand(2, 2), settings.fp32_precision
    with torch.library._scoped_library("pyreid", "IMPL") as library:
        for op in ("_pairwise_distance", "_pairwise_distance_backward"):
            library.impl(op, look, "CPU")
        try:
            settings.fp32_precision = "tf32"
            # the state only: on a machine without a device entering autocast for it warns
            torch.set_autocast_enabled("cuda", True)
            for call in (
                lambda: _kernels._on_cuda(x, x, "euclidean", True),
                lambda: _kernels._backward_on_cuda(x, x, x, x, "euclidean"),
            ):
                with pytest.raises(ValueError, match="no") if raises else contextlib.nullcontext():
                    call()
                assert settings.fp32_precision == "tf32"
                assert torch.is_autocast_enabled("cuda")
        finally:
            settings.fp32_precision = before
            torch.set_autocast_enabled("cuda", False)
    assert seen == [("ieee", False)] * 2
    for op in ("pyreid::pairwise_distance", "pyreid::pairwise_distance_backward"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(op, "CUDA")


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("metric", METRICS)
def test_tf32_and_autocast_do_not_matter_on_cuda(metric: str, compiled: bool) -> None:
    x, y = torch.randn(130, 512, device="cuda"), torch.randn(90, 512, device="cuda")

    def run(a: Tensor, b: Tensor) -> list[Tensor]:
        leaves = [a.detach().requires_grad_(), b.detach().requires_grad_()]
        function = torch.compile(ops.pairwise_distance, fullgraph=True) if compiled else ops.pairwise_distance
        out = function(*leaves, metric=metric)
        return [out.detach(), *torch.autograd.grad(out, leaves, torch.ones_like(out))]

    expected = run(x, y)
    settings = torch.backends.cuda.matmul
    before = settings.fp32_precision
    try:
        settings.fp32_precision = "tf32"
        torch._dynamo.reset()
        allowed = run(x, y)
        with torch.autocast("cuda", dtype=torch.bfloat16):  # the backward pass, too, runs inside
            cast = run(x, y)
        assert settings.fp32_precision == "tf32"
    finally:
        settings.fp32_precision = before
    for a, b, c in zip(expected, allowed, cast, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


def test_second_derivative_is_refused() -> None:
    x = torch.randn(3, 4, requires_grad=True)
    (grad,) = torch.autograd.grad(ops.pairwise_distance(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        grad.sum().backward()


@pytest.mark.parametrize(
    ("x", "y", "metric", "error", "match"),
    [
        ([[1.0]], None, "euclidean", TypeError, "x: expected a torch.Tensor"),
        (torch.zeros(2, 3, dtype=torch.int64), None, "euclidean", TypeError, "x: expected float16"),
        (torch.zeros(2), None, "euclidean", ValueError, "x: expected a 2-D tensor"),
        (torch.zeros(2, 3), torch.zeros(2, 4), "euclidean", ValueError, "y: expected 3 columns"),
        (torch.zeros(2, 3), torch.zeros(2, 3).double(), "euclidean", ValueError, "y: expected torch.float32"),
        (torch.zeros(2, 3), None, "manhattan", ValueError, "metric: expected one of"),
    ],
)
def test_bad_input(x: object, y: object, metric: str, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        ops.pairwise_distance(x, y, metric=metric)  # type: ignore[arg-type]


def test_cuda_tensors_without_cuda_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_register, "CUDA_PROBLEM", "not built")
    with FakeTensorMode(), pytest.raises(ExtensionError, match="x: on cuda:0, but the CUDA library is not loaded: not"):
        ops.pairwise_distance(torch.zeros(2, 3, device="cuda"))
