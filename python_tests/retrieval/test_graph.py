from __future__ import annotations

import subprocess
import sys
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch

import pyreid
from pyreid.errors import MissingDependencyError
from pyreid.retrieval import KReciprocal, NeighborGraph, k_reciprocal
from python_tests.retrieval.naive import squared_distances, tolerance
from python_tests.retrieval.test_k_reciprocal import COMPATS, K1S, clusters, expected, integers


def singles(num_query: int, num_gallery: int, *, dim: int = 16, seed: int = 0) -> list[np.ndarray]:
    return [f.astype(np.float32) for f in clusters(num_query, num_gallery, dim=dim, seed=seed)]


@hypothesis.settings(deadline=None, max_examples=100)
@hypothesis.given(
    st.integers(1, 6),
    st.integers(1, 30),
    st.integers(1, 3),
    st.integers(0, 3),
    st.sampled_from(K1S),
    st.sampled_from([1, 2, 6, 30]),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.sampled_from(COMPATS),
    st.integers(0, 10**6),
)
def test_with_an_exact_graph_it_is_the_naive_method(
    num_query: int,
    num_gallery: int,
    dim: int,
    levels: int,
    k1: int,
    k2: int,
    lambda_value: float,
    compat: Any,
    seed: int,
) -> None:
    # Ties, repeated rows, sets smaller than k1, and lists as short as they may be or longer.
    query, gallery = integers(num_query, num_gallery, dim=dim, levels=levels, seed=seed)
    parameters: dict[str, Any] = {"k1": k1, "k2": k2, "lambda_value": lambda_value, "compat": compat}
    items = num_query + num_gallery
    length = min(items, k1 if compat == "fastreid" else max(k1 + 1, k2))
    graph = NeighborGraph.exact(query, gallery, length + seed % (items - length + 1))
    want = expected(query, gallery, **parameters)
    atol = tolerance(np.float32, np.concatenate([query, gallery]), k2, exact=True, compat=compat)
    topk = 1 + seed % num_gallery
    distances, indices = k_reciprocal(query, gallery, topk=topk, graph=graph, **parameters)
    np.testing.assert_allclose(distances, np.sort(want, axis=1)[:, :topk], rtol=0, atol=atol)
    np.testing.assert_allclose(distances, np.take_along_axis(want, indices, 1), rtol=0, atol=atol)
    assert all(len(set(row)) == topk for row in indices.tolist())
    for row, order in zip(distances, indices, strict=True):
        tied = row[1:] == row[:-1]
        assert (row[1:] >= row[:-1]).all()
        assert (order[1:][tied] > order[:-1][tied]).all()
    dense = k_reciprocal(query, gallery, graph=graph, **parameters)
    assert np.array_equal(dense, k_reciprocal(query, gallery, **parameters))


