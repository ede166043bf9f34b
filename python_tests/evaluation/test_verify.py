from __future__ import annotations

import json
import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch

from pyreid.evaluation import VerificationResult, verification, verify
from python_tests.evaluation.test_evaluate import METRICS, Problem, integer_problem, run_code
from python_tests.ops.checks import DEVICES

RATES = (0, 1e-3, 0.01, 0.1, 0.3, 0.999)


def dense_distances(query: np.ndarray, gallery: np.ndarray, metric: str) -> np.ndarray:
    """All distances in float64, then rounded."""
    q, g = query.astype(np.float64), gallery.astype(np.float64)
    if metric == "cosine":
        lengths = np.linalg.norm(q, axis=1)[:, None] * np.linalg.norm(g, axis=1)
        return (1 - np.where(lengths > 0, q @ g.T / np.where(lengths > 0, lengths, 1), 0)).astype(np.float32)
    squares = ((q[:, None] - g) ** 2).sum(2)
    return (np.sqrt(squares) if metric == "euclidean" else squares).astype(np.float32)


def kept_pairs(distances: np.ndarray, problem: Problem) -> tuple[list[float], list[float]]:
    """Sorted distances of the pairs of one and of two identities."""
    _, _, q_ids, g_ids, q_cams, g_cams = problem
    positive, negative = [], []
    for q in range(len(q_ids)):
        for g in range(len(g_ids)):
            if g_ids[g] == -1:
                continue
            if q_ids[q] != g_ids[g]:
                negative.append(float(distances[q, g]))
            elif q_cams is None or g_cams is None or q_cams[q] != g_cams[g]:
                positive.append(float(distances[q, g]))
    return sorted(positive), sorted(negative)


def accepted(sorted_distances: list[float], threshold: float) -> Fraction:
    return Fraction(sum(d < threshold for d in sorted_distances), len(sorted_distances))


def assert_exact(result: VerificationResult, positive: list[float], negative: list[float]) -> None:
    assert (result.num_positive, result.num_negative) == (len(positive), len(negative))
    # every place where a threshold changes something: at each distance, and past the last
    cuts = [*sorted({*positive, *negative}), math.inf]
    points = [(t, accepted(positive, t), accepted(negative, t)) for t in cuts]
    for i, rate in enumerate(result.fprs.tolist()):
        allowed = [point for point in points if point[2] <= Fraction(Decimal(repr(rate)))]
        threshold, tpr, fpr = allowed[-1]
        assert result.thresholds[i] == threshold
        assert (result.tpr[i], result.fpr[i]) == (float(tpr), float(fpr))
        assert result.tpr_at(rate) == float(tpr)
        assert result.threshold_at(rate) == threshold
    # equal error rate: where the line through the points of the ROC meets FPR = 1 - TPR
    crossing = next(i for i, (_, tpr, fpr) in enumerate(points) if fpr >= 1 - tpr)
    (_, tpr0, fpr0), (_, tpr1, fpr1) = points[crossing - 1 : crossing + 1]
    short, over = 1 - tpr0 - fpr0, fpr1 - (1 - tpr1)
    assert result.eer == float(fpr0 + (fpr1 - fpr0) * short / (short + over))
    near = min(abs(1 - tpr - fpr) for _, tpr, fpr in points)
    t = result.eer_threshold
    assert abs(1 - accepted(positive, t) - accepted(negative, t)) == near
    # the curve: exact at its thresholds, from nothing to everything, no step wider than a 256th
    for t, tpr, fpr in zip(result.roc_thresholds, result.roc_tpr, result.roc_fpr, strict=True):
        assert (tpr, fpr) == (float(accepted(positive, t)), float(accepted(negative, t)))
    assert (result.roc_tpr[0], result.roc_fpr[0], result.roc_tpr[-1], result.roc_fpr[-1]) == (0, 0, 1, 1)
    ends = result.roc_thresholds
    for d in {*positive, *negative}:
        i = int(np.searchsorted(ends, d, side="right"))
        assert d < ends[i] <= d * (1 + 2**-7) or d < 1e-30


@hypothesis.settings(deadline=None, max_examples=120)
@hypothesis.given(
    st.integers(1, 8),
    st.integers(1, 30),
    st.integers(1, 5),
    st.integers(0, 3),
    st.integers(0, 9),
    st.sampled_from(METRICS),
    st.sampled_from([np.float32, np.float64, np.float16]),
    st.integers(0, 10**6),
)
def test_equals_all_pairs(
    num_query: int, num_gallery: int, num_ids: int, num_cams: int, levels: int, metric: Any, dtype: Any, seed: int
) -> None:
    problem = integer_problem(
        num_query, num_gallery, num_ids=num_ids, num_cams=num_cams, levels=levels, dim=4, seed=seed
    )
    query, gallery, *labels = problem
    if metric == "cosine":  # rows of length 2 or 0: every step is exact
        query, gallery = (np.where(f < 0, -1, 1) * (f[:, :1] != 1) for f in (query, gallery))
    query, gallery = query.astype(dtype), gallery.astype(dtype)
    positive, negative = kept_pairs(dense_distances(query, gallery, metric), problem)
    if not positive or not negative:
        with pytest.raises(ValueError, match="there is nothing to"):
            verify(query, gallery, *labels, metric=metric)
        return
    assert_exact(verify(query, gallery, *labels, metric=metric, fprs=RATES), positive, negative)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", METRICS)
