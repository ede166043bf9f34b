from __future__ import annotations

import sys
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch

from pyreid.retrieval import k_reciprocal, re_ranking
from python_tests.retrieval.naive import naive_re_ranking, squared_distances
from python_tests.retrieval.test_k_reciprocal import K1S, clusters


def blocks(joint: np.ndarray, num_query: int) -> list[np.ndarray]:
    """q_g, q_q and g_g of a joint matrix."""
    return [joint[:num_query, num_query:], joint[:num_query, :num_query], joint[num_query:, num_query:]]


def joint_of(q_g: np.ndarray, q_q: np.ndarray, g_g: np.ndarray) -> np.ndarray:
    return np.concatenate([np.concatenate([q_q, q_g], axis=1), np.concatenate([q_g.T, g_g], axis=1)])


def atol(items: int, k2: int) -> float:
    """As python_tests.retrieval.naive.tolerance, for given distances, which are normalised with 2 roundings."""
    return float(np.finfo(np.float32).eps) * (2 * (8 + 2 + k2 + 1 + items) + 2 + 8)


@hypothesis.settings(deadline=None, max_examples=150)
@hypothesis.given(
    st.integers(1, 8),
    st.integers(1, 40),
    st.integers(1, 30),
    st.sampled_from(K1S),
    st.sampled_from([1, 2, 6, 30]),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_equals_the_naive_method(
    num_query: int, num_gallery: int, levels: int, k1: int, k2: int, lambda_value: float, symmetric: bool, seed: int
) -> None:
    # Integers: squares are exact, distances tie. Matrices that are not symmetric tell rows from columns.
    items = num_query + num_gallery
    rng = np.random.default_rng(seed)
    joint = rng.integers(0, levels + 1, (items, items)).astype(np.float32)
    joint = np.triu(joint, 1) + (np.triu(joint, 1).T if symmetric else np.tril(joint, -1))
    matrices = blocks(joint, num_query)
    result = re_ranking(*matrices, k1=k1, k2=k2, lambda_value=lambda_value)
    squared = joint_of(*matrices).astype(np.float64) ** 2
    want = naive_re_ranking(squared, num_query, k1=k1, k2=k2, lambda_value=lambda_value)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, want, rtol=0, atol=atol(items, k2))


def test_agrees_with_re_ranking_of_features() -> None:
    query, gallery = clusters(30, 170)
    joint = np.sqrt(squared_distances(np.concatenate([query, gallery])))
    result = re_ranking(*blocks(joint, 30))
    np.testing.assert_allclose(result, k_reciprocal(query, gallery), rtol=0, atol=atol(200, 6))
    # torchreid gives the function squared distances
    result = re_ranking(*blocks(joint**2, 30))
    np.testing.assert_allclose(result, k_reciprocal(query, gallery, compat="torchreid"), rtol=0, atol=atol(200, 6))