@pytest.mark.parametrize("compat", COMPATS)
@pytest.mark.parametrize("topk", [1, 30, 400])
@pytest.mark.parametrize("lambda_value", [0, 0.3, 1])
def test_the_result_without_a_graph(
    compat: Any, topk: int, lambda_value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Float64: no ties but those of lambda = 0, and no distances that rounding could exchange.
    query, gallery = clusters(25, 400)
    graph = NeighborGraph.exact(query, gallery, 24, metric="cosine")
    options: dict[str, Any] = {
        "topk": topk,
        "compat": compat,
        "lambda_value": lambda_value,
        "metric": "cosine",
    }
    want = k_reciprocal(query, gallery, **options)
    distances, indices = k_reciprocal(query, gallery, graph=graph, **options)
    assert np.array_equal(indices, want[1])
    # A distance from products has an error of some (dim + 4) units of the unit vectors' norms.
    np.testing.assert_allclose(distances, want[0], rtol=0, atol=1e-13)
    monkeypatch.setattr(sys.modules["pyreid.retrieval.graph_re_ranking"], "_PAIRS_AT_A_TIME", 3000)
    blocks = k_reciprocal(query, gallery, graph=graph, **options)
    assert np.array_equal(blocks[0], distances)
    assert np.array_equal(blocks[1], indices)


def test_items_without_a_common_neighbor_come_by_index_where_only_overlap_counts() -> None:
    query, gallery = singles(7, 120, dim=8, seed=5)
    parameters: dict[str, Any] = {"k1": 4, "k2": 2, "lambda_value": 0.0, "topk": 60}
    graph = NeighborGraph.exact(query, gallery, 5)
    want, got = k_reciprocal(query, gallery, **parameters), k_reciprocal(query, gallery, graph=graph, **parameters)
    assert (want[0] == 1).any()  # the distance of all that share nothing
    np.testing.assert_array_equal(got[1], want[1])


def test_distances_of_strips_are_not_clamped_to_an_estimate() -> None:
    query, gallery = singles(6, 150, seed=2)
    exact = NeighborGraph.exact(query, gallery, 24)
    estimate = NeighborGraph(
        exact.indices, exact.distances, 6, "euclidean", exact.farthest / 9, "sampled", recall=1.0, farthest_ratio=1 / 9
    )
    dense = k_reciprocal(query, gallery, graph=estimate)
    distances, indices = k_reciprocal(query, gallery, topk=150, graph=estimate)
    np.testing.assert_allclose(np.take_along_axis(dense, indices, 1), distances, rtol=0, atol=1e-4)
    assert (dense.max(axis=1) > 0.7 + 0.3 * 8.9).all()  # the farthest, which would be at 1


def test_an_approximate_graph_leaves_ties_of_overlap_alone_to_the_index() -> None:
    query, gallery = singles(7, 120, dim=8, seed=5)
    parameters: dict[str, Any] = {"k1": 4, "k2": 2, "lambda_value": 0.0, "topk": 60}
    exact = NeighborGraph.exact(query, gallery, 70)
    graph = NeighborGraph(exact.indices, exact.distances, 7, "euclidean", exact.farthest, "sampled", recall=1.0)
    want, got = k_reciprocal(query, gallery, **parameters), k_reciprocal(query, gallery, graph=graph, **parameters)
    assert (want[0] == 1).any()
    np.testing.assert_array_equal(got[1], want[1])


def test_a_graph_is_checked_on_rows_of_the_whole_set() -> None:
    query, gallery = singles(4, 300)
    gallery[-30:] += 10  # in no list of the first rows
    graph = NeighborGraph.exact(query, gallery, 21)
    gallery[-1] += 3
    with pytest.raises(ValueError, match="graph: expected the neighbors of these features"):
        k_reciprocal(query, gallery, topk=3, graph=graph)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("offset", [0.0, 300.0, 1e4])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_graph_of_other_features_is_refused_wherever_they_lie(dtype: Any, offset: float, metric: Any) -> None:
    rng = np.random.default_rng(0)
    query, gallery, other = (
        (rng.standard_normal((n, 16)) + (min(offset, 300) if dtype == np.float16 else offset)).astype(dtype)
        for n in (20, 60, 60)
    )
    graph = NeighborGraph.exact(query, gallery, 30, metric=metric)
    k_reciprocal(query, gallery, graph=graph, metric=metric)
    wide = [f.astype(np.float64) for f in (query, gallery)]
    k_reciprocal(*wide, graph=graph, metric=metric)  # the same numbers
    with pytest.raises(ValueError, match="graph: expected the neighbors of these features"):
        k_reciprocal(query, other, graph=graph, metric=metric)


def test_an_item_is_in_its_own_list_though_the_index_did_not_find_it() -> None:
    pytest.importorskip("faiss")
    query, gallery = singles(100, 2900)
    graph = NeighborGraph.faiss(query, gallery, 5, index="PQ4x4")  # of coarse codes: many are nearer to another item
    assert graph.recall is not None
    assert graph.recall < 0.7
    assert torch.equal(graph.indices[:, 0], torch.arange(3000, dtype=torch.int32))
    assert bool((graph.distances[:, 0] == 0).all())


def test_one_item_far_from_all_is_the_farthest_of_all() -> None:
    pytest.importorskip("faiss")
    query, gallery = singles(100, 2900)
    gallery[1234] += 20  # a sample of all would hardly have it
    graph = NeighborGraph.faiss(query, gallery, 5)
    exact = NeighborGraph.exact(query, gallery, 5)
    np.testing.assert_allclose(graph.farthest, exact.farthest, rtol=1e-5)
    assert graph.farthest_ratio == pytest.approx(1)


def test_fastreid_has_no_negative_distances() -> None:
    # The overlap of copies is 1, and rounding may make it more.
    _, gallery = singles(1, 300, dim=8)
    query = gallery[:60].copy()
    graph = NeighborGraph.exact(query, gallery, 24)
    least = {
        compat: k_reciprocal(query, gallery, topk=3, graph=graph, lambda_value=0.0, compat=compat)[0].min()
        for compat in ("official", "fastreid")
    }
    assert least["official"] < 0  # so it may
    assert least["fastreid"] == 0


def test_exact_lists() -> None:
    query, gallery = integers(7, 60, dim=4)
    x = np.concatenate([query, gallery])
    squared = squared_distances(x)
    graph = NeighborGraph.exact(query, gallery, 9)
    order = np.argsort(squared, axis=1, kind="stable")[:, :9]
    assert np.array_equal(graph.indices.numpy(), order)
    assert np.array_equal(graph.distances.numpy(), np.take_along_axis(squared, order, 1))
    assert np.array_equal(graph.farthest.numpy(), squared.max(axis=1))
    assert graph.is_exact
    assert (graph.num_items, graph.k, graph.num_query) == (67, 9, 7)
    assert str(graph) == (
        "NeighborGraph: 67 items, 7 of them queries; 9 neighbors each, euclidean, exact; farthest exact"
    )


def test_evaluate_with_a_graph() -> None:
    query, gallery = singles(20, 300)
    ids = np.arange(20) % 5, np.arange(300) % 5
    graph = NeighborGraph.exact(query, gallery, 21)
    plain = pyreid.evaluate(query, gallery, *ids, rerank=KReciprocal())
    given = pyreid.evaluate(query, gallery, *ids, rerank=KReciprocal(graph=graph))
    assert given.map == plain.map
    assert KReciprocal(graph=graph).settings()["graph"]["source"] == "exact"


def test_a_whole_ivf_index_gives_the_exact_lists(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("faiss")
    # More copies of a row than a list holds: the indices decide whether an item is in its own list.
    rng = np.random.default_rng(0)
    gallery = np.repeat(rng.integers(-3, 4, (60, 6)), 7, axis=0)[rng.permutation(420)].astype(np.float32)
    query = gallery[:10].copy()
    with caplog.at_level("INFO", logger="pyreid.retrieval.graph"):
        graph = NeighborGraph.faiss(query, gallery, 420, index="Flat")
    exact = NeighborGraph.exact(query, gallery, 420)
    assert torch.equal(graph.distances, exact.distances)
    # At the end of a list faiss chooses among the ties; what is nearer is in the order of the indices.
    inside = exact.distances < exact.distances[:, -1:]
    assert torch.equal(graph.indices[inside], exact.indices[inside])
    assert graph.recall == 1.0
    assert "recall@420 1.0000 on 430 rows (seed 0)" in caplog.text
    assert graph.farthest_ratio == 1.0  # all items are landmarks


def test_faiss_lists_and_their_recall() -> None:
    pytest.importorskip("faiss")
    query, gallery = singles(100, 2900)
    exact = NeighborGraph.exact(query, gallery, 25, metric="cosine")
    graph = NeighborGraph.faiss(
        query, gallery, 25, index="IVF50,Flat", parameters="nprobe=2", metric="cosine", sample=5000
    )
    again = NeighborGraph.faiss(
        query, gallery, 25, index="IVF50,Flat", parameters="nprobe=2", metric="cosine", sample=5000
    )
    assert torch.equal(graph.indices, again.indices)
    common = [len(set(a) & set(b)) for a, b in zip(graph.indices.tolist(), exact.indices.tolist(), strict=True)]
    assert graph.recall is not None
    assert 0.3 < graph.recall < 0.95
    assert abs(graph.recall - np.mean(common) / 25) < 1e-3  # apart from decisions by rounding
    assert graph.sampled_rows == 3000
    own = torch.arange(3000, dtype=torch.int32)
    assert torch.equal(graph.indices[:, 0], own)  # found or not
    assert bool((graph.distances[:, 1:] >= graph.distances[:, :-1]).all())
    assert all(len(set(row)) == 25 for row in graph.indices.tolist())
    assert bool((graph.farthest <= exact.farthest * (1 + 1e-5)).all())
    ratio = float((graph.farthest / exact.farthest).double().mean())
    assert graph.farthest_ratio == pytest.approx(ratio, abs=1e-6)
    assert ratio > 0.9
    assert not graph.is_exact


@pytest.mark.parametrize(
    ("index", "parameters"), [("PQ", "k_factor_rf=8"), ("IVF", "nprobe=40"), ("HNSW32", "efSearch=400")]
)
def test_re_ranking_by_an_approximate_graph(index: str, parameters: str) -> None:
    pytest.importorskip("faiss")
    query, gallery = singles(40, 1500)
    graph = NeighborGraph.faiss(query, gallery, 100, index=index, parameters=parameters)
    assert graph.recall is not None
    assert graph.recall > 0.99
    distances, indices = k_reciprocal(query, gallery, topk=20, graph=graph)
    want = k_reciprocal(query, gallery, topk=20)
    assert (indices == want[1]).mean() > 0.95
    # Its strips give the same for the pairs that both have.
    dense = k_reciprocal(query, gallery, graph=graph)
    np.testing.assert_allclose(distances, np.take_along_axis(dense, indices, 1), rtol=0, atol=1e-5)
    # Lists that are too short for topk are filled by a search.
    distances, indices = k_reciprocal(query, gallery, topk=1500, graph=graph)
    assert np.array_equal(np.sort(indices, axis=1), np.tile(np.arange(1500), (40, 1)))
    np.testing.assert_allclose(distances, np.sort(dense, axis=1), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("index", "few", "many", "name"),
    [
        ("PQ2x4fs,RFlat", "k_factor_rf=1", "k_factor_rf=100", "k_factor_rf"),
        ("IVF", "nprobe=1", "nprobe=50", "nprobe"),
        ("IVF50,PQ8x4fs,RFlat", "nprobe=1", None, "nprobe or k_factor_rf"),
        ("HNSW16", "efSearch=1", "efSearch=200", "efSearch"),
        ("PQ4x4", None, None, "the index's parameters"),
    ],
)
def test_a_low_recall_is_a_warning_that_names_what_to_raise(
    index: str, few: str | None, many: str | None, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("faiss")
    query, gallery = singles(100, 2900)
    with caplog.at_level("WARNING", logger="pyreid.retrieval.graph"):
        graph = NeighborGraph.faiss(query, gallery, 21, index=index, parameters=few)
        assert f"recall@21 is {graph.recall:.2f}, below 0.9: raise {name} (parameters=)" in caplog.text
        caplog.clear()
        if many is not None:
            NeighborGraph.faiss(query, gallery, 21, index=index, parameters=many)
            assert caplog.text == ""


def test_the_default_index_finds_nine_of_ten_of_features_without_clusters(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    query, gallery = (rng.standard_normal((n, 64), dtype=np.float32) for n in (100, 5900))
    with caplog.at_level("WARNING", logger="pyreid.retrieval.graph"):
        graph = NeighborGraph.faiss(query, gallery, 21)
        lists = NeighborGraph.faiss(query, gallery, 21, index="IVF")
        both = NeighborGraph.faiss(query, gallery, 21, index="IVF77,PQ32x4fs,RFlat")
    assert graph.source == "faiss PQ32x4fs,RFlat (k_factor_rf=16)"
    assert lists.source == "faiss IVF77,Flat (nprobe=42)"
    assert both.source == "faiss IVF77,PQ32x4fs,RFlat (nprobe=42,k_factor_rf=16)"
    assert graph.recall is not None
    assert lists.recall is not None
    assert graph.recall > 0.95
    assert lists.recall > 0.9
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("items", "dim", "k", "source"),
    [
        (623, 8, 30, "faiss Flat"),
        (624, 8, 30, "faiss PQ4x4fs,RFlat (k_factor_rf=16)"),
        (700, 7, 5, "faiss PQ7x4fs,RFlat (k_factor_rf=16)"),
        (700, 1, 700, "faiss PQ1x4fs,RFlat (k_factor_rf=16)"),
    ],
)
def test_the_default_index_is_there_for_every_shape(items: int, dim: int, k: int, source: str) -> None:
    pytest.importorskip("faiss")
    query, gallery = singles(20, items - 20, dim=dim)
    graph = NeighborGraph.faiss(query, gallery, k)
    assert graph.source == source
    assert graph.recall is not None
    assert graph.recall > 0.97


def test_refined_lists_do_not_depend_on_how_many_rows_are_searched_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    query, gallery = singles(50, 950)
    many = NeighborGraph.faiss(query, gallery, 21)
    monkeypatch.setattr("pyreid.retrieval.faiss_graph._CANDIDATES_AT_A_TIME", 21 * 16 * 7)
    assert torch.equal(NeighborGraph.faiss(query, gallery, 21).indices, many.indices)


def test_lists_that_faiss_leaves_short_are_made_exactly() -> None:
    pytest.importorskip("faiss")
    query, gallery = singles(10, 300)
    graph = NeighborGraph.faiss(query, gallery, 200, index="IVF5,Flat", parameters="nprobe=1")
    exact = NeighborGraph.exact(query, gallery, 200)
    assert int(graph.indices.min()) >= 0
    assert graph.recall == 1.0
    assert (graph.indices == exact.indices).float().mean() > 0.99


PROGRAM = """
import resource
import numpy as np
from pyreid.retrieval import NeighborGraph, k_reciprocal
rng = np.random.default_rng(0)
centres = rng.standard_normal((400, 64), dtype="f4")
x = centres[rng.integers(0, 400, 30_000)] + 0.3 * rng.standard_normal((30_000, 64), dtype="f4")
def run(query, gallery):
    graph = NeighborGraph.faiss(query, gallery, 60, sample=200)
    return graph, k_reciprocal(query, gallery, topk=40, graph=graph)
run(x[:10], x[:500])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
graph, (_, indices) = run(x[:500], x[500:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, graph.recall, len(indices))
"""


def test_memory_is_not_that_of_all_pairs() -> None:
    pytest.importorskip("faiss")
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    growth, recall, queries = done.stdout.split()
    assert float(recall) > 0.9
    assert int(queries) == 500
    assert 1024 * int(growth) < 4 * 30_000**2 / 8


def test_without_faiss_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'pyreid\[faiss\]'"):
        NeighborGraph.faiss(*singles(2, 10), 3)


def test_wrong_arguments() -> None:
    query, gallery = singles(4, 60)
    graph = NeighborGraph.exact(query, gallery, 21)
    with pytest.raises(ValueError, match="k: expected 1 to 64, the rows of query and gallery, got 65"):
        NeighborGraph.exact(query, gallery, 65)
    with pytest.raises(TypeError, match="k: expected an integer, got float"):
        NeighborGraph.exact(query, gallery, 2.0)  # type: ignore[arg-type]
    for change, error, match in [
        ({"k1": 21}, ValueError, "graph: expected lists of at least 22 items for these k1 and k2, got 21"),
        ({"metric": "cosine"}, ValueError, "graph: expected one for the metric of the call, got one for 'euclidean'"),
        ({"gallery": gallery[:50]}, ValueError, "graph: expected one of 4 queries and 50 gallery items, got 4 and 60"),
        (
            {"query": query[:3], "gallery": np.concatenate([query[3:], gallery])},
            ValueError,
            "graph: expected one of 3 queries and 61 gallery items, got 4 and 60",
        ),
        ({"gallery": gallery[::-1]}, ValueError, "graph: expected the neighbors of these features"),
        ({"graph": 1}, TypeError, "graph: expected a NeighborGraph or None, got int"),
    ]:
        arguments: dict[str, Any] = {"query": query, "gallery": gallery, "graph": graph, "topk": 3} | change
        with pytest.raises(error, match=match):
            k_reciprocal(arguments.pop("query"), arguments.pop("gallery"), **arguments)
    with pytest.raises(ValueError, match="distances: expected shape"):
        NeighborGraph(graph.indices, graph.distances[:3], 4, "euclidean", graph.farthest)
    pytest.importorskip("faiss")
    for change, error, match in [
        ({"index": "XYZ"}, ValueError, "index: expected a factory string of faiss, got 'XYZ'"),
        ({"index": 3}, TypeError, "index: expected a string, got int"),
        ({"index": "IVF500,Flat"}, ValueError, "index: faiss cannot build 'IVF500,Flat' of 64 items"),
        ({"parameters": "depth=3"}, ValueError, "parameters: expected parameters of"),
        ({"sample": 0}, ValueError, "sample: expected at least 1, got 0"),
        ({"seed": 0.5}, TypeError, "seed: expected an integer, got float"),
    ]:
        with pytest.raises(error, match=match):
            NeighborGraph.faiss(query, gallery, 5, **change)
