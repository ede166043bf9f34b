"""Ranks from screened half-precision products are those of float64 distances, whatever the features are like."""

from __future__ import annotations

from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from torch import Tensor

from pyreid.evaluation import evaluate, screening
from pyreid.evaluation.ranking import StripRanker, find_matches
from pyreid.evaluation.screening import rank_by_screening
from pyreid.ops.distance_tiles import inner_product_tiles, rank_column
from pyreid.ops.feature_blocks import feature_blocks
from pyreid.ops.features import checked_squared_norms
from pyreid.ops.low_precision import accumulation_error, multiply, rounded, unit_scale
from pyreid.ops.pair_products import pair_products
from python_tests.ops.checks import DEVICES

CPU = torch.device("cpu")
HALF = [torch.float16, torch.float32]


class Problem:
    """Clusters around a centre for each identity, all of them around one point ``away`` from the origin."""

    def __init__(
        self, num_query: int, num_gallery: int, *, dim: int = 24, num_ids: int = 7, away: float = 0.0, seed: int = 0
    ) -> None:
        rng = np.random.default_rng(seed)
        centres = rng.standard_normal((num_ids, dim)) * 0.4
        point = rng.standard_normal(dim)
        point *= away / np.linalg.norm(point)

        def draw(count: int) -> tuple[Tensor, np.ndarray, np.ndarray]:
            ids = rng.integers(0, num_ids, count)
            rows = centres[ids] + rng.standard_normal((count, dim)) + point
            return torch.from_numpy(rows.astype(np.float32)), ids, rng.integers(0, 4, count)

        self.query, self.query_ids, self.query_cams = draw(num_query)
        self.gallery, self.gallery_ids, self.gallery_cams = draw(num_gallery)
        self.is_junk = rng.random(num_gallery) < 0.05
        repeats = rng.integers(0, num_gallery, (num_gallery // 5, 2))
        self.gallery[repeats[:, 0]] = self.gallery[repeats[:, 1]]

    @property
    def matches(self) -> Any:
        return find_matches(self.query_ids, self.gallery_ids, self.query_cams, self.gallery_cams)

    def ranks(self, metric: str, *, device: torch.device = CPU, **options: Any) -> np.ndarray:
        return rank_by_screening(
            self.query.to(device),
            self.gallery.to(device),
            self.matches,
            self.query_ids,
            self.gallery_ids,
            self.is_junk,
            metric,  # type: ignore[arg-type]
            device,
            **options,
        )

    def exact(self, metric: str) -> np.ndarray:
        """By float64 products of whole strips."""
        query, gallery = self.query.double(), self.gallery.double()
        norms = checked_squared_norms("gallery", gallery, device=CPU, dtype=torch.float64)
        column = rank_column(norms, metric)  # type: ignore[arg-type]
        for values in column.values():
            values[torch.from_numpy(self.is_junk)] = torch.nan
        ranker = StripRanker(self.matches, CPU, **column)
        for rows, _, products in inner_product_tiles(query, gallery, device=CPU, dtype=torch.float64):
            ranker.rank(products, rows)
        return ranker.ranks


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(
    st.integers(1, 12),
    st.integers(1, 90),
    st.integers(1, 9),
    st.sampled_from([0.0, 1.0, 30.0, 3000.0]),
    st.sampled_from(["euclidean", "cosine"]),
    st.sampled_from(HALF),
    st.integers(0, 10**6),
)
def test_equals_float64(
    num_query: int, num_gallery: int, num_ids: int, away: float, metric: str, products: torch.dtype, seed: int
) -> None:
    problem = Problem(num_query, num_gallery, num_ids=num_ids, away=away, seed=seed)
    np.testing.assert_array_equal(problem.ranks(metric, products=products), problem.exact(metric))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
def test_a_larger_problem_in_blocks_and_strips(metric: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem(70, 2500, num_ids=30, dim=48)
    expected = problem.exact(metric)
    assert (expected >= 0).sum() > 3000
    whole = problem.ranks(metric, device=torch.device(device))
    np.testing.assert_array_equal(whole, expected)
    monkeypatch.setattr(screening, "_BLOCK_BYTES", 4 * 48 * 301)
    monkeypatch.setattr(screening, "_TILE_BYTES", 4 * 301 * 9)
    monkeypatch.setattr(screening, "_QUERY_BYTES", 4 * 48 * 33)
    monkeypatch.setattr(screening, "_GATHER_PAIRS", 5)
    monkeypatch.setattr(screening, "_SLOTS", 600)
    np.testing.assert_array_equal(problem.ranks(metric, device=torch.device(device)), expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_bound_decides(metric: str, device: str) -> None:
    # Without it the same products give other ranks, so these features need it.
    problem = Problem(40, 1500, num_ids=5, away=12.0)
    expected = problem.exact(metric)
    assert (problem.ranks(metric, device=torch.device(device), bounded=False) != expected).sum() > 100
    np.testing.assert_array_equal(problem.ranks(metric, device=torch.device(device)), expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("products", HALF)
def test_the_rounding_of_values_decides(products: torch.dtype, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Every feature is exact in float16, every product exact in float32, and the query so short that nothing but the
    # rounding of |g|^2 / 2 and of the value itself can count. In units of u = 2^-26, the step of float32 below 1/4:
    #   negative: |g|^2 / 2 = 1/4 + 1.25 u, q.g = 4.375 u: exactly 1/4 - 3.125 u, before the positive; but in float32
    #             |g|^2 / 2 becomes 1/4 + 2 u, and 1/4 - 2.375 u becomes 1/4 - 2 u, behind it by the whole step
    #   positive: |g|^2 / 2 = 1/4 - 3 u, a number of float32, and q.g = 0
    query = torch.tensor([[0, 0, 0, 35 * 2.0**-15, 0]])
    negative = [0.5, 0.5, 3 * 2.0**-14, 2.0**-14, 0]
    positive = [4096 * 2.0**-13, 4095 * 2.0**-13, 88 * 2.0**-13, 0, 21 * 2.0**-13]
    gallery = torch.tensor([positive, negative])
    exact = gallery.double().square().sum(1) / 2 - gallery.double() @ query[0].double()
    assert ((exact - 0.25) * 2.0**26).tolist() == [-3, -3.125]
    ids = np.array([0, 1])
    matches = find_matches(ids[:1], ids, None, None)

    def ranks() -> list[int]:
        on = torch.device(device)
        return rank_by_screening(
            query.to(on), gallery.to(on), matches, ids[:1], ids, ids < 0, "euclidean", on, products=products
        ).tolist()

    assert ranks() == [1]
    monkeypatch.setattr(screening, "_SLACK", 0.0)
    assert ranks() == [0]  # so these features need it


@pytest.mark.parametrize("device", DEVICES)
def test_lists_that_are_too_short_are_made_anew(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Far from the origin half precision tells nothing apart: every pair is open, in float32 most are.
    problem = Problem(9, 640, away=5000.0)
    calls: list[tuple[torch.dtype, int, int]] = []
    screen_block = screening._screen_block

    def spy(*arguments: Any) -> torch.dtype:
        chosen = screen_block(*arguments)
        calls.append((arguments[-1], len(arguments[2].features), chosen == torch.float32))
        return chosen

    monkeypatch.setattr(screening, "_screen_block", spy)
    monkeypatch.setattr(screening, "_BLOCK_BYTES", 4 * 24 * 320)
    ranks = problem.ranks("euclidean", device=torch.device(device))
    np.testing.assert_array_equal(ranks, problem.exact("euclidean"))
    assert calls == [(torch.float16, 320, True), (torch.float32, 320, True)]


@pytest.mark.parametrize("sizes", [(1e-12, 1.0), (1.0, 1e-12), (1e15, 1e-15), (1e18, 5e17), (1e-15, 1e-15)])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_features_of_any_size(sizes: tuple[float, float], metric: str) -> None:
    problem = Problem(12, 200)
    problem.query *= sizes[0]
    problem.gallery *= sizes[1]
    problem.gallery[::3] *= 1e-3
    np.testing.assert_array_equal(problem.ranks(metric), problem.exact(metric))


def test_rows_of_zeros_and_one_column() -> None:
    problem = Problem(6, 80, dim=1)
    problem.gallery[::7] = 0
    problem.query[2] = 0
    for metric in ("euclidean", "cosine"):
        np.testing.assert_array_equal(problem.ranks(metric), problem.exact(metric))


def test_queries_without_a_match_and_items_that_are_left_out() -> None:
    problem = Problem(5, 60, num_ids=3)
    problem.query_ids[:] = [9, 0, 9, 1, -1]
    problem.gallery_ids[:4] = -1
    problem.is_junk = problem.gallery_ids == -1
    np.testing.assert_array_equal(problem.ranks("euclidean"), problem.exact("euclidean"))
    problem.is_junk[:] = True
    assert (problem.ranks("euclidean") == -1).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("dim", [1, 24, 700])
def test_products_are_within_their_bound(dim: int, dtype: torch.dtype, device: str) -> None:
    generator = torch.Generator().manual_seed(dim)
    x, y = (torch.randn(50, dim, generator=generator).abs() + 0.5 for _ in range(2))
    x[0] *= 1e-7  # rows whose half-precision numbers are subnormal
    y[1] *= 1e-4
    scale = min(unit_scale(x.square().sum(1)), unit_scale(y.square().sum(1)))
    a, b = (rounded(t.to(device), scale, dtype) for t in (x, y))
    assert a.size.max() <= 1.001
    exact = (x.double() * scale) @ (y.double() * scale).t()
    relative = accumulation_error(dim, dtype)
    bound = a.error[:, None] * (b.size + b.error) + a.size[:, None] * (b.error + relative * b.size)
    off = (multiply(a.values, b.values).double().cpu() - exact).abs()
    assert bool((off <= bound.double().cpu()).all())
    assert float(off.max()) > 0.01 * 2.0**-24  # something was rounded
    for rows, t in ((a, x), (b, y)):
        assert bool(((t.double() * scale - rows.values.double().cpu()).norm(dim=1) <= rows.error.cpu()).all())


def test_parts_of_the_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = np.array([0, 4, 4, 9, 30, 31, 32, 32])
    monkeypatch.setattr(screening, "_SLOTS", 9)
    assert screening._parts(starts, 10) == [slice(0, 3), slice(3, 4), slice(4, 7)]
    assert screening._parts(starts, 2) == [slice(0, 2), slice(2, 3), slice(3, 4), slice(4, 6), slice(6, 7)]


def test_unit_scale() -> None:
    assert unit_scale(torch.tensor([0.0, 9.0])) == 0.25
    assert unit_scale(torch.tensor([4.0])) == 0.25
    assert unit_scale(torch.zeros(3)) == unit_scale(torch.zeros(0)) == 1.0


def test_products_of_pairs() -> None:
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(n, 33, generator=generator) for n in (4, 6))
    rows, items = torch.tensor([0, 3, 3, 1]), torch.tensor([5, 0, 5, 2])
    products = pair_products(x, y, rows, items)
    torch.testing.assert_close(products, (x.double()[rows] * y.double()[items]).sum(1), rtol=1e-14, atol=1e-14)
    with pytest.raises(RuntimeError, match="items holds 6, but there are 6 rows"):
        pair_products(x, y, rows, items + 1)
    with pytest.raises(RuntimeError, match="rows and items differ in length"):
        pair_products(x, y, rows[1:], items)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("rows", "per_block"), [(10, 3), (9, 3), (2, 5), (0, 4), (1, 1)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_blocks_of_features(rows: int, per_block: int, dtype: torch.dtype, device: str) -> None:
    features = torch.arange(rows * 4.0).view(rows, 4).to(dtype)
    found = [
        (part, block.clone())
        for part, block in feature_blocks(
            features, device=torch.device(device), dtype=torch.float32, rows_per_block=per_block
        )
    ]
    assert [part for part, _ in found] == [slice(b, min(b + per_block, rows)) for b in range(0, rows, per_block)]
    assert all(block.device.type == device and block.dtype == torch.float32 for _, block in found)
    assert torch.equal(torch.cat([torch.zeros(0, 4), *(block.cpu() for _, block in found)]), features.float())


@pytest.mark.gpu
def test_blocks_from_the_host_while_the_device_works() -> None:
    features = torch.randn(4000, 64)
    busy = torch.ones(2048, 2048, device="cuda")
    sums = []
    for _, block in feature_blocks(features, device=torch.device("cuda"), dtype=torch.float32, rows_per_block=100):
        busy = busy @ busy / 2048
        sums.append(block.double().sum() + busy[0, 0] * 0)
    torch.testing.assert_close(torch.stack(sums).cpu(), features.double().view(40, -1).sum(1))
    for _ in feature_blocks(features, device=torch.device("cuda"), dtype=torch.float32, rows_per_block=100):
        break  # leaving early waits for what is on its way


@pytest.mark.gpu
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_precision_of_evaluate(metric: Any) -> None:
    problem = Problem(60, 3000, num_ids=20, dim=64)
    arguments = (problem.query, problem.gallery, problem.query_ids, problem.gallery_ids)
    exact, fp32, fast = (
        evaluate(*arguments, metric=metric, device="cuda", precision=p)  # type: ignore[arg-type]
        for p in ("exact", "fp32", "fast")
    )
    assert exact.settings["precision"] == "exact"
    assert "precision" not in fp32.settings
    expected = evaluate(problem.query.double(), problem.gallery.double(), *arguments[2:], metric=metric)
    np.testing.assert_array_equal(exact.average_precision, expected.average_precision)
    assert fp32.map == pytest.approx(expected.map, abs=1e-4)
    assert fast.map == pytest.approx(expected.map, abs=1e-2)


def test_precision_is_checked_and_leaves_the_cpu_alone() -> None:
    features = np.eye(4, dtype=np.float32)
    with pytest.raises(ValueError, match="precision: expected one of 'exact', 'fp32', 'fast', got 'half'"):
        evaluate(features, features, range(4), range(4), precision="half")  # type: ignore[arg-type]
    result = evaluate(features, features, np.arange(4), np.arange(4), precision="fast")
    assert "precision" not in result.settings


@pytest.mark.parametrize("device", DEVICES)
def test_autocast_changes_nothing(device: str) -> None:
    problem = Problem(20, 300)
    expected = problem.exact("euclidean")
    with torch.autocast(device, dtype=torch.bfloat16):
        np.testing.assert_array_equal(problem.ranks("euclidean", device=torch.device(device)), expected)
