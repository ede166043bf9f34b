"""Breakdown by group, confidence intervals and paired comparison of evaluations."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from pyreid.evaluation import EvaluationResult, breakdown, compare, confidence_intervals, evaluate
from python_tests.evaluation.test_evaluate import integer_problem


def result_of(
    scores: Any, *, ids: Any = None, cams: Any = None, first: Any = None, no_match: str = "skip", ap: str = "step"
) -> EvaluationResult:
    """A result with given AP, NaN for a query without a match; INP is its square."""
    ap_values = np.array(scores, dtype=np.float64)
    matched = ~np.isnan(ap_values)
    if no_match == "zero":
        ap_values = np.nan_to_num(ap_values)
    if first is None:
        first = np.where(matched, (1 / np.maximum(np.nan_to_num(ap_values), 0.05)).astype(int) - 1, -1)
    return EvaluationResult(
        map=float(np.nanmean(ap_values)),
        cmc=np.zeros(3),
        minp=float(np.nanmean(ap_values**2)),
        map_step=0.0,
        map_trapezoid=0.0,
        average_precision=ap_values,
        inverse_negative_penalty=ap_values**2,
        first_match_rank=np.array(first),
        num_queries=len(ap_values),
        num_skipped=int((~matched).sum()),
        settings={"no_match": no_match, "ap": ap, "camera_filter": cams is not None},
        query_ids=None if ids is None else np.array(ids),
        query_cams=None if cams is None else np.array(cams),
    )


def random_result(seed: int, size: int = 60, **options: Any) -> EvaluationResult:
    rng = np.random.default_rng(seed)
    return result_of(rng.beta(2, 1, size), ids=np.arange(size) // 3, **options)


# ------------------------------------------------------------------------------------------------------ the result


def test_a_result_knows_its_queries_and_is_read_only() -> None:
    problem = integer_problem(20, 100, num_ids=5, num_cams=2)
    result = evaluate(*problem)
    assert result.query_ids is not None
    assert result.query_cams is not None
    assert result.query_ids.tolist() == problem[2].tolist()
    assert result.query_cams.tolist() == problem[4].tolist()  # type: ignore[union-attr]
    for array in (result.cmc, result.average_precision, result.first_match_rank, result.query_ids, result.query_cams):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 7
    problem[2][0] = 99  # the caller's array stays his: writable, and not that of the result
    assert result.query_ids[0] != 99
    assert evaluate(*problem[:4]).query_cams is None


@pytest.mark.parametrize("no_match", ["skip", "zero"])
def test_results_come_back_from_files(no_match: Any, tmp_path: Path) -> None:
    result = evaluate(*integer_problem(20, 60, num_ids=9, num_cams=2), no_match=no_match)
    assert result.num_skipped > 0
    result.save(tmp_path / "result.json")
    loaded = EvaluationResult.load(tmp_path / "result.json")
    assert loaded.to_dict() == result.to_dict()
    assert loaded.rank(3) == result.rank(3)
    assert loaded.summary() == result.summary()
    assert compare(result, loaded)["map"].p_value == 1
    for name in ("average_precision", "first_match_rank", "cmc", "query_ids"):
        assert getattr(loaded, name).dtype == getattr(result, name).dtype


def test_files_of_earlier_versions_and_other_files(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    plain = evaluate(*integer_problem(20, 60, num_ids=9, num_cams=2)).to_dict()
    old = {key: value for key, value in plain.items() if key not in ("query_ids", "query_cams")}
    path.write_text(json.dumps(old))
    assert EvaluationResult.load(path).query_ids is None
    for wrong in (
        "{",
        "[]",
        "{}",
        json.dumps(plain | {"query_ids": [1]}),
        json.dumps(plain | {"map": "high"}),
        json.dumps(plain | {"settings": {}}),
    ):
        path.write_text(wrong)
        with pytest.raises(ValueError, match=r"result\.json"):
            EvaluationResult.load(path)


# ------------------------------------------------------------------------------------------------------- breakdown


@pytest.mark.filterwarnings("ignore:none of the")
@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(
    st.integers(1, 25), st.integers(1, 40), st.integers(1, 6), st.sampled_from(["skip", "zero"]), st.integers(0, 10**6)
)
def test_a_group_is_the_evaluation_of_its_queries(
    num_query: int, num_gallery: int, num_ids: int, no_match: Any, seed: int
) -> None:
    problem = integer_problem(num_query, num_gallery, num_ids=num_ids, num_cams=3, seed=seed)
    query, gallery, q_ids, g_ids, q_cams, g_cams = problem
    assert q_cams is not None
    result = evaluate(*problem, no_match=no_match)
    labels = np.random.default_rng(seed).integers(-2, 2, num_query)
    for by, values in (("camera", q_cams), ("identity", q_ids), (labels, labels)):
        groups = breakdown(result, by)
        assert groups.labels.tolist() == sorted(set(values.tolist()))
        for i, label in enumerate(groups.labels):
            own = values == label
            alone = evaluate(query[own], gallery, q_ids[own], g_ids, q_cams[own], g_cams, no_match=no_match)
            assert groups.num_queries[i] == alone.num_queries
            assert groups.num_scored[i] == alone.num_queries - (no_match == "skip") * alone.num_skipped
            np.testing.assert_allclose(groups.map[i], alone.map, atol=1e-14)
            np.testing.assert_allclose(groups.minp[i], alone.minp, atol=1e-14)
            for k in (1, 4):
                np.testing.assert_allclose(groups.rank(k)[i], alone.rank(k), atol=1e-14)
        scored = groups.num_scored > 0
        total = (groups.map[scored] * groups.num_scored[scored]).sum() / max(1, groups.num_scored.sum())
        assert math.isnan(result.map) or total == pytest.approx(result.map, abs=1e-13)


def test_breakdown_for_people_and_files() -> None:
    result = result_of([0.5, 1.0, math.nan, 0.25, math.nan], cams=[3, 3, 3, 1, 2], ids=[1, 2, 3, 4, 5])
    groups = breakdown(result)
    lines = groups.summary().splitlines()
    assert lines[0].split() == ["camera", "queries", "mAP", "mINP", "rank-1", "rank-5"]
    assert lines[1].split() == ["1", "1", "25.00", "%", "6.25", "%", "0.00", "%", "100.00", "%"]
    assert [line.split()[0] for line in lines[1:]] == ["1", "3", "2"]  # worst first, those without a score last
    assert lines[3].split() == ["2", "1", "-", "-", "-", "-"]
    assert groups.summary(limit=1).splitlines()[-1] == "... and 2 more"
    plain = groups.to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["by"] == "camera"
    assert plain["groups"][1] == {
        "label": 2, "num_queries": 1, "num_scored": 0,
        "map": None, "minp": None, "rank1": None, "rank5": None, "rank10": None,
    }  # fmt: skip
    with pytest.raises(ValueError, match="read-only"):
        groups.map[0] = 1
    with pytest.raises(ValueError, match="k: expected at least 1, got 0"):
        groups.rank(0)


def test_breakdown_of_bad_input() -> None:
    result = result_of([0.5, 1.0])
    with pytest.raises(ValueError, match="by: expected 'camera', 'identity' or one integer for each query, got 'cam'"):
        breakdown(result, "cam")
    with pytest.raises(ValueError, match="by: result does not know the camera of its queries"):
        breakdown(result)
    with pytest.raises(ValueError, match="by: result does not know the identity of its queries"):
        breakdown(result, "identity")
    with pytest.raises(ValueError, match=r"by: expected shape \(2,\), one for each query, got \(3,\)"):
        breakdown(result, [1, 2, 3])
    with pytest.raises(TypeError, match="by: expected integers"):
        breakdown(result, [1.5, 2.5])


# -------------------------------------------------------------------------------------------- confidence intervals


def naive_bca(values: list[float], draws: list[list[int]], level: float) -> tuple[float, float]:
    """Efron's interval of a mean as the book has it, in loops."""
    n, normal = len(values), NormalDist()
    estimate = math.fsum(values) / n
    drawn = sorted(math.fsum(values[i] for i in draw) / n for draw in draws)
    below = sum(d < estimate - 1e-14 for d in drawn) + 0.5 * sum(abs(d - estimate) <= 1e-14 for d in drawn)
    z0 = normal.inv_cdf(below / len(drawn))
    jackknife = [(math.fsum(values) - v) / (n - 1) for v in values]
    middle = math.fsum(jackknife) / n
    cubes = math.fsum((middle - j) ** 3 for j in jackknife)
    squares = math.fsum((middle - j) ** 2 for j in jackknife)
    a = cubes / (6 * squares**1.5)
    ends = []
    for tail in ((1 - level) / 2, (1 + level) / 2):
        z = z0 + normal.inv_cdf(tail)
        place = normal.cdf(z0 + z / (1 - a * z)) * (len(drawn) - 1)
        left = min(int(place), len(drawn) - 2)
        ends.append(drawn[left] + (place - left) * (drawn[left + 1] - drawn[left]))
    return ends[0], ends[1]


