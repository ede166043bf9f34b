from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from pyreid import ops
from pyreid.evaluation import evaluate
from pyreid.ops import _checks, distance_tiles, reference
from python_tests.ops.checks import DEVICES, assert_close, gradients

op = importlib.import_module("pyreid.ops.nearest_neighbors")

METRICS = ["euclidean", "sqeuclidean", "cosine"]
SHAPES = [(1, 1, 1, 1), (3, 5, 7, 5), (17, 40, 33, 31), (6, 190, 130, 33), (5, 3000, 4, 1000), (2, 2500, 3, 2048)]


def integers(rows: int, columns: int, largest: int = 4) -> Tensor:
    """Small integers: their products and sums are exact in float32, in any order."""
    return torch.randint(-largest, largest + 1, (rows, columns)).float()


def ranking(query: Tensor, gallery: Tensor, metric: str) -> tuple[Tensor, Tensor]:
    """(Q, G) float64 distances and a stable argsort of them."""
    x, y = query.double(), gallery.double()
    if metric == "cosine":
        norms = x.square().sum(1).sqrt()[:, None] * y.square().sum(1).sqrt()
        distances = 1 - torch.where(norms > 0, x @ y.T / norms, 0)
    else:
        distances = (x[:, None] - y[None]).square().sum(-1)
        if metric == "euclidean":
            distances = torch.from_numpy(np.sqrt(distances.numpy()))  # correctly rounded, which torch's need not be
    return distances, torch.from_numpy(np.argsort(distances.numpy(), axis=1, kind="stable"))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(("q", "g", "d", "k"), SHAPES)
def test_equals_stable_argsort(q: int, g: int, d: int, k: int, dtype: torch.dtype, metric: str, device: str) -> None:
    query, gallery = integers(q, d), integers(g, d)  # ties abound
    distances, indices = ops.nearest_neighbors(query.to(device, dtype), gallery.to(device, dtype), k, metric=metric)
    exact, order = ranking(query, gallery, metric)
    assert indices.dtype == torch.int64
    assert torch.equal(indices.cpu(), order[:, :k])
    computed_in = torch.float64 if dtype == torch.float64 else torch.float32
    assert distances.dtype == computed_in
    # integers below 2^24 are exact, their roots are rounded once
    assert torch.equal(distances.cpu(), exact.gather(1, order[:, :k]).to(computed_in))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("q", "g", "d", "k"), SHAPES)
def test_nearest_up_to_rounding(q: int, g: int, d: int, k: int, dtype: torch.dtype, metric: str, device: str) -> None:
    query, gallery = torch.randn(q, d, dtype=dtype), torch.randn(g, d, dtype=dtype)
    distances, indices = ops.nearest_neighbors(query.to(device), gallery.to(device), k, metric=metric)
    exact, _ = ranking(query, gallery, metric)
    # a squared distance is a sum of d terms of size about 4; its root halves the relative error
    scale = 4.0 * d if metric == "sqeuclidean" else 1 + d**0.5
    assert_close(distances, exact.gather(1, indices.cpu()), dtype, scale)
    assert_close(distances, exact.sort(1).values[:, :k], dtype, scale)  # none that is missing is nearer
    assert (distances.diff(dim=1) >= 0).all()
    assert all(len(row.unique()) == k for row in indices)


