from __future__ import annotations

import math
import sys
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch

from pyreid.retrieval import NeighborGraph, database_augmentation, query_expansion

METRICS = ["euclidean", "sqeuclidean", "cosine"]


def naive(
    x: np.ndarray, gallery: np.ndarray, *, k: int, alpha: float | None, metric: str, own: bool, times: int = 1
) -> np.ndarray:
    """Loops in float64; ``own``: x is the gallery, and an item is not its own neighbor."""
    x, gallery = x.astype(np.float64), gallery.astype(np.float64)

    def unit(f: np.ndarray) -> np.ndarray:
        lengths = np.linalg.norm(f, axis=1, keepdims=True)
        return np.divide(f, lengths, out=np.zeros_like(f), where=lengths > 0)

    if metric == "cosine":
        x, gallery = unit(x), unit(gallery)
    for _ in range(times):
        gallery = x if own else gallery
        out = np.empty_like(x)
        for i, row in enumerate(x):
            order = np.argsort(((gallery - row) ** 2).sum(1), kind="stable").tolist()
            if own:
                order.remove(i)
            total, weights = row.copy(), 1.0
            for j in order[:k]:
                lengths = math.sqrt(row @ row) * math.sqrt(gallery[j] @ gallery[j])
                similarity = row @ gallery[j] / lengths if lengths > 0 else 0.0
                weight = 1.0 if alpha is None else similarity**alpha if similarity > 0 else 0.0
                total += weight * gallery[j]
                weights += weight
            out[i] = total / weights
        x = unit(out) if metric == "cosine" else out
    return x


def features(num_query: int, num_gallery: int, *, dim: int = 8, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((n, dim)) for n in (num_query, num_gallery)]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("alpha", [None, 0, 1.0, 2.5, 3])
@pytest.mark.parametrize("times", [1, 3])
def test_equal_the_naive_loops(metric: Any, alpha: float | None, times: int) -> None:
    # Random features have many negative similarities, so powers of them would be NaN or negative.
    query, gallery = features(11, 60)
    options: dict[str, Any] = {"k": 40, "alpha": alpha, "metric": metric, "times": times}
    before = query.copy(), gallery.copy()
    # float64: a mean of 41 terms and its norm, over some rounds; 1e-12 is 4,000 roundings.
    np.testing.assert_allclose(
        query_expansion(query, gallery, **options), naive(query, gallery, own=False, **options), rtol=0, atol=1e-12
    )
    np.testing.assert_allclose(
        database_augmentation(gallery, **options), naive(gallery, gallery, own=True, **options), rtol=0, atol=1e-12
    )
    assert np.array_equal(query, before[0])
    assert np.array_equal(gallery, before[1])


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(
    st.integers(1, 5),
    st.integers(2, 9),
    st.integers(1, 3),
    st.integers(0, 2),
    st.sampled_from([None, 0.5, 2]),
    st.integers(0, 10**6),
)
def test_ties_and_duplicates(
    num_query: int, num_gallery: int, dim: int, levels: int, alpha: float | None, seed: int
) -> None:
    # Small integers: products are exact, so ties are ties, and the indices decide.
    rng = np.random.default_rng(seed)
    query, gallery = (rng.integers(-levels, levels + 1, (n, dim)).astype(np.float32) for n in (num_query, num_gallery))
    k = 1 + seed % (num_gallery - 1)
    options: dict[str, Any] = {"k": k, "alpha": alpha, "metric": "euclidean"}
    expanded, augmented = query_expansion(query, gallery, **options), database_augmentation(gallery, **options)
    assert expanded.dtype == augmented.dtype == np.float32
    # A cosine is rounded by a few units; a power and a mean of at most 9 rows of numbers up to 2 follow.
    np.testing.assert_allclose(expanded, naive(query, gallery, own=False, **options), rtol=0, atol=1e-5)
    np.testing.assert_allclose(augmented, naive(gallery, gallery, own=True, **options), rtol=0, atol=1e-5)


def test_a_given_graph_replaces_the_search() -> None:
    query, gallery = features(9, 50)
    for metric in ("euclidean", "cosine"):
        graph = NeighborGraph.exact(query, gallery, 59, metric=metric)
        options: dict[str, Any] = {"k": 4, "alpha": 2, "metric": metric}
        given = query_expansion(query, gallery, graph=graph, **options)
        assert np.array_equal(given, query_expansion(query, gallery, **options))
        alone = NeighborGraph.exact(np.empty((0, 8)), gallery, 5, metric=metric)
        given = database_augmentation(gallery, graph=alone, **options)
        assert np.array_equal(given, database_augmentation(gallery, **options))


def test_blocks_types_and_repetition(monkeypatch: pytest.MonkeyPatch) -> None:
    query, gallery = (f.astype(np.float32) for f in features(30, 200))
    whole = query_expansion(query, gallery, alpha=3)
    monkeypatch.setattr(sys.modules["pyreid.retrieval.query_expansion"], "_ELEMENTS_AT_A_TIME", 5 * 8 * 7)
    assert np.array_equal(query_expansion(query, gallery, alpha=3), whole)
    half = torch.from_numpy(query).bfloat16(), torch.from_numpy(gallery).bfloat16()
    result = query_expansion(*half, return_torch=True)
    assert isinstance(result, torch.Tensor)
    assert result.dtype == torch.float32
    assert query_expansion(query[:0], gallery).shape == (0, 8)
    lengths = np.linalg.norm(whole, axis=1)
    np.testing.assert_allclose(lengths, 1, rtol=0, atol=1e-6)
    zeros = query_expansion(np.zeros((1, 8)), -np.abs(gallery), alpha=0.5)
    assert (zeros == 0).all()


def test_wrong_arguments() -> None:
    query, gallery = features(3, 10)
    graph = NeighborGraph.exact(query, gallery, 2, metric="cosine")
    for change, error, match in [
        ({"k": 0}, ValueError, "k: expected 1 to 10, the rows of gallery, got 0"),
        ({"k": 11}, ValueError, "k: expected 1 to 10"),
        ({"k": 1.5}, TypeError, "k: expected an integer, got float"),
        ({"alpha": -1}, ValueError, "alpha: expected a finite number of at least 0, or None, got -1"),
        ({"alpha": math.nan}, ValueError, "alpha: expected a finite number"),
        ({"alpha": "3"}, TypeError, "alpha: expected a number or None, got str"),
        ({"times": 0}, ValueError, "times: expected at least 1, got 0"),
        ({"metric": "l1"}, ValueError, "metric: expected one of"),
        ({"graph": graph, "times": 2}, ValueError, "times: expected 1 with a graph"),
        ({"graph": graph}, ValueError, "graph: expected 5 gallery items in each query's list, got"),
        ({"graph": graph, "metric": "euclidean"}, ValueError, "graph: expected one for the metric of the call"),
        ({"graph": 3}, TypeError, "graph: expected a NeighborGraph or None, got int"),
        ({"query": query[:, :4]}, ValueError, "gallery: expected 4 columns to match query"),
        ({"query": query * np.nan}, ValueError, "query: 24 NaN or infinite values"),
    ]:
        arguments: dict[str, Any] = {"query": query, "gallery": gallery} | change
        with pytest.raises(error, match=match):
            query_expansion(arguments.pop("query"), arguments.pop("gallery"), **arguments)
    with pytest.raises(ValueError, match="k: expected 1 to 9, the other rows of gallery, got 10"):
        database_augmentation(gallery, k=10)
    with pytest.raises(ValueError, match="graph: expected one of 0 queries and 10 gallery items, got 3 and 10"):
        database_augmentation(gallery, k=1, graph=graph)