@pytest.mark.parametrize("level", [0.5, 0.95])
@pytest.mark.parametrize("size", [2, 3, 17, 60])
def test_intervals_equal_loops(size: int, level: float) -> None:
    result = random_result(size, size)
    found = confidence_intervals(result, ranks=(), level=level, resamples=500, seed=7)
    draws = np.random.default_rng((7, 0)).integers(0, size, (500, size)).tolist()
    for name, values in (("map", result.average_precision), ("minp", result.inverse_negative_penalty)):
        low, high = naive_bca(values.tolist(), draws, level)
        assert (found[name].low, found[name].high) == pytest.approx((low, high), abs=1e-12)
        assert found[name].value == pytest.approx(values.mean())
        assert values.min() <= found[name].low <= found[name].high <= values.max()


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    # AP of Beta(4, 1): skewed as that of a good model, mean 0.8. 400 evaluations of 50 queries each.
    inside = 0
    for seed in range(400):
        scores = np.random.default_rng(seed).beta(4, 1, 50)
        interval = confidence_intervals(result_of(scores), ranks=(), resamples=1000, seed=seed)["map"]
        inside += interval.low <= 0.8 <= interval.high
    # five standard deviations of the count are 400^-0.5 * 5 * (0.95 * 0.05)^0.5 = 5.4 points; the bootstrap's own
    # error at 50 queries is about one point
    assert 0.885 <= inside / 400 <= 1


