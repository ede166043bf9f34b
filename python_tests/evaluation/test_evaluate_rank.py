from __future__ import annotations

from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch

from pyreid.evaluation import evaluate_rank
from python_tests.evaluation.brute_force import brute_force
from python_tests.ops.checks import DEVICES

Labels = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def matrix_problem(
    num_query: int, num_gallery: int, *, num_ids: int, num_cams: int, levels: int, seed: int = 0
) -> tuple[np.ndarray, Labels]:
    rng = np.random.default_rng(seed)
    distances = rng.integers(0, levels, (num_query, num_gallery)).astype(np.float32)
    ids = rng.integers(-1, num_ids, num_query), rng.integers(-1, num_ids, num_gallery)
    return distances, (*ids, rng.integers(0, num_cams, num_query), rng.integers(0, num_cams, num_gallery))


@hypothesis.settings(deadline=None, max_examples=100)
@hypothesis.given(
    st.integers(1, 8),
    st.integers(1, 50),
    st.integers(1, 5),
    st.integers(1, 3),
    st.sampled_from([1, 4, 10**6]),
    st.integers(1, 60),
    st.integers(0, 10**6),
)
def test_equals_brute_force(
    num_query: int, num_gallery: int, num_ids: int, num_cams: int, levels: int, max_rank: int, seed: int
) -> None:
    distances, labels = matrix_problem(
        num_query, num_gallery, num_ids=num_ids, num_cams=num_cams, levels=levels, seed=seed
    )
    expected = brute_force(distances, *labels, junk_id=None)
    if max(expected.first_match_rank) < 0:
        with pytest.raises(ValueError, match="has a match in the gallery under another camera"):
            evaluate_rank(distances, *labels, max_rank)
        return
    cmc, mean_ap = evaluate_rank(distances, *labels, max_rank)
    assert mean_ap == pytest.approx(expected.mean(expected.average_precision, "skip"), abs=1e-13)
    assert (cmc.dtype, cmc.shape) == (np.float32, (max_rank,))
    np.testing.assert_array_equal(cmc, np.array(expected.cmc(max_rank, "skip"), dtype=np.float32))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_kinds_of_matrix(dtype: torch.dtype, device: str) -> None:
    distances, labels = matrix_problem(1100, 400, num_ids=20, num_cams=3, levels=90)
    expected = evaluate_rank(distances, *labels)
    matrix = torch.from_numpy(distances).to(device, dtype)
    before = matrix.clone()
    for given in (matrix, matrix.T.contiguous().T, torch.cat([matrix, matrix], 1)[:, :400]):
        cmc, mean_ap = evaluate_rank(given, *labels)
        assert cmc.tolist() == expected[0].tolist()
        assert mean_ap == expected[1]
    assert torch.equal(matrix, before)


def test_nan_is_an_error_with_its_place() -> None:
    distances, labels = matrix_problem(1100, 50, num_ids=20, num_cams=3, levels=90)
    distances[[1030, 1030, 1099], [7, 9, 3]] = np.nan
    with pytest.raises(ValueError, match="distmat: 3 NaN distances, the first at row 1030, column 7"):
        evaluate_rank(distances, *labels)
    unmatched = np.full_like(labels[0], 10**6)
    unmatched[0] = labels[0][0]
    with pytest.raises(ValueError, match="distmat: 3 NaN distances"):
        evaluate_rank(distances, unmatched, *labels[1:])


def test_single_shot_of_one_image_per_identity_is_the_plain_cmc() -> None:
    rng = np.random.default_rng(0)
    distances = rng.random((60, 40))
    labels = (rng.integers(0, 45, 60), rng.permutation(40), np.zeros(60, dtype=int), rng.integers(0, 3, 40))
    plain = evaluate_rank(distances, *labels)
    single = evaluate_rank(distances, *labels, use_metric_cuhk03=True)
    np.testing.assert_allclose(single[0], plain[0], rtol=0, atol=1e-7)
    assert single[1] == plain[1]


def test_single_shot_expectation() -> None:
    # One positive at distance 5; the other identity has three images, one of them nearer: it wins 1 draw in 3.
    distances = np.tile([5.0, 1.0, 9.0, 9.0, 0.0], (3000, 1))
    labels = (np.full(3000, 4), np.array([4, 8, 8, 8, 4]), np.zeros(3000, dtype=int), np.array([1, 0, 0, 0, 0]))
    cmc, mean_ap = evaluate_rank(distances, *labels, max_rank=5, use_metric_cuhk03=True)
    # 30,000 draws: five standard deviations of their mean are 5 (2/9 / 30000)^0.5
    assert cmc[0] == pytest.approx(2 / 3, abs=0.014)
    assert cmc[1:].tolist() == [1, 1, 1, 1]
    assert mean_ap == 0.5
    again = evaluate_rank(distances, *labels, max_rank=5, use_metric_cuhk03=True)
    assert again[0].tolist() == cmc.tolist()
    other = evaluate_rank(distances, *labels, max_rank=5, use_metric_cuhk03=True, seed=1)
    assert other[0].tolist() != cmc.tolist()


@pytest.mark.parametrize("tied", [False, True])
def test_single_shot_equals_loops(tied: bool) -> None:
    """Many draws against the probability of each rank, from all combinations of images."""
    from itertools import product

    rng = np.random.default_rng(3)
    distances = np.tile(rng.integers(0, 4, 9) if tied else rng.permutation(9), (2000, 1)).astype(float)
    g_ids, g_cams = np.array([5, 2, 5, 2, 7, 7, 5, 2, 5]), np.array([0, 0, 1, 1, 0, 1, 1, 0, 0])
    images = [[g for g in range(9) if g_ids[g] == i and not (i == 5 and g_cams[g] == 0)] for i in (5, 2, 7)]
    hits = np.zeros(4)
    choices = list(product(*images))
    for own, *others in choices:
        hits[sum((distances[0, g], g) < (distances[0, own], own) for g in others)] += 1 / len(choices)
    labels = (np.full(2000, 5), g_ids, np.zeros(2000, dtype=int), g_cams)
    cmc, _ = evaluate_rank(distances, *labels, max_rank=4, use_metric_cuhk03=True)
    np.testing.assert_allclose(cmc, hits.cumsum(), atol=5 * (0.25 / 20000) ** 0.5)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"distmat": np.ones(3)}, ValueError, r"distmat: expected a non-empty 2-D matrix, got shape \(3,\)"),
        ({"distmat": np.ones((2, 3), dtype=int)}, TypeError, "distmat: expected float16"),
        ({"q_pids": [0, 1, 1]}, ValueError, r"q_pids: expected shape \(2,\), one for each row of distmat, got \(3,\)"),
        ({"g_camids": [0, 1]}, ValueError, r"g_camids: expected shape \(3,\), one for each column of distmat"),
        ({"g_pids": [0.0, 1.0, 1.0]}, TypeError, "g_pids: expected integers, got float64"),
        ({"max_rank": 0}, ValueError, "max_rank: expected at least 1"),
        ({"g_camids": [0, 0, 0]}, ValueError, "q_pids: none of the 2 queries has a match"),
    ],
)
def test_bad_input(change: dict[str, Any], error: type[Exception], match: str) -> None:
    good: dict[str, Any] = {
        "distmat": np.ones((2, 3)),
        "q_pids": [0, 1],
        "g_pids": [0, 1, 1],
        "q_camids": [0, 0],
        "g_camids": [1, 1, 1],
    }
    assert evaluate_rank(**good)[0][2] == 1
    with pytest.raises(error, match=match):
        evaluate_rank(**(good | change))