def test_real_features_in_float64(metric: Any, device: str) -> None:
    rng = np.random.default_rng(0)
    query, gallery = rng.standard_normal((20, 9)), rng.standard_normal((130, 9))
    labels = (rng.integers(0, 6, 20), rng.integers(-1, 6, 130), rng.integers(0, 3, 20), rng.integers(0, 3, 130))
    # no two distances are within a rounding of float64 of each other, but some may round to another float32
    result = verify(
        torch.from_numpy(query).to(device), torch.from_numpy(gallery).to(device), *labels, metric=metric, fprs=RATES
    )
    positive, negative = kept_pairs(dense_distances(query, gallery, metric), (query, gallery, *labels))
    assert_exact(result, positive, negative)


def test_pairs_by_hand() -> None:
    # distances 0 1 2 3 4 5: own camera, same, other, same, junk, other
    gallery = np.arange(6, dtype=np.float32)[:, None]
    result = verify(np.zeros((1, 1)), gallery, [7], [7, 7, 8, 7, -1, 9], [0], [0, 1, 0, 1, 1, 0], fprs=(0, 0.5))
    assert (result.num_positive, result.num_negative) == (2, 2)
    assert result.thresholds.tolist() == [2, 5]
    assert result.tpr.tolist() == [0.5, 1]
    assert result.fpr.tolist() == [0, 0.5]
    assert result.eer == 0.5
    assert result.roc_fpr.tolist() == [0, 0, 0.5, 0.5, 1]
    assert result.roc_tpr.tolist() == [0, 0.5, 0.5, 1, 1]
    without = verify(np.zeros((1, 1)), gallery, [7], [7, 7, 8, 7, -1, 9], fprs=(0,))
    assert (without.num_positive, without.num_negative) == (3, 2)


def test_perfect_and_hopeless() -> None:
    gallery = np.array([[1.0], [2.0], [3.0], [4.0]])
    good = verify(np.zeros((1, 1)), gallery, [0], [0, 0, 1, 1])
    assert (good.eer, good.tpr.tolist(), good.eer_threshold) == (
        0,
        [1, 1, 1, 1],
        np.nextafter(np.float32(2), np.float32(3)),
    )
    bad = verify(np.zeros((1, 1)), gallery, [0], [1, 1, 0, 0])
    assert (bad.eer, bad.tpr.tolist()) == (1, [0, 0, 0, 0])
    same = verify(np.ones((3, 2)), np.ones((5, 2)), [0, 1, 2], [0, 0, 1, 1, 2], fprs=(0.5,))
    assert (same.eer, same.thresholds.tolist(), same.tpr.tolist(), same.fpr.tolist()) == (0.5, [0], [0], [0])


@pytest.mark.parametrize("metric", METRICS)
def test_no_pair_is_lost_to_rounding(metric: Any) -> None:
    # the squared distance of a row to itself comes out negative here and there
    x = 100 + np.random.default_rng(0).standard_normal((200, 33)).astype(np.float32)
    result = verify(x, x, np.arange(200), np.arange(200), metric=metric)
    assert (result.num_positive, result.num_negative) == (200, 200 * 199)


def test_rates_are_decimal_numbers() -> None:
    # 0.29 * 100 is 28.999999999999996 in floating point
    gallery = np.arange(1, 102, dtype=np.float64)[:, None]
    result = verify(np.zeros((1, 1)), gallery, [0], [0] + [1] * 100, fprs=(0.29,))
    assert result.fpr.tolist() == [0.29]


