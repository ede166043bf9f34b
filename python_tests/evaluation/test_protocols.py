"""Presets, single-gallery-shot, random galleries, tracks and pooled queries."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch

from pyreid.evaluation import (
    evaluate,
    evaluate_random_gallery,
    evaluate_rank,
    evaluate_single_shot,
    evaluate_tracks,
    list_presets,
    pool_queries,
    pool_tracks,
    preset,
    random_gallery_split,
)
from python_tests.evaluation.brute_force import brute_force, exact_distances
from python_tests.evaluation.test_evaluate import METRICS, Problem, assert_equals, expected_of, integer_problem
from python_tests.ops.checks import DEVICES

# --------------------------------------------------------------------------------------------------------- presets

SEMANTICS = {  # what the peers' code does: AP, a query without a match, the metric if it chooses one
    "torchreid": ("step", "skip", "euclidean"),
    "fastreid": ("step", "skip", "cosine"),
    "transreid": ("step", "skip", "cosine"),
    "reid-strong-baseline": ("step", "skip", "cosine"),
    "layumi": ("trapezoid", "zero", "cosine"),
    "market1501-official": ("trapezoid", "zero", None),
    "dukemtmc-reid-official": ("trapezoid", "zero", None),
    "cuhk03-np-official": ("trapezoid", "zero", None),
    "veri776": ("step", "skip", None),
    "veri-wild": ("step", "skip", None),
}


@pytest.mark.parametrize("name", SEMANTICS)
def test_presets(name: str) -> None:
    ap, no_match, metric = SEMANTICS[name]
    problem = integer_problem(30, 120, num_ids=12, num_cams=3, seed=3)
    gallery = np.where(problem[1] < 0, -1, 1).astype(np.float32)
    problem = (problem[0], gallery, *problem[2:])
    result = evaluate(*problem, **preset(name))
    expected = expected_of(problem, metric or "euclidean")
    assert -1 in expected.first_match_rank
    values = expected.average_precision if ap == "step" else expected.trapezoid
    assert result.map == pytest.approx(expected.mean(values, no_match), abs=1e-13)
    assert_equals(result, expected)
    assert (result.settings["metric"], len(result.cmc)) == (metric or "euclidean", 50)


def test_presets_are_listed_and_stay_as_they_are() -> None:
    assert list(list_presets()) == list(SEMANTICS)
    preset("torchreid")["ap"] = "trapezoid"
    assert preset("torchreid")["ap"] == "step"
    with pytest.raises(ValueError, match=r"preset: expected one of torchreid, fastreid, .*, got 'market'"):
        preset("market")


# ----------------------------------------------------------------------------------------------------- single shot


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(
    st.integers(1, 9), st.integers(1, 40), st.integers(1, 9), st.sampled_from(METRICS), st.integers(0, 10**6)
)
def test_single_shot_equals_that_of_a_distance_matrix(
    num_query: int, num_gallery: int, num_ids: int, metric: Any, seed: int
) -> None:
    query, gallery, q_ids, g_ids, q_cams, g_cams = integer_problem(
        num_query, num_gallery, num_ids=num_ids, num_cams=3, seed=seed
    )
    assert q_cams is not None
    assert g_cams is not None
    if metric == "cosine":
        gallery = np.where(gallery < 0, -1, 1).astype(np.float32)
    labels = (np.abs(q_ids), np.abs(g_ids), q_cams, g_cams)
    distances = exact_distances(query, gallery, metric)
    try:
        cmc, mean_ap = evaluate_rank(distances, *labels, max_rank=7, use_metric_cuhk03=True, seed=seed)
    except ValueError:
        with pytest.raises(ValueError, match=r"query_ids: none of the \d+ queries has a match in the gallery"):
            evaluate_single_shot(query, gallery, *labels, metric=metric)
        return
    result = evaluate_single_shot(query, gallery, *labels, metric=metric, max_rank=7, seed=seed)
    np.testing.assert_allclose(result.cmc, cmc, atol=1e-7)
    assert result.map == pytest.approx(mean_ap, abs=1e-13)
    assert result.cmcs.shape == (10, 7)
    assert all(result.rank(k) == pytest.approx(result.cmc[k - 1]) for k in range(1, 8))
    # junk changes nothing: neither ranks nor draws
    with_junk = [
        np.concatenate([gallery, gallery[:1] * 0, query]),
        np.concatenate([labels[1], -np.ones(num_query + 1)]),
    ]
    cams = np.concatenate([g_cams, np.zeros(num_query + 1, dtype=int)])
    again = evaluate_single_shot(
        query, with_junk[0], labels[0], with_junk[1].astype(int), q_cams, cams, metric=metric, max_rank=7, seed=seed
    )
    assert (again.maps.tolist(), again.cmcs.tolist()) == (result.maps.tolist(), result.cmcs.tolist())


def test_single_shot_draws() -> None:
    # One positive at distance 5; the other identity has three images, one of them nearer: it wins 1 draw in 3.
    gallery = np.array([[5.0], [1.0], [9.0], [9.0], [0.0]])
    ids, cams = np.array([4, 8, 8, 8, 4]), np.array([1, 0, 0, 0, 0])
    queries = (np.zeros((1500, 1)), gallery, np.full(1500, 4), ids, np.zeros(1500, dtype=int), cams)
    result = evaluate_single_shot(*queries, repeats=20, max_rank=5)
    assert result.rank(1) == pytest.approx(2 / 3, abs=5 * (2 / 9 / 30_000) ** 0.5)
    assert result.rank(2) == 1
    # the spread of a repeat is that of 1500 independent draws; that of its estimate from 20 repeats is 16 %
    assert result.rank_std(1) == pytest.approx((2 / 9 / 1500) ** 0.5, rel=0.8)
    assert evaluate_single_shot(*queries, repeats=20, max_rank=5).to_dict() == result.to_dict()
    assert evaluate_single_shot(*queries, repeats=20, max_rank=5, seed=1).cmcs.tolist() != result.cmcs.tolist()
    # without cameras the image at distance 0 is a positive as well and wins half the draws, else 2 in 3 are won
    free = evaluate_single_shot(*queries[:4], repeats=20, max_rank=5)
    assert free.rank(1) == pytest.approx(1 / 2 + 1 / 2 * 2 / 3, abs=5 * (0.25 / 30_000) ** 0.5)


# ------------------------------------------------------------------------------------------------- random galleries


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(st.lists(st.integers(-1, 6), min_size=1, max_size=40), st.integers(0, 10**6), st.integers(0, 3))
def test_a_split_has_one_image_of_each_identity(ids: list[int], seed: int, repeat: int) -> None:
    labels = np.array(ids)
    queries, gallery = random_gallery_split(labels, seed=seed, repeat=repeat)
    assert sorted(labels[gallery].tolist()) == sorted(set(ids) - {-1})
    assert sorted([*queries.tolist(), *gallery.tolist()]) == np.flatnonzero(labels != -1).tolist()
    assert (np.diff(queries) > 0).all()
    assert (np.diff(gallery) > 0).all()
    same = random_gallery_split(labels, seed=seed, repeat=repeat)
    assert (same[0].tolist(), same[1].tolist()) == (queries.tolist(), gallery.tolist())


def test_every_image_is_drawn_equally_often() -> None:
    ids = np.array([3, 1, 3, 3, 1, -1, 3])
    drawn = np.zeros(7)
    for repeat in range(4000):
        drawn[random_gallery_split(ids, seed=5, repeat=repeat)[1]] += 1
    expected = np.array([1 / 4, 1 / 2, 1 / 4, 1 / 4, 1 / 2, 0, 1 / 4])
    np.testing.assert_allclose(drawn / 4000, expected, atol=5 * (0.25 / 4000) ** 0.5)
    first = {random_gallery_split(ids, seed=seed)[1].tolist()[0] for seed in range(20)}
    assert len(first) > 1


@pytest.mark.parametrize("metric", METRICS)
def test_random_galleries_equal_brute_force(metric: Any) -> None:
    features, _, ids, *_ = integer_problem(50, 1, num_ids=9, num_cams=0, dim=5, seed=2)
    if metric == "cosine":
        features = np.where(features < 0, -1, 1).astype(np.float32)
    result = evaluate_random_gallery(features, ids, repeats=4, seed=3, metric=metric, max_rank=6)
    for repeat in range(4):
        queries, gallery = random_gallery_split(ids, seed=3, repeat=repeat)
        distances = exact_distances(features[queries], features[gallery], metric)
        expected = brute_force(distances, ids[queries], ids[gallery], None, None)
        assert result.maps[repeat] == pytest.approx(expected.mean(expected.average_precision, "skip"), abs=1e-13)
        np.testing.assert_allclose(result.cmcs[repeat], expected.cmc(6, "skip"), atol=1e-13)
        assert result.num_queries[repeat] == len(queries)
    assert result.map == pytest.approx(np.mean(result.maps))
    assert result.map_std == pytest.approx((sum((m - result.map) ** 2 for m in result.maps) / 3) ** 0.5)
    assert result.rank_std(2) == pytest.approx(np.std(result.cmcs[:, 1], ddof=1))
    assert result.map_std > 0
    fewer = evaluate_random_gallery(torch.from_numpy(features), ids, repeats=2, seed=3, metric=metric, max_rank=6)
    assert fewer.maps.tolist() == result.maps[:2].tolist()


def test_repeats_for_people_and_files(tmp_path: Path) -> None:
    result = evaluate_random_gallery(np.eye(6)[[0, 0, 1, 1, 2, 2]], [0, 0, 1, 1, 2, 2], repeats=3, max_rank=7)
    assert result.summary().splitlines() == [
        "repeats   3, seed 0",
        "queries   3",
        "mAP       100.00 % (std 0.00 %)",
        "rank-1    100.00 % (std 0.00 %)",
        "rank-5    100.00 % (std 0.00 %)",
    ]
    assert repr(result) == "RepeatedResult(map=1.0000, rank1=1.0000, repeats=3)"
    with pytest.raises(ValueError, match="k: expected 1 to 7, the max_rank of the evaluation, got 8"):
        result.rank(8)
    with pytest.raises(ValueError, match="read-only"):
        result.maps[0] = 0
    once = evaluate_random_gallery(np.eye(2)[[0, 0]], [0, 0], repeats=1)
    assert math.isnan(once.map_std)
    assert "mAP       100.00 % (std -)" in once.summary()
    once.save(tmp_path / "result.json")
    assert json.loads((tmp_path / "result.json").read_text()) == once.to_dict()


# ---------------------------------------------------------------------------------------------------------- tracks


def track_problem(
    num_query: int, num_gallery: int, num_tracks: int, cams: int, seed: int
) -> tuple[Problem, np.ndarray]:
    """Images of tracks, shuffled; a track has one identity and one camera, and some identity is -1."""
    rng = np.random.default_rng(seed)
    query, gallery, q_ids, _, q_cams, _ = integer_problem(num_query, num_gallery, num_ids=5, num_cams=cams, seed=seed)
    track_of = rng.integers(0, num_tracks, num_gallery)
    ids, cameras = rng.integers(-1, 5, num_tracks), rng.integers(0, cams, num_tracks) if cams else None
    g_cams = None if cameras is None else cameras[track_of]
    return (query, gallery, q_ids, ids[track_of], q_cams, g_cams), 100 - 7 * track_of


def in_order_of_first_images(tracks: np.ndarray) -> list[int]:
    return list(dict.fromkeys(tracks.tolist()))


@pytest.mark.filterwarnings("ignore:none of the")
@hypothesis.settings(deadline=None, max_examples=80)
@hypothesis.given(
    st.integers(1, 8),
    st.integers(1, 40),
    st.integers(1, 12),
    st.integers(0, 3),
    st.sampled_from(METRICS),
    st.sampled_from(["step", "trapezoid"]),
    st.sampled_from(["skip", "zero"]),
    st.integers(0, 10**6),
)
def test_tracks_equal_brute_force(
    num_query: int, num_gallery: int, num_tracks: int, cams: int, metric: Any, ap: Any, no_match: Any, seed: int
) -> None:
    problem, tracks = track_problem(num_query, num_gallery, num_tracks, cams, seed)
    query, gallery, q_ids, g_ids, q_cams, g_cams = problem
    if metric == "cosine":
        gallery = np.where(gallery < 0, -1, 1).astype(np.float32)
    distances = exact_distances(query, gallery, metric)
    order = in_order_of_first_images(tracks)
    nearest = np.stack([distances[:, tracks == t].min(1) for t in order], axis=1)
    one = [int(np.flatnonzero(tracks == t)[0]) for t in order]
    expected = brute_force(nearest, q_ids, g_ids[one], q_cams, None if g_cams is None else g_cams[one])
    options: dict[str, Any] = {"metric": metric, "ap": ap, "no_match": no_match, "max_rank": 9}
    result = evaluate_tracks(query, gallery, q_ids, g_ids, tracks, q_cams, g_cams, **options)
    assert_equals(result, expected)
    assert result.settings["num_gallery"] + result.settings["num_junk"] == len(order)
    # tracks of one image are images
    alone = evaluate_tracks(query, gallery, q_ids, g_ids, np.arange(num_gallery), q_cams, g_cams, **options)
    images = evaluate(query, gallery, q_ids, g_ids, q_cams, g_cams, **options).to_dict()
    assert alone.to_dict() | {"settings": 0} == images | {"settings": 0}


@pytest.mark.parametrize("device", DEVICES)
def test_real_features_rank_as_in_evaluate(device: str) -> None:
    rng = np.random.default_rng(0)
    query, gallery = (torch.from_numpy(rng.standard_normal((n, 64)).astype(np.float32)).to(device) for n in (40, 900))
    q_ids, g_ids = rng.integers(0, 30, 40), rng.integers(-1, 30, 900)
    for metric in METRICS:
        images = evaluate(query, gallery, q_ids, g_ids, metric=metric).to_dict()
        tracks = evaluate_tracks(query, gallery, q_ids, g_ids, np.arange(900), metric=metric).to_dict()
        assert tracks | {"settings": 0} == images | {"settings": 0}


@pytest.mark.parametrize("mode", ["mean", "max"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("at_a_time", [1, 50, 10**6])
def test_pooled_tracks_equal_loops(mode: Any, dtype: Any, at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyreid.evaluation import tracks as module

    monkeypatch.setattr(module, "_NUMBERS_AT_A_TIME", at_a_time)
    problem, tracks = track_problem(1, 60, 13, 3, 0)
    features = np.random.default_rng(0).standard_normal((60, 5)).astype(dtype)
    found = pool_tracks(features, tracks, problem[3], problem[5], mode=mode)
    order = in_order_of_first_images(tracks)
    assert found.tracks.tolist() == order
    assert found.cams is not None
    assert problem[5] is not None
    for i, track in enumerate(order):
        own = [r for r in range(60) if tracks[r] == track]
        rows = features[own].astype(np.float64)
        expected = [max(c) if mode == "max" else math.fsum(c) / len(c) for c in rows.T.tolist()]
        # one sum of at most 60 terms in float64, and one rounding to the type of the result
        np.testing.assert_allclose(
            found.features[i], expected, rtol=1e-13 if dtype == np.float64 else 2**-24, atol=1e-14
        )
        assert (found.ids[i], found.cams[i]) == (problem[3][own[0]], problem[5][own[0]])
    assert found.features.dtype == (np.float64 if dtype == np.float64 else np.float32)
    result = evaluate(problem[0][:, [0] * 5], found.features, problem[2], found.ids, problem[4], found.cams)
    assert result.num_queries == 1


def test_pooled_queries() -> None:
    features = np.array([[1.0, 8], [2, 7], [3, 6], [4, 5], [6, 0]])
    pooled = pool_queries(features, [7, 2, 7, 7, 2], [1, 1, 0, 1, 1])
    assert pooled.features.tolist() == [[2.5, 6.5], [4, 3.5], [3, 6]]
    assert pooled.tracks.tolist() == [0, 1, 2]
    assert pooled.ids.tolist() == [7, 2, 7]
    assert pooled.cams is not None
    assert pooled.cams.tolist() == [1, 1, 0]
    assert pool_queries(features, [7, 2, 7, 7, 2], [1, 1, 0, 1, 1], mode="max").features.tolist()[0] == [4, 8]


def test_tracks_of_two_cameras_are_an_error() -> None:
    x, ids, tracks = np.ones((4, 2)), [5, 5, 5, 6], [9, 9, 8, 9]
    with pytest.raises(
        ValueError, match="ids: expected one value for each track, but track 9 has 5 at row 0 and 6 at row 3"
    ):
        pool_tracks(x, tracks, ids)
    with pytest.raises(ValueError, match="gallery_ids: expected one value for each track, but track 9 has 5 at row 0"):
        evaluate_tracks(x, x, ids, ids, tracks)
    with pytest.raises(ValueError, match="gallery_cams: expected one value for each track, but track 8 has 1 at row 0"):
        evaluate_tracks(x, x, ids, [5] * 4, [8, 9, 8, 8], [0] * 4, [1, 1, 1, 2])
    with pytest.raises(ValueError, match="cams: expected one value for each track, but track 8 has 1 at row 2"):
        pool_tracks(x, [9, 9, 8, 8], [5] * 4, [1, 1, 1, 2])


# ------------------------------------------------------------------------------------------------------- bad input

X = np.ones((2, 2))
SETS: dict[str, Any] = {"query": X, "gallery": X, "query_ids": [0, 0], "gallery_ids": [0, 0]}
ONE: dict[str, Any] = {"features": X, "ids": [0, 0]}
TRACKS = SETS | {"gallery_tracks": [0, 0]}


@pytest.mark.parametrize(
    ("function", "good", "change", "error", "match"),
    [
        (evaluate_single_shot, SETS, {"repeats": 0}, ValueError, "repeats: expected at least 1, got 0"),
        (evaluate_single_shot, SETS, {"seed": 0.5}, TypeError, "seed: expected an integer, got float"),
        (evaluate_single_shot, SETS, {"metric": "l1"}, ValueError, "metric: expected one of"),
        (evaluate_single_shot, SETS, {"ap": "x"}, ValueError, "ap: expected one of"),
        (evaluate_single_shot, SETS, {"query": X * np.nan}, ValueError, "query: 4 NaN"),
        (evaluate_single_shot, SETS, {"gallery_ids": [-1, -1], "query_ids": [-1, -1]}, ValueError, "none of the 2 qu"),
        (evaluate_random_gallery, ONE, {"repeats": True}, TypeError, "repeats: expected an integer, got bool"),
        (evaluate_random_gallery, ONE, {"ids": [0, 1]}, ValueError, "ids: no identity has two images"),
        (evaluate_random_gallery, ONE, {"ids": [-1, -1]}, ValueError, "ids: no identity has two images"),
        (evaluate_random_gallery, ONE, {"ids": [0]}, ValueError, r"ids: expected shape \(2,\)"),
        (evaluate_random_gallery, ONE, {"features": X[0]}, ValueError, "features: expected a non-empty 2-D matrix"),
        (
            evaluate_random_gallery,
            ONE | {"ids": [0, 0]},
            {"features": X * [[1], [np.nan]]},
            ValueError,
            "features: 2 NaN or infinite values, the first is nan at row 1, column 0",
        ),
        (random_gallery_split, {"ids": [0, 0]}, {"repeat": -1}, ValueError, "repeat: expected at least 0"),
        (evaluate_tracks, TRACKS, {"gallery_tracks": [0]}, ValueError, r"gallery_tracks: expected shape \(2,\)"),
        (evaluate_tracks, TRACKS, {"gallery_tracks": [0.0, 1.0]}, TypeError, "gallery_tracks: expected integers"),
        (evaluate_tracks, TRACKS, {"no_match": "x"}, ValueError, "no_match: expected one of"),
        (evaluate_tracks, TRACKS, {"query_cams": [1, 1]}, ValueError, "gallery_cams: expected cameras"),
        (pool_tracks, ONE | {"tracks": [1, 1]}, {"mode": "median"}, ValueError, "mode: expected one of 'mean', 'max'"),
        (pool_tracks, ONE | {"tracks": [1, 1]}, {"tracks": [1]}, ValueError, r"tracks: expected shape \(2,\)"),
        (pool_queries, ONE | {"cams": [1, 1]}, {"cams": [1.0, 1.0]}, TypeError, "cams: expected integers"),
    ],
)
def test_bad_input(
    function: Callable[..., Any], good: dict[str, Any], change: dict[str, Any], error: type[Exception], match: str
) -> None:
    function(**good)
    with pytest.raises(error, match=match):
        function(**(good | change))