@pytest.mark.parametrize("device", DEVICES)
def test_cosine_of_exact_directions(device: str) -> None:
    # norms are powers of two: products and similarities are exact
    query = torch.tensor([[1.0, 1, 1, 1], [0, 0, 0, 0], [2, 0, 0, 0]])
    gallery = torch.tensor([[1.0, 1, -1, -1], [0, 0, 0, 0], [2, 2, 2, 2], [-4, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, -1]])
    distances, indices = ops.nearest_neighbors(query.to(device), gallery.to(device), 6, metric="cosine")
    assert indices.tolist() == [[2, 4, 5, 0, 1, 3], [0, 1, 2, 3, 4, 5], [0, 2, 4, 5, 1, 3]]
    assert distances.tolist() == [[0, 0, 0.5, 1, 1, 1.5], [1] * 6, [0.5, 0.5, 0.5, 0.5, 1, 2]]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("dtype", "of_query", "of_gallery"),
    [
        (torch.float32, 1e10, 1e-10),
        (torch.float32, 1e-12, 1e12),
        (torch.float32, 1e-17, 1e18),
        (torch.float32, 1e-12, 1e-12),
        (torch.float32, 1e18, 1e18),
        (torch.float64, 1e80, 1e-80),
        (torch.float64, 1e-100, 1e100),
    ],
)
def test_cosine_of_rows_of_any_lengths(dtype: torch.dtype, of_query: float, of_gallery: float, device: str) -> None:
    query = torch.randn(60, 64, dtype=torch.float64)
    gallery = query + 1e-3 * torch.randn(60, 64, dtype=torch.float64)
    gallery[::7] = query[::7]  # whose quotient of lengths is not 1 unless they are scaled alike
    expected, _ = ranking(query, gallery, "cosine")
    x, y = (query * of_query).to(device, dtype), (gallery * of_gallery).to(device, dtype)
    distances, indices = ops.nearest_neighbors(x, y, 3, metric="cosine")
    assert torch.equal(indices[:, 0].cpu(), torch.arange(60))
    torch.testing.assert_close(distances.cpu().double(), expected.gather(1, indices.cpu()), rtol=1e-3, atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
def test_gradient_of_the_cosine_of_rows_of_any_lengths(device: str) -> None:
    query, gallery = torch.randn(5, 16, dtype=torch.float64), torch.randn(7, 16, dtype=torch.float64)
    found = []
    for sizes, dtype in (((1.0, 1.0), torch.float64), ((1e10, 1e-10), torch.float32), ((1e-12, 1e12), torch.float32)):
        x, y = ((t * size).to(device, dtype).requires_grad_() for t, size in zip((query, gallery), sizes, strict=True))
        distances, _ = ops.nearest_neighbors(x, y, 7, metric="cosine")
        weights = torch.arange(1.0, 8.0, device=device)
        gradients = torch.autograd.grad((distances * weights).sum(), (x, y))
        found.append([g.double().cpu() * size for g, size in zip(gradients, sizes, strict=True)])
    for gradients in found[1:]:
        for ours, expected in zip(gradients, found[0], strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_properties(data: st.DataObject) -> None:
    num_query, num_gallery, dim = (data.draw(st.integers(1, n)) for n in (9, 60, 5))
    torch.manual_seed(data.draw(st.integers(0, 10**6)))
    largest = data.draw(st.sampled_from([1, 3, 50]))
    metric = data.draw(st.sampled_from(["euclidean", "sqeuclidean"]))
    query, gallery = integers(num_query, dim, largest), integers(num_gallery, dim, largest)
    distances, indices = ops.nearest_neighbors(query, gallery, num_gallery, metric=metric)
    # all rows, each once, and any k are the first k of them
    assert torch.equal(indices.sort(1).values, torch.arange(num_gallery).expand_as(indices))
    k = data.draw(st.integers(0, num_gallery))
    fewer = ops.nearest_neighbors(query, gallery, k, metric=metric)
    assert torch.equal(fewer[0], distances[:, :k])
    assert torch.equal(fewer[1], indices[:, :k])
    # a permuted gallery has the same distances
    order = torch.randperm(num_gallery)
    permuted, at = ops.nearest_neighbors(query, gallery[order], num_gallery, metric=metric)
    assert torch.equal(permuted, distances)
    assert torch.equal(ranking(query, gallery, metric)[0].gather(1, order[at]).float(), distances)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", METRICS)
def test_agrees_with_evaluate(metric: str, device: str) -> None:
    # one match for each query: its rank in an evaluation is its place among all neighbors
    query, gallery = torch.randn(40, 16, device=device), torch.randn(1500, 16, device=device)
    gallery[700:800] = gallery[:100]
    ids = np.arange(1500)
    result = evaluate(query, gallery, ids[:40] * 20, ids, metric=metric)
    _, indices = ops.nearest_neighbors(query, gallery, 1500, metric=metric)
    places = (indices.cpu() == torch.arange(40)[:, None] * 20).nonzero()[:, 1]
    assert places.tolist() == result.first_match_rank.tolist()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", METRICS)
def test_equal_rows_tie_across_tiles(metric: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(op._TILE_COLUMNS, device, 64)
    monkeypatch.setattr(op, "_COLUMNS_PER_NEIGHBOR", 0)
    multiply = distance_tiles._multiply

    def rounded_anyhow(query: Tensor, gallery: Tensor, out: Tensor) -> None:
        multiply(query, gallery, out)
        out += 1e-5 * torch.randn_like(out)

    monkeypatch.setattr(distance_tiles, "_multiply", rounded_anyhow)
    query, gallery = torch.randn(50, 37, device=device), torch.randn(333, 37, device=device)
    copies = torch.randperm(333)[:200]
    gallery[copies] = gallery[copies[torch.randint(20, (200,))]]
    gallery[:, 5] = torch.where(torch.rand(333, device=device) < 0.5, -0.0, 0.0)  # which are equal
    distances, indices = ops.nearest_neighbors(query, gallery, 333, metric=metric)
    for row, near in zip(distances.cpu(), indices.cpu(), strict=True):
        found = torch.empty(333).scatter_(0, near, row)
        place = torch.empty(333, dtype=torch.int64).scatter_(0, near, torch.arange(333))
        groups = torch.unique(gallery.cpu(), dim=0, return_inverse=True)[1]
        for group in groups.unique():
            members = (groups == group).nonzero().flatten()
            assert len(found[members].unique()) == 1
            assert (place[members].diff() > 0).all()


@pytest.mark.parametrize("device", DEVICES)
def test_tiles_do_not_matter(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    query, gallery = integers(70, 6).to(device), integers(900, 6).to(device)
    expected = ops.nearest_neighbors(query, gallery, 100)
    for columns, rows in [(1, 1), (7, 13), (100, 64), (899, 70)]:
        monkeypatch.setitem(op._TILE_COLUMNS, device, columns)
        monkeypatch.setattr(op, "_COLUMNS_PER_NEIGHBOR", 0)
        monkeypatch.setattr(distance_tiles, "_MIN_ROWS", 1)
        monkeypatch.setattr(distance_tiles, "_MAX_ROWS", {"cpu": rows, "cuda": rows})
        tiles = distance_tiles.inner_product_tiles(
            query, gallery, device=query.device, dtype=torch.float32, columns=columns
        )
        shapes = {tuple(products.shape) for _, _, products in tiles}
        assert max(shape[1] for shape in shapes) == columns
        assert max(shape[0] for shape in shapes) <= rows
        found = ops.nearest_neighbors(query, gallery, 100)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", METRICS)
def test_self_search(metric: str, device: str) -> None:
    x = torch.randn(300, 65) + 10  # far from the origin: products alone would have four digits
    x[200] = x[3]
    distances, indices = ops.nearest_neighbors(x.to(device), x.to(device), 4, metric=metric)
    assert not distances[:, 0].any()
    assert indices[:, 0].tolist() == [3 if i == 200 else i for i in range(300)]
    assert indices[3, :2].tolist() == [3, 200]
    assert not distances[3, 1]
    assert (distances[torch.arange(300) % 197 != 3, 1] > 0).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", METRICS)
def test_near_duplicates_keep_their_digits(metric: str, device: str) -> None:
    x = torch.randn(8, 64) + 100
    y = (x + 1e-3 * torch.randn(8, 64))[torch.randperm(8)]
    distances, indices = ops.nearest_neighbors(x.to(device), y.to(device), 8, metric=metric)
    exact, _ = ranking(x, y, metric)
    expected = exact.gather(1, indices.cpu())
    # d terms of one sign; for cosine their differences lose what the ratio of the norms is rounded by
    allowed = 1e-5 if metric != "cosine" else 1e-2
    torch.testing.assert_close(distances.double().cpu(), expected, rtol=allowed, atol=0)
    assert (distances.diff(dim=1) >= 0).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", METRICS)
def test_nan_comes_last(metric: str, device: str) -> None:
    query, gallery = integers(3, 5).to(device), integers(200, 5).to(device)
    query[:, 0], gallery[:, 0] = 1, 1  # no row of zeros
    query[1, 2], gallery[5, 3], gallery[150, 0] = torch.nan, torch.nan, torch.nan
    distances, indices = (x.cpu() for x in ops.nearest_neighbors(query, gallery, 200, metric=metric))
    assert indices[::2, -2:].tolist() == [[5, 150]] * 2
    assert distances[::2].isnan().sum().item() == 4
    assert distances[1].isnan().all()
    assert indices[1].tolist() == list(range(200))


@pytest.mark.parametrize("device", DEVICES)
def test_infinite_rows_do_not_win(device: str) -> None:
    query, gallery = integers(4, 5).to(device), integers(90, 5).to(device)
    gallery[7, 1], gallery[30, 2] = torch.inf, -torch.inf
    query[:, 1:3] = 0  # the products with them are NaN
    indices = ops.nearest_neighbors(query, gallery, 90)[1]
    assert sorted(indices[0, -2:].tolist()) == [7, 30]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("device", DEVICES)
def test_gradients_equal_reference(metric: str, device: str) -> None:
    query, gallery = torch.randn(9, 21, dtype=torch.float64), torch.randn(30, 21, dtype=torch.float64)
    ours = gradients(
        lambda a, b: ops.nearest_neighbors(a, b, 7, metric=metric)[0], query.to(device), gallery.to(device)
    )
    theirs = gradients(lambda a, b: reference.nearest_neighbors(a, b, 7, metric=metric)[0], query, gallery)
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a, b, torch.float64, scale=20.0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", METRICS)
def test_gradient_at_distance_zero_and_without_direction(metric: str, device: str) -> None:
    x = torch.randn(6, 5, dtype=torch.float64, device=device)
    y = torch.cat([x, torch.zeros_like(x)])
    for a, b in [(x, x), (x, y), (y, x)]:
        ours = gradients(lambda a, b: ops.nearest_neighbors(a, b, 6, metric=metric)[0], a, b)
        theirs = gradients(lambda a, b: reference.nearest_neighbors(a, b, 6, metric=metric)[0], a, b)
        for c, d in zip(ours, theirs, strict=True):
            assert_close(c, d, torch.float64, scale=20.0)
    twins = torch.ones(2, 3, device=device, requires_grad=True)
    (grad,) = torch.autograd.grad(ops.nearest_neighbors(twins, twins, 2, metric=metric)[0].sum(), twins)
    assert not grad.any()


@pytest.mark.parametrize("metric", METRICS)
def test_gradcheck(metric: str) -> None:
    x, y = (torch.randn(n, 5, dtype=torch.float64, requires_grad=True) for n in (4, 9))
    assert torch.autograd.gradcheck(lambda a, b: ops.nearest_neighbors(a, b, 3, metric=metric)[0], (x, y))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", METRICS)
def test_opcheck(metric: str, device: str) -> None:
    x = torch.randn(5, 7, device=device, requires_grad=True)
    y = torch.randn(9, 7, device=device, requires_grad=True)
    torch.library.opcheck(torch.ops.pyreid.nearest_neighbors, (x, y, 3, metric))
    distances, indices = (t.detach() for t in ops.nearest_neighbors(x, y, 3, metric=metric))
    arguments = (torch.ones_like(distances), distances, indices, x.detach(), y.detach(), metric)
    torch.library.opcheck(torch.ops.pyreid.nearest_neighbors_backward, arguments)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_graph_breaks(dynamic: bool, device: str) -> None:
    def call(a: Tensor, b: Tensor, k: int) -> tuple[Tensor, Tensor]:
        return ops.nearest_neighbors(a, b, k, metric="cosine")

    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for rows, k in [(6, 3), (9, 3), (11, 5)]:
        x = torch.randn(rows, 8, device=device, requires_grad=True)
        y = torch.randn(20, 8, device=device)
        ours, expected = compiled(x, y, k), call(x, y, k)
        assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))
        grads = [torch.autograd.grad(distances.sum(), x)[0] for distances, _ in (ours, expected)]
        assert torch.equal(*grads)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("q", "g", "d", "k"), [(0, 4, 3, 2), (4, 5, 3, 0), (0, 0, 3, 0), (3, 0, 2, 0), (2, 3, 0, 3)])
@pytest.mark.parametrize("metric", METRICS)
def test_empty(q: int, g: int, d: int, k: int, metric: str, device: str) -> None:
    query, gallery = (torch.zeros(n, d, device=device, requires_grad=True) for n in (q, g))
    distances, indices = ops.nearest_neighbors(query, gallery, k, metric=metric)
    assert distances.shape == indices.shape == (q, k)
    assert torch.equal(distances, torch.full_like(distances, float(metric == "cosine")))
    assert indices.tolist() == [list(range(k))] * q
    grads = torch.autograd.grad(distances.sum(), (query, gallery))
    assert all(not grad.any() and grad.shape == x.shape for grad, x in zip(grads, (query, gallery), strict=True))


@pytest.mark.parametrize("device", DEVICES)
def test_strides_and_types_do_not_matter(device: str) -> None:
    x, y = integers(12, 20).to(device), integers(20, 30).to(device)
    expected = ops.nearest_neighbors(x.T.contiguous(), y[:, ::2][:, :12].contiguous(), 9)
    found = ops.nearest_neighbors(x.T, y[:, ::2][:, :12], 9)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    mixed = ops.nearest_neighbors(x.T.half(), y[:, ::2][:, :12].double(), 9)
    assert mixed[0].dtype == torch.float64
    assert torch.equal(mixed[1], expected[1])


@pytest.mark.parametrize("device", DEVICES)
def test_bits_repeat(device: str) -> None:
    x = torch.randn(60, 300, device=device, requires_grad=True)
    y = torch.randn(3000, 300, device=device, requires_grad=True)
    runs = []
    for _ in range(2):
        distances, indices = ops.nearest_neighbors(x, y, 50)
        runs.append((distances, indices, *torch.autograd.grad(distances.square().sum(), (x, y))))
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize("device", DEVICES)
def test_autocast_and_precision_do_not_matter(device: str) -> None:
    # so large that torch would take bfloat16 products for it, if it were let
    x, y = torch.randn(256, 512, device=device), torch.randn(512, 512, device=device)
    expected = ops.nearest_neighbors(x, y, 30)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast(device, dtype=torch.bfloat16):
            found = ops.nearest_neighbors(x, y, 30)
    finally:
        torch.set_float32_matmul_precision(before)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


PROGRAM = """
import hashlib, sys
import torch
from pyreid import ops
torch.set_num_threads(int(sys.argv[1]))
torch.manual_seed(0)
digest = hashlib.sha256()
for dtype in (torch.float32, torch.float64):
    for metric in ("euclidean", "cosine"):
        x, y = (torch.randint(-4, 5, (n, 16), dtype=dtype) for n in (300, 9001))
        for k in (1, 33, 700):
            distances, indices = ops.nearest_neighbors(x, y, k, metric=metric)
            if metric == "euclidean":
                digest.update(indices.numpy().tobytes() + distances.numpy().tobytes())
            elif sys.argv[2] == "same":
                x.requires_grad_()
                grad = torch.autograd.grad(ops.nearest_neighbors(x, y, k, metric=metric)[0].sum(), x)[0]
                digest.update(indices.numpy().tobytes() + distances.detach().numpy().tobytes() + grad.numpy().tobytes())
                x.requires_grad_(False)
print(digest.hexdigest())
"""


def run_program(isa: str, threads: int, what: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(threads), what],
        env=os.environ | {"PYREID_CPU_ISA": isa},
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=True,
    )
    return done.stdout