def test_intervals_of_many_queries_are_those_of_the_normal_distribution() -> None:
    result = random_result(0, 4000)
    found = confidence_intervals(result, resamples=4000)
    for name, values in (("map", result.average_precision), ("rank1", (result.first_match_rank == 0) * 1.0)):
        error = values.std(ddof=1) / 4000**0.5
        # the 2.5 % quantile of 4000 draws has a standard deviation of about 0.04 standard errors
        assert found[name].low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
        assert found[name].high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)


def test_intervals_by_identity() -> None:
    """Copies of queries add nothing that identities do not know."""
    few = random_result(1, 30)
    copies = result_of(np.repeat(few.average_precision, 4), ids=np.repeat(np.arange(30), 4))
    by_query = confidence_intervals(few, resamples=300)
    by_identity = confidence_intervals(copies, resamples=300, unit="identity")
    assert by_identity.num_units == by_query.num_units == 30
    for name, interval in by_query.intervals.items():
        assert by_identity[name].low == pytest.approx(interval.low, abs=1e-12)
        assert by_identity[name].high == pytest.approx(interval.high, abs=1e-12)
    narrow = confidence_intervals(copies, resamples=300)["map"]
    assert narrow.high - narrow.low < 0.7 * (by_query["map"].high - by_query["map"].low)


def test_identities_of_several_sizes_equal_loops() -> None:
    rng = np.random.default_rng(5)
    ids, scores = rng.integers(0, 9, 40), rng.random(40)
    found = confidence_intervals(result_of(scores, ids=ids), ranks=(), resamples=400, seed=3, unit="identity")["map"]
    groups = [scores[ids == i] for i in sorted(set(ids.tolist()))]
    draws = np.random.default_rng((3, 0)).integers(0, len(groups), (400, len(groups)))
    means = np.array([np.concatenate([groups[i] for i in draw]).mean() for draw in draws])
    gap = means - scores.mean()
    below = NormalDist().inv_cdf(((gap < -1e-14).sum() + 0.5 * (abs(gap) <= 1e-14).sum()) / 400)
    jackknife = np.array([np.concatenate(groups[:i] + groups[i + 1 :]).mean() for i in range(len(groups))])
    turned = jackknife.mean() - jackknife
    a = (turned**3).sum() / (6 * (turned**2).sum() ** 1.5)
    z = below + np.array([NormalDist().inv_cdf(p) for p in (0.025, 0.975)])
    ends = np.quantile(means, [NormalDist().cdf(below + v / (1 - a * v)) for v in z])
    assert (found.low, found.high) == pytest.approx(tuple(ends), abs=1e-12)


@pytest.mark.parametrize("no_match", ["skip", "zero"])
def test_queries_without_a_match(no_match: str) -> None:
    with_gaps = result_of([0.5, math.nan, 1.0, 0.25, math.nan], no_match=no_match)
    without = result_of([0.5, 0.0, 1.0, 0.25, 0.0] if no_match == "zero" else [0.5, 1.0, 0.25])
    a = confidence_intervals(with_gaps, ranks=(), resamples=200)
    assert a == confidence_intervals(without, ranks=(), resamples=200)
    assert a["map"].value == pytest.approx(with_gaps.map)