def test_order_strips_and_threads_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyreid.ops import distance_tiles

    query, gallery, q_ids, g_ids, q_cams, g_cams = integer_problem(90, 500, num_ids=20, num_cams=3, dim=6, levels=9)
    assert q_cams is not None
    assert g_cams is not None
    expected = verify(query, gallery, q_ids, g_ids, q_cams, g_cams).to_dict()
    rng = np.random.default_rng(0)
    p, r = rng.permutation(500), rng.permutation(90)
    shuffled = (query[r], gallery[p], q_ids[r], g_ids[p], q_cams[r], g_cams[p])
    assert verify(*shuffled).to_dict() == expected
    monkeypatch.setattr(verification, "_PAIRS_AT_A_TIME", 1700)
    monkeypatch.setattr(distance_tiles, "_MIN_ROWS", 1)
    monkeypatch.setattr(distance_tiles, "_TILE_BYTES", {"cpu": 10**5, "cuda": 10**5})
    assert verify(query, gallery, q_ids, g_ids, q_cams, g_cams).to_dict() == expected


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean"])
@pytest.mark.parametrize("exponent", [-480, -140, 140, 480])
def test_no_distance_of_float64_is_too_large_or_too_small(exponent: int, metric: Any, device: str) -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((20, 9)), rng.standard_normal((130, 9))
    labels = (rng.integers(0, 6, 20), rng.integers(-1, 6, 130), rng.integers(0, 3, 20), rng.integers(0, 3, 130))

    def found(factor: float) -> dict[str, Any]:
        sets = (torch.from_numpy(side * factor).to(device) for side in features)
        return verify(*sets, *labels, metric=metric, fprs=RATES).to_dict()

    expected, unit = found(1.0), 2.0 ** (exponent * (1 if metric == "euclidean" else 2))  # exact, as all that follows
    for name in ("thresholds", "roc_thresholds"):
        expected[name] = [threshold * unit for threshold in expected[name]]
    expected["eer_threshold"] *= unit
    assert found(2.0**exponent) == expected


def test_integers_of_float64_are_rounded_as_float32_is() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.random(1000), 1 + np.arange(8) * 2.0**-25, [0.0, math.inf]])
    wide, narrow = (verification._NUMBERS[dtype] for dtype in (torch.float64, torch.float32))
    rounded = wide.values(wide.bits(torch.from_numpy(values)).numpy())
    np.testing.assert_array_equal(rounded, values.astype(np.float32))
    np.testing.assert_array_equal(narrow.values(narrow.bits(torch.from_numpy(values).float()).numpy()), rounded)
    largest = torch.tensor([np.finfo(np.float64).max], dtype=torch.float64)
    assert 1.79e308 < wide.values(wide.bits(largest).numpy())[0] < math.inf
    assert int(wide.bits(largest)) >> verification._FINE_BITS < wide.infinity_bin < wide.num_bins


MEMORY = """
import resource, torch
from python_tests.evaluation.test_evaluate import integer_problem
from pyreid.evaluation import verify
torch.set_num_threads(1)
problem = integer_problem(2000, 30000, num_ids=100, num_cams=4, dim=16)
verify(*(a[:50] for a in problem))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
verify(*problem)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_is_that_of_a_strip() -> None:
    assert 1024 * float(run_code(MEMORY)) < 0.75 * (4 * 2000 * 30000)


def test_for_people_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = verify(*integer_problem(40, 200, num_ids=9, num_cams=3), progress=True)
    lines = result.summary().splitlines()
    assert lines[0] == f"pairs        {result.num_positive} of one identity, {result.num_negative} of two"
    assert lines[3].startswith("TPR@FPR 0.0001 ")
    assert len(lines) == 7
    assert repr(result).startswith(f"VerificationResult(eer={result.eer:.4f}, TPR@0.0001=")
    result.save(tmp_path / "roc.json")
    assert json.loads((tmp_path / "roc.json").read_text()) == result.to_dict()
    with pytest.raises(ValueError, match="read-only"):
        result.tpr[0] = 1
    with pytest.raises(ValueError, match=r"fpr: expected one of \[0.0001, 0.001, 0.01, 0.1\], as asked for by fprs="):
        result.tpr_at(0.5)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"fprs": ()}, "fprs: expected at least one false positive rate"),
        ({"fprs": (0.1, 1.0)}, "fprs: expected rates of at least 0 and below 1, got 1.0"),
        ({"fprs": (math.nan,)}, "fprs: expected rates of at least 0 and below 1, got nan"),
        ({"metric": "dot"}, "metric: expected one of"),
        ({"gallery_cams": None}, "gallery_cams: expected cameras"),
        ({"gallery_ids": [0, 1]}, "gallery_ids: expected shape"),
        ({"gallery": np.full((3, 2), np.nan)}, "gallery: 6 NaN or infinite values"),
        ({"gallery": np.ones((3, 5))}, "gallery: expected 2 columns"),
        ({"gallery_cams": [0, 0, 0]}, "query_ids: no query has a match in the gallery under another camera"),
        ({"gallery_ids": [0, -1, 0], "query_ids": [0, 0]}, "gallery_ids: no gallery image differs from a query in id"),
    ],
)
def test_bad_input(change: dict[str, Any], match: str) -> None:
    good: dict[str, Any] = {
        "query": np.ones((2, 2)),
        "gallery": np.ones((3, 2)),
        "query_ids": [0, 1],
        "gallery_ids": [0, 1, 1],
        "query_cams": [0, 0],
        "gallery_cams": [1, 1, 1],
    }
    verify(**good)
    with pytest.raises(ValueError, match=match):
        verify(**(good | change))