@pytest.mark.parametrize("rows", [1, 5])
def test_height_of_the_strips_does_not_matter(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    joint = np.sqrt(squared_distances(np.concatenate(clusters(30, 170))))
    whole = re_ranking(*blocks(joint, 30))
    monkeypatch.setattr(sys.modules["pyreid.retrieval.re_ranking"], "tile_rows", lambda *arguments, **options: rows)
    assert np.array_equal(re_ranking(*blocks(joint, 30)), whole)


def test_kinds_of_input() -> None:
    joint = np.sqrt(squared_distances(np.concatenate(clusters(7, 60))))
    matrices = blocks(joint, 7)
    copies = [m.copy() for m in matrices]
    want = re_ranking(*matrices)
    assert np.array_equal(re_ranking(*(np.asfortranarray(m) for m in matrices)), want)
    assert np.array_equal(re_ranking(*(torch.from_numpy(m) for m in matrices)), want)
    assert np.array_equal(re_ranking(*matrices, 20, 6, 0.3), want)
    assert all(np.array_equal(a, b) for a, b in zip(matrices, copies, strict=True))
    single = re_ranking(*(m.astype(np.float32) for m in matrices))
    np.testing.assert_allclose(single, want, rtol=0, atol=2 * atol(67, 6))


def test_distances_below_zero_are_squared_like_others() -> None:
    # Squared distances by |x|^2 + |y|^2 - 2 x.y can be, and torchreid passes them on.
    joint = squared_distances(np.concatenate(clusters(7, 60))).astype(np.float32)
    want = re_ranking(*blocks(joint, 7))
    np.fill_diagonal(joint, -1e-6)
    np.testing.assert_allclose(re_ranking(*blocks(joint, 7)), want, rtol=0, atol=atol(67, 6))


def test_degenerate_matrices() -> None:
    zeros = np.zeros((8, 8))
    result = re_ranking(*blocks(zeros, 3))
    np.testing.assert_allclose(result, naive_re_ranking(zeros, 3, k1=20, k2=6, lambda_value=0.3), atol=atol(8, 6))
    assert re_ranking(np.ones((0, 4)), np.ones((0, 0)), np.ones((4, 4))).shape == (0, 4)
    assert re_ranking(np.ones((4, 0)), np.ones((4, 4)), np.ones((0, 0))).shape == (4, 0)
    one = np.zeros((1, 1))
    assert re_ranking(one, one, one).tolist() == [[0.0]]


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"q_g_dist": [[1.0]]}, TypeError, "q_g_dist: expected a torch tensor, a NumPy array or an object with DLPack"),
        ({"q_g_dist": np.ones((2, 3), dtype=int)}, TypeError, "q_g_dist: expected float16, bfloat16, float32 or float"),
        ({"q_g_dist": np.ones(3)}, ValueError, r"q_g_dist: expected a 2-D matrix, got shape \(3,\)"),
        ({"q_q_dist": np.ones((3, 3))}, ValueError, r"q_q_dist: expected shape \(2, 2\) to match q_g_dist, got \(3, 3"),
        ({"g_g_dist": np.ones((3, 2))}, ValueError, r"g_g_dist: expected shape \(3, 3\) to match q_g_dist, got \(3, 2"),
        ({"g_g_dist": np.array([[0, 1, 1], [1, 0, np.nan], [1, 1, 0]])}, ValueError,
         "g_g_dist: 1 NaN distances, the first at row 1, column 2"),
        ({"q_g_dist": np.array([[1, 1, 1], [1, 1e30, 1]])}, ValueError,
         "q_g_dist: squared distances overflow float32, the first those of query 1"),
        ({"g_g_dist": np.array([[0, 1, np.inf], [1, 0, 1], [1, 1, 0]])}, ValueError,
         "g_g_dist: squared distances overflow float32, the first those of gallery item 2"),
        ({"q_q_dist": np.array([[0, 1e30], [1, 0]])}, ValueError,
         "q_q_dist: squared distances overflow float32, the first those of query 1"),
        ({"k1": 0}, ValueError, "k1: expected at least 1, got 0"),
        ({"lambda_value": -0.1}, ValueError, "lambda_value: expected a number from 0 to 1, got -0.1"),
    ],
)  # fmt: skip
def test_bad_input(change: dict[str, Any], error: type[Exception], match: str) -> None:
    good: dict[str, Any] = {"q_g_dist": np.ones((2, 3)), "q_q_dist": 1 - np.eye(2), "g_g_dist": 1 - np.eye(3)}
    assert re_ranking(**good).shape == (2, 3)
    with pytest.raises(error, match=match) as caught:
        re_ranking(**(good | change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_squares_of_halves_do_not_overflow(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    halves = [torch.from_numpy(rng.uniform(200, 900, shape)).to(dtype) for shape in ((4, 9), (4, 4), (9, 9))]
    result = re_ranking(*halves, k1=3, k2=2)
    np.testing.assert_array_equal(result, re_ranking(*(half.float() for half in halves), k1=3, k2=2))