def test_equal_scores_have_no_spread() -> None:
    third = 1 / 3
    found = confidence_intervals(result_of([third] * 7), ranks=(1, 5), resamples=100)
    assert (found["map"].low, found["map"].high) == pytest.approx((third, third), abs=1e-15)
    assert (found["rank1"].low, found["rank1"].high) == (0, 0)
    assert (found["rank5"].low, found["rank5"].high) == (1, 1)


def test_draws_repeat_and_follow_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyreid.evaluation import resampling

    result, other = random_result(0), random_result(1)
    first = confidence_intervals(result, seed=1), compare(result, other, seed=1)
    assert (confidence_intervals(result, seed=1), compare(result, other, seed=1)) == first
    monkeypatch.setattr(resampling, "_NUMBERS_AT_A_TIME", 999)  # odd parts
    assert confidence_intervals(result, seed=1).to_dict() == first[0].to_dict()
    assert confidence_intervals(result, seed=2)["map"] != first[0]["map"]
    assert compare(result, other, seed=2)["map"] != first[1]["map"]


def test_intervals_for_people_and_files() -> None:
    numbers: dict[str, Any] = {"ranks": np.array([2]), "resamples": np.int64(100), "level": np.float64(0.95)}
    found = confidence_intervals(result_of([0.5, 1.0, 0.5]), seed=np.int64(0), **numbers)
    lines = found.summary().splitlines()
    assert lines[0] == "95 % confidence, 100 draws of 3 queries"
    assert lines[1].startswith("map       66.67 % (")
    assert lines[3] == "rank2     100.00 % (100.00 % to 100.00 %)"
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False)) == found.to_dict()


OPTIONS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"ranks": (0,)}, ValueError, "ranks: expected at least 1, got 0"),
    ({"ranks": (1.5,)}, TypeError, "ranks: expected an integer, got float"),
    ({"level": 95}, ValueError, "level: expected a number between 0 and 1, such as 0.95, got 95"),
    ({"level": math.nan}, ValueError, "level: expected a number between 0 and 1"),
    ({"resamples": 99}, ValueError, "resamples: expected at least 100, got 99"),
    ({"resamples": 1e4}, TypeError, "resamples: expected an integer, got float"),
    ({"seed": -1}, ValueError, "seed: expected at least 0, got -1"),
    ({"unit": "camera"}, ValueError, "unit: expected one of 'query', 'identity', got 'camera'"),
    ({"unit": "identity"}, ValueError, "does not know the identities of its queries; take unit='query'"),
]


@pytest.mark.parametrize(("options", "error", "match"), OPTIONS)
def test_bad_options(options: dict[str, Any], error: type[Exception], match: str) -> None:
    result = result_of([0.5, 1.0])
    with pytest.raises(error, match=match):
        confidence_intervals(result, **options)
    with pytest.raises(error, match=match):
        compare(result, result, **options)


def test_one_query_has_no_interval() -> None:
    with pytest.raises(ValueError, match="result: expected at least 2 scored queries, got 1"):
        confidence_intervals(result_of([0.5, math.nan]))
    with pytest.raises(ValueError, match="result: expected at least 2 scored identities, got 1"):
        confidence_intervals(result_of([0.5, 0.7], ids=[3, 3]), unit="identity")
    with pytest.raises(ValueError, match="a: expected at least 2 scored identities, got 0"):
        compare(*2 * [result_of([0.0, 0.0], first=[-1, -1], ids=[3, 3])], unit="identity")


# ------------------------------------------------------------------------------------------------------ comparison


def exact_p_value(differences: list[float]) -> float:
    reached = abs(math.fsum(differences)) - 1e-9
    signs = itertools.product((1, -1), repeat=len(differences))
    sums = [abs(math.fsum(s * d for s, d in zip(sign, differences, strict=True))) for sign in signs]
    return sum(s >= reached for s in sums) / len(sums)


@pytest.mark.parametrize("seed", range(4))
def test_p_values_equal_all_signs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    before = rng.random(11)
    after = np.clip(before + rng.normal(0.1, 0.2, 11), 0.01, 1)
    a, b = result_of(before), result_of(after)
    found = compare(a, b, ranks=(1, 2), resamples=40_000, seed=seed)
    columns = {
        "map": after - before,
        "minp": after**2 - before**2,
        "rank1": (b.first_match_rank < 1) * 1.0 - (a.first_match_rank < 1),
        "rank2": (b.first_match_rank < 2) * 1.0 - (a.first_match_rank < 2),
    }
    for name, gains in columns.items():
        exact = exact_p_value(gains.tolist())
        assert found[name].p_value == pytest.approx(exact, abs=5 * (0.25 / 40_000) ** 0.5 + 1 / 40_000), name
        assert found[name].difference == pytest.approx(gains.mean(), abs=1e-15)
        assert found[name].difference == pytest.approx(found[name].b - found[name].a, abs=1e-15)