def test_threads_and_instruction_sets_agree() -> None:
    # exact distances agree everywhere; cosine's, whose norms are rounded, and gradients for one instruction set
    assert len({run_program(isa, n, "exact") for isa, n in [("avx512", 1), ("avx2", 2), ("baseline", 2)]}) == 1
    assert run_program("avx512", 1, "same") == run_program("avx512", 2, "same")


MEMORY = """
import re
from pathlib import Path
import torch
from pyreid import ops
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
torch.set_num_threads(1)
query, gallery = torch.randn(256, 4), torch.randn(1_000_000, 4)
ops.nearest_neighbors(query[:8], gallery[:5000], 10)
before = peak()
ops.nearest_neighbors(query, gallery, 10)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_product() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    # KiB. The matrix would be 1 GB; the hashes of a million rows, sorted, their norms and a tile are not a tenth of it.
    assert int(done.stdout) < 100_000


def test_second_derivative_is_refused() -> None:
    x = torch.randn(3, 4, requires_grad=True)
    (grad,) = torch.autograd.grad(ops.nearest_neighbors(x, x.detach() + 1, 2)[0].sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        grad.sum().backward()


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"query": [[1.0]]}, TypeError, "query: expected a torch.Tensor"),
        ({"gallery": torch.zeros(5, 3, dtype=torch.int64)}, TypeError, "gallery: expected float16"),
        ({"query": torch.zeros(3)}, ValueError, "query: expected a 2-D tensor"),
        ({"gallery": torch.zeros(5, 4)}, ValueError, "gallery: expected 3 columns to match query"),
        ({"gallery": torch.zeros(5, 3, device="meta")}, ValueError, "gallery: expected to be on cpu"),
        ({"k": 6}, ValueError, "k: expected 0 to 5, the rows of gallery, got 6"),
        ({"k": -1}, ValueError, "k: expected 0 to 5"),
        ({"k": 2.0}, TypeError, "k: expected an integer, got float"),
        ({"k": True}, TypeError, "k: expected an integer, got bool"),
        ({"metric": "manhattan"}, ValueError, "metric: expected one of"),
    ],
)
def test_bad_input(arguments: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        ops.nearest_neighbors(**({"query": torch.zeros(2, 3), "gallery": torch.zeros(5, 3), "k": 2} | arguments))


def test_many_neighbors_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_checks, "CUDA_PROBLEM", None)
    with FakeTensorMode(), pytest.raises(ValueError, match="k: expected at most 2048 on CUDA, got 2049"):
        ops.nearest_neighbors(torch.zeros(2, 3, device="cuda"), torch.zeros(3000, 3, device="cuda"), 2049)


def test_bad_input_of_the_kernels() -> None:
    products, kept = torch.zeros(2, 5), torch.zeros(2, 3, dtype=torch.int64)
    column = torch.zeros(5)
    calls: list[tuple[tuple[Any, ...], str]] = [
        ((kept[:1], products, column, None, 0), "kept must be contiguous int64 with 2 rows"),
        ((kept.int(), products, column, None, 0), "kept must be contiguous int64"),
        ((kept, products, column, column, 0), "exclude each other"),
        ((kept, products, column[1:], None, 0), "offset must be contiguous with 5 elements"),
        ((kept, products, column.double(), None, 0), "differ in dtype"),
        ((kept, products.double(), None, None, 0), "rows of 2 words a neighbor"),
        ((kept, products.half(), None, None, 0), "expected float32 or float64"),
        ((kept, products, None, None, -1), "first must not be negative"),
        ((kept, products, None, None, 2**32), "fewer than 2\\^32 rows"),
        ((kept, products.T.contiguous().T, None, None, 0), "dense rows"),
    ]
    for arguments, match in calls:
        with pytest.raises(RuntimeError, match=match):
            torch.ops.pyreid.keep_nearest(*arguments)
    x, y, norms = torch.zeros(2, 3), torch.zeros(5, 3), torch.zeros(2)
    for arguments, match in [
        ((kept, x, y[:, :2], norms, column, "cosine"), "gallery must be contiguous with shape"),
        ((kept, x, y, column, column, "cosine"), "a norm is needed for each row"),
        ((kept, x, y.double(), norms, column, "cosine"), "differ in dtype"),
        ((kept, x, y, norms, column, "manhattan"), "metric: expected"),
    ]:
        with pytest.raises(RuntimeError, match=match):
            torch.ops.pyreid.nearest_distances(*arguments)
    pairs = torch.zeros(2, 3, dtype=torch.int64)
    order, starts = torch.arange(6), torch.tensor([0, 6, 6, 6, 6, 6])
    features = (x, y, norms, column, "euclidean")
    for arguments, match in [
        ((pairs.float(), pairs.float(), pairs + 5, order, starts, *features), "indices holds 5"),
        ((pairs.float(), pairs.float(), pairs, order + 1, starts, *features), "order holds 6"),
        ((pairs.float(), pairs.float(), pairs, order, starts - 1, *features), "starts must ascend"),
        ((pairs.float(), pairs.float()[:1], pairs, order, starts, *features), "distances must be contiguous"),
    ]:
        with pytest.raises(RuntimeError, match=match):
            torch.ops.pyreid.nearest_gradients(*arguments)