def test_the_interval_of_a_difference_is_that_of_the_paired_scores() -> None:
    rng = np.random.default_rng(0)
    before, gain = rng.random(50) / 2, rng.random(50) / 2
    found = compare(result_of(before), result_of(before + gain), ranks=(), resamples=500)["map"]
    alone = confidence_intervals(result_of(gain), ranks=(), resamples=500)["map"]
    assert (found.difference, found.low, found.high) == pytest.approx((alone.value, alone.low, alone.high), abs=1e-12)
    assert found.p_value == 1 / 501
    # pairing is the point: the spread of the scores themselves is much larger
    assert found.high - found.low < 0.15


def test_a_result_equals_itself_and_swapping_turns_the_sign() -> None:
    a, b = random_result(0), random_result(1)
    same = compare(a, a)["map"]
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    there, back = compare(a, b)["map"], compare(b, a)["map"]
    assert (there.difference, there.p_value) == (-back.difference, back.p_value)
    assert (there.a, there.b) == (back.b, back.a)


def test_chance_is_found_as_often_as_it_should() -> None:
    found = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        found += compare(result_of(rng.random(40)), result_of(rng.random(40)), resamples=200)["map"].p_value <= 0.05
    assert 0.01 <= found / 300 <= 0.05 + 5 * (0.05 * 0.95 / 300) ** 0.5


def test_comparison_by_identity() -> None:
    a, b = random_result(0, 20), random_result(1, 20)
    ids = np.repeat(np.arange(20), 3)
    copies = [result_of(np.repeat(r.average_precision, 3), ids=ids) for r in (a, b)]
    by_query, by_identity = compare(a, b, resamples=999), compare(*copies, resamples=999, unit="identity")
    for name, difference in by_query.differences.items():
        assert by_identity[name].p_value == difference.p_value
        assert by_identity[name].low == pytest.approx(difference.low, abs=1e-12)


def test_two_models_end_to_end() -> None:
    query, gallery, *labels = integer_problem(200, 600, num_ids=40, num_cams=3, dim=8)
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(41, 8))
    features = [
        (signal[labels[0]] + s * rng.normal(size=query.shape), signal[labels[1]] + s * rng.normal(size=gallery.shape))
        for s in (0.5, 1.0)
    ]
    good, poor = (evaluate(*pair, *labels) for pair in features)
    found = compare(poor, good)
    assert found["map"].difference == pytest.approx(good.map - poor.map, abs=1e-14)
    assert found["map"].low > 0
    assert found["map"].p_value < 0.001
    assert f"map       {100 * poor.map:.2f} % -> {100 * good.map:.2f} %: +" in found.summary()
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False)) == found.to_dict()


def test_other_queries_cannot_be_compared() -> None:
    a = result_of([0.5, 0.2, 1.0], ids=[4, 5, 6], cams=[1, 1, 2])
    cases: list[tuple[Any, type[Exception], str]] = [
        ({"map": 0.3}, TypeError, "b: expected an EvaluationResult, got dict"),
        (result_of([0.5, 0.2], ids=[4, 5], cams=[1, 1]), ValueError, "expected the queries of a, 3 of them, got 2"),
        (
            replace(a, query_ids=np.array([4, 6, 5])),
            ValueError,
            "2 identities differ, the first is that of query 1, 5 in a and 6 in b",
        ),
        (
            replace(a, query_cams=np.array([1, 1, 3])),
            ValueError,
            "1 cameras differ, the first is that of query 2, 2 in a and 3 in b",
        ),
        (replace(a, settings=a.settings | {"ap": "trapezoid"}), ValueError, "ap is 'step' in a and 'trapezoid' in b"),
        (replace(a, settings=a.settings | {"no_match": "zero"}), ValueError, "no_match is 'skip' in a and 'zero' in b"),
        (replace(a, settings=a.settings | {"camera_filter": False}), ValueError, "camera_filter is True in a and"),
        (
            replace(a, first_match_rank=np.array([0, -1, 0])),
            ValueError,
            "1 have a match in one gallery only, the first is query 1",
        ),
    ]
    for b, error, match in cases:
        with pytest.raises(error, match=match):
            compare(a, b)
    compare(a, replace(a, query_ids=None, query_cams=None))  # where they are not known the number has to do
