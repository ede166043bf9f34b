from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch

import pyreid
from pyreid.retrieval import KReciprocal, k_reciprocal
from python_tests.retrieval.naive import naive_re_ranking, squared_distances, tolerance

COMPATS = ["official", "torchreid", "fastreid"]
K1S = [1, 2, 3, 5, 7, 9, 20, 25, 60]


def integers(num_query: int, num_gallery: int, *, dim: int = 3, levels: int = 3, seed: int = 0) -> list[np.ndarray]:
    """Features of small integers: all inner products are exact, many distances tie and rows repeat."""
    rng = np.random.default_rng(seed)
    return [rng.integers(-levels, levels + 1, (n, dim)).astype(np.float32) for n in (num_query, num_gallery)]


def clusters(num_query: int, num_gallery: int, *, dim: int = 16, seed: int = 0) -> list[np.ndarray]:
    """Float64 features around centroids: no ties."""
    rng = np.random.default_rng(seed)
    centroids = rng.standard_normal((max(2, (num_query + num_gallery) // 12), dim))
    return [
        centroids[rng.integers(0, len(centroids), n)] + 0.4 * rng.standard_normal((n, dim))
        for n in (num_query, num_gallery)
    ]


def expected(query: np.ndarray, gallery: np.ndarray, **parameters: Any) -> np.ndarray:
    return naive_re_ranking(squared_distances(np.concatenate([query, gallery])), len(query), **parameters)


@hypothesis.settings(deadline=None, max_examples=150)
@hypothesis.given(
    st.integers(1, 8),
    st.integers(1, 45),
    st.integers(1, 4),
    st.integers(0, 4),
    st.sampled_from(K1S),
    st.sampled_from([1, 2, 6, 30]),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.sampled_from(COMPATS),
    st.integers(0, 10**6),
)
def test_equals_the_naive_method(
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
    query, gallery = integers(num_query, num_gallery, dim=dim, levels=levels, seed=seed)
    parameters: dict[str, Any] = {"k1": k1, "k2": k2, "lambda_value": lambda_value, "compat": compat}
    result = k_reciprocal(query, gallery, **parameters)
    want = expected(query, gallery, **parameters)
    assert result.dtype == np.float32
    atol = tolerance(np.float32, np.concatenate([query, gallery]), k2, exact=True, compat=compat)
    np.testing.assert_allclose(result, want, rtol=0, atol=atol)
    topk = 1 + seed % num_gallery
    distances, indices = k_reciprocal(query, gallery, topk=topk, **parameters)
    order = np.argsort(result, axis=1, kind="stable")[:, :topk]
    assert np.array_equal(indices, order)
    assert np.array_equal(distances, np.take_along_axis(result, order, 1))


@pytest.mark.parametrize("compat", COMPATS)
@pytest.mark.parametrize("k1", [5, 20, 25])
def test_real_features(k1: int, compat: Any) -> None:
    query, gallery = clusters(20, 130)
    want = expected(query, gallery, k1=k1, k2=4, lambda_value=0.3, compat=compat)
    assert len(np.unique(want)) > 1000
    result = k_reciprocal(query, gallery, k1=k1, k2=4, compat=compat)
    assert result.dtype == np.float64
    x = np.concatenate([query, gallery])
    np.testing.assert_allclose(result, want, rtol=0, atol=tolerance(np.float64, x, 4, compat=compat))
    single = k_reciprocal(query.astype(np.float32), gallery.astype(np.float32), k1=k1, k2=4, compat=compat)
    np.testing.assert_allclose(single, want, rtol=0, atol=tolerance(np.float32, x, 4, compat=compat))


@pytest.mark.parametrize("compat", COMPATS)
def test_cosine_normalises_the_rows(compat: Any) -> None:
    query, gallery = clusters(9, 70)
    unit = [f / np.linalg.norm(f, axis=1, keepdims=True) for f in (query, gallery)]
    scale = 0.5 if compat == "fastreid" else 1.0  # 1 - cos is half the squared distance of unit vectors
    want = expected(*unit, k1=10, k2=3, lambda_value=0.3, compat=compat, final_scale=scale)
    result = k_reciprocal(query, gallery, k1=10, k2=3, compat=compat, metric="cosine")
    atol = tolerance(np.float64, np.concatenate(unit), 3, compat=compat)
    np.testing.assert_allclose(result, want, rtol=0, atol=atol)
    with_zeros = k_reciprocal(np.zeros((1, 3)), np.eye(3), metric="cosine")
    assert np.isfinite(with_zeros).all()


def test_a_query_by_hand() -> None:
    # Items 0 (the query), 1, 2, 9 on a line, k1 = 1: lists of 2. The query and 1 are nearest to each other (1 prefers
    # the tied 0 by its index), 2 and 9 have only themselves. Row maxima: 81 for the query, 64 for item 1.
    near, far = np.exp(-1 / 81), np.exp(-1 / 64)
    first = {0: 1 / (1 + near), 1: near / (1 + near)}
    second = {0: far / (1 + far), 1: 1 / (1 + far)}
    m = sum(min(first[c], second[c]) for c in first)
    want = [0.7 * (1 - m / (2 - m)) + 0.3 / 81, 0.7 + 0.3 * 4 / 81, 0.7 + 0.3]
    result = pyreid.k_reciprocal(np.zeros((1, 1)), np.array([[1.0], [2.0], [9.0]]), k1=1, k2=1)
    np.testing.assert_allclose(result[0], want, rtol=0, atol=1e-14)
    distances, indices = pyreid.k_reciprocal(np.zeros((1, 1)), np.array([[9.0], [2.0], [1.0]]), k1=1, k2=1, topk=2)
    assert indices.tolist() == [[2, 1]]
    np.testing.assert_allclose(distances[0], want[:2], rtol=0, atol=1e-14)


def test_half_of_k1_is_rounded_to_even() -> None:
    # With k1 = 5 and 25 the lists of a candidate hold round(2.5) + 1 = 3 and round(12.5) + 1 = 13 items: one more in
    # them is another result on this set.
    query, gallery = clusters(10, 150, dim=4)
    squared = squared_distances(np.concatenate([query, gallery]))
    for k1 in (5, 25):
        want = naive_re_ranking(squared, 10, k1=k1, k2=1, lambda_value=0.0)
        result = k_reciprocal(query, gallery, k1=k1, k2=1, lambda_value=0.0)
        np.testing.assert_allclose(result, want, rtol=0, atol=1e-12)
        around, np.around = np.around, lambda x: np.floor(x + 0.5)  # type: ignore[assignment, misc]
        try:
            up = naive_re_ranking(squared, 10, k1=k1, k2=1, lambda_value=0.0)
        finally:
            np.around = around  # type: ignore[assignment, misc]
        assert np.abs(up - want).max() > 1e-3


def test_lambda_of_one_is_the_normalised_distance() -> None:
    query, gallery = clusters(5, 40)
    squared = squared_distances(np.concatenate([query, gallery]))
    want = squared[:5, 5:] / squared[:5].max(axis=1, keepdims=True)
    np.testing.assert_allclose(k_reciprocal(query, gallery, lambda_value=1), want, rtol=0, atol=1e-13)


def test_permutations_permute_the_result() -> None:
    query, gallery = clusters(30, 200)
    result = k_reciprocal(query, gallery)
    rng = np.random.default_rng(1)
    p, q = rng.permutation(200), rng.permutation(30)
    permuted = k_reciprocal(query[q], gallery[p])
    np.testing.assert_allclose(permuted, result[q][:, p], rtol=0, atol=1e-12)


@pytest.mark.parametrize("rows", [1, 7])
def test_height_of_the_strips_does_not_matter(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    query, gallery = integers(40, 300, dim=6, levels=9)
    whole = k_reciprocal(query, gallery)
    tiles = sys.modules["pyreid.ops.distance_tiles"]
    monkeypatch.setattr(tiles, "_TILE_BYTES", {"cpu": rows * 4 * 100})
    monkeypatch.setattr(tiles, "_MIN_ROWS", rows)
    heights = []
    tile_rows = tiles.tile_rows
    monkeypatch.setattr(tiles, "tile_rows", lambda *a, **k: heights.append(tile_rows(*a, **k)) or heights[-1])
    assert np.array_equal(k_reciprocal(query, gallery), whole)
    assert max(heights) < 60
    distances, indices = k_reciprocal(query, gallery, topk=9)
    order = np.argsort(whole, axis=1, kind="stable")[:, :9]
    assert np.array_equal(indices, order)
    assert np.array_equal(distances, np.take_along_axis(whole, order, 1))


@pytest.mark.parametrize("duplicates", [2, 9, 40])
def test_repeated_rows_of_real_features(duplicates: int) -> None:
    # More copies of a row than a list holds: some copies are not in their own lists.
    rng = np.random.default_rng(0)
    distinct = rng.standard_normal((9, 37))
    gallery = np.repeat(distinct, duplicates, axis=0)[rng.permutation(9 * duplicates)]
    query = np.concatenate([distinct[:3], rng.standard_normal((2, 37))])
    want = expected(query, gallery, k1=6, k2=3, lambda_value=0.3)
    for dtype in (np.float64, np.float32):
        result = k_reciprocal(query.astype(dtype), gallery.astype(dtype), k1=6, k2=3)
        np.testing.assert_allclose(result, want, rtol=0, atol=tolerance(dtype, np.concatenate([query, gallery]), 3))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_all_rows_equal(dtype: type) -> None:
    row = np.full((1, 37), 0.1, dtype=dtype)  # whose norm and products are rounded
    for num_query, num_gallery in [(1, 1), (3, 5), (40, 60)]:
        query, gallery = (np.repeat(row, n, axis=0) for n in (num_query, num_gallery))
        want = expected(query, gallery, k1=20, k2=6, lambda_value=0.3)
        assert np.isfinite(want).all()
        for compat in COMPATS:
            result = k_reciprocal(query, gallery, compat=compat)  # type: ignore[arg-type]
            if compat != "fastreid":
                atol = tolerance(dtype, np.concatenate([query, gallery]), 6, exact=True)
                np.testing.assert_allclose(result, want, rtol=0, atol=atol)
            assert np.isfinite(result).all()
        assert (k_reciprocal(query, gallery, lambda_value=1) == 0).all()


def test_sets_of_one_image_and_none() -> None:
    one = np.ones((1, 3), dtype=np.float32)
    assert k_reciprocal(one, one).tolist() == [[0.0]]
    want = expected(one, 2 * one, k1=20, k2=6, lambda_value=0.3)
    np.testing.assert_allclose(k_reciprocal(one, 2 * one), want, rtol=0, atol=1e-6)
    none = np.empty((0, 3), dtype=np.float32)
    assert k_reciprocal(none, one).shape == (0, 1)
    assert k_reciprocal(one, none).shape == (1, 0)
    distances, indices = k_reciprocal(none, one, topk=1)
    assert (distances.shape, indices.shape, indices.dtype) == ((0, 1), (0, 1), np.int64)


@pytest.mark.parametrize("topk", [1, 255, 256, 257, 700])
def test_long_lists(topk: int) -> None:
    query, gallery = integers(5, 700, dim=4)
    whole = k_reciprocal(query, gallery)
    assert len(np.unique(whole)) < whole.size / 2  # ties
    distances, indices = k_reciprocal(query, gallery, topk=topk)
    order = np.argsort(whole, axis=1, kind="stable")[:, :topk]
    assert np.array_equal(indices, order)
    assert np.array_equal(distances, np.take_along_axis(whole, order, 1))


def test_far_items_keep_a_weight_with_fastreid() -> None:
    # exp of minus these squared distances underflows; the weights are a softmax, which does not.
    query, gallery = (1000 * f for f in clusters(4, 40))
    result = k_reciprocal(query, gallery, compat="fastreid", lambda_value=0)
    want = expected(query, gallery, k1=20, k2=6, lambda_value=0.0, compat="fastreid")
    np.testing.assert_allclose(result, want, rtol=0, atol=1e-9)


def test_files_and_chunks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    query, gallery = (rng.standard_normal((rows, 8), dtype=np.float32) for rows in (6, 40))
    np.save(tmp_path / "q.npy", query)
    np.save(tmp_path / "g.npy", gallery)
    for function, options in (
        (k_reciprocal, {}),
        (pyreid.retrieval.NeighborGraph.exact, {"k": 9}),
        (pyreid.retrieval.query_expansion, {}),
    ):
        expected: Any = function(query, gallery, **options)
        for other in (
            (tmp_path / "q.npy", str(tmp_path / "g.npy")),
            (iter([query]), iter([gallery[:15], gallery[15:]])),
        ):
            found: Any = function(*other, **options)
            if isinstance(found, np.ndarray):
                np.testing.assert_array_equal(found, expected)
            else:
                assert torch.equal(found.indices, expected.indices)
    np.testing.assert_array_equal(
        pyreid.retrieval.database_augmentation(str(tmp_path / "g.npy")), pyreid.retrieval.database_augmentation(gallery)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_types_and_kinds_of_input(dtype: torch.dtype, tmp_path: Path) -> None:
    query, gallery = integers(9, 80)
    want = k_reciprocal(query, gallery)
    result = k_reciprocal(torch.from_numpy(query).to(dtype), torch.from_numpy(gallery).to(dtype), return_torch=True)
    assert isinstance(result, torch.Tensor)
    assert result.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    atol = tolerance(np.float32, np.concatenate([query, gallery]), 6, exact=True)
    np.testing.assert_allclose(result.numpy(), want, rtol=0, atol=atol)
    np.save(tmp_path / "gallery.npy", gallery)
    mapped = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    copies = query.copy(), gallery.copy()
    wide = np.repeat(query, 2, axis=1)[:, ::2]
    assert np.array_equal(k_reciprocal(wide, mapped), want)
    assert np.array_equal(k_reciprocal(np.asfortranarray(query), gallery[::-1].copy()[::-1]), want)
    assert np.array_equal(query, copies[0])
    assert np.array_equal(gallery, copies[1])
    tensors = k_reciprocal(query, gallery, topk=3, return_torch=True)
    assert [t.dtype for t in tensors] == [torch.float32, torch.int64]  # type: ignore[union-attr]


PROGRAM = """
import hashlib, resource, sys
import numpy as np, torch
from pyreid.retrieval import k_reciprocal
from python_tests.retrieval.test_k_reciprocal import clusters
threads, num_query, num_gallery = map(int, sys.argv[1:4])
torch.set_num_threads(threads)
query, gallery = (f.astype(np.float32) for f in clusters(num_query, num_gallery, dim=24))
k_reciprocal(query[:10], gallery[:10])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
distances, indices = k_reciprocal(query, gallery, topk=10)
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
print(hashlib.sha256(indices.tobytes()).hexdigest())
print(hashlib.sha256(distances.tobytes()).hexdigest())
"""


def run_program(threads: int, num_query: int, num_gallery: int, isa: str = "avx512") -> list[str]:
    """Memory in bytes beyond the input, a hash of the indices and one of the distances."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(threads), str(num_query), str(num_gallery)],
        env=os.environ | {"PYREID_CPU_ISA": isa},
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    return done.stdout.splitlines()


def test_threads_do_not_matter_and_instruction_sets_agree() -> None:
    one, two = run_program(1, 200, 2500), run_program(2, 200, 2500)
    assert one[1:] == two[1:]
    for isa in ("avx2", "baseline"):
        assert run_program(2, 200, 2500, isa)[1] == one[1]


def test_memory_is_that_of_a_strip() -> None:
    num_query, num_gallery = 6000, 17000
    memory = int(run_program(1, num_query, num_gallery)[0])
    assert memory < 0.6 * 4 * num_query * num_gallery  # and a ninth of a matrix of all pairs


def row(*values: float) -> np.ndarray:
    return np.array([values], dtype=np.float32)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"query": [[1.0]]}, TypeError, "query: expected a torch tensor, a NumPy array or an object with DLPack"),
        ({"query": np.ones((2, 2), dtype=int)}, TypeError, "query: expected float16, bfloat16, float32 or float64"),
        ({"query": np.ones(2)}, ValueError, r"query: expected a non-empty 2-D matrix, got shape \(2,\)"),
        ({"gallery": np.ones((3, 4))}, ValueError, r"gallery: expected 2 columns to match query, got shape \(3, 4\)"),
        ({"gallery": np.ones((3, 0))}, ValueError, r"gallery: expected a non-empty 2-D matrix, got shape \(3, 0\)"),
        ({"gallery": row(1, np.nan)}, ValueError, "gallery: 1 NaN or infinite values, the first is nan at row 0, col"),
        ({"query": row(np.inf, 0)}, ValueError, "query: 1 NaN or infinite values, the first is inf at row 0, column 0"),
        ({"query": row(1e19, 0)}, ValueError, "query: the squared norm of 1 rows overflows float32"),
        ({"k1": 0}, ValueError, "k1: expected at least 1, got 0"),
        ({"k2": 0}, ValueError, "k2: expected at least 1, got 0"),
        ({"k1": 2.0}, TypeError, "k1: expected an integer, got float"),
        ({"k2": True}, TypeError, "k2: expected an integer, got bool"),
        ({"lambda_value": 1.1}, ValueError, r"lambda_value: expected a number from 0 to 1, got 1.1"),
        ({"lambda_value": float("nan")}, ValueError, r"lambda_value: expected a number from 0 to 1, got nan"),
        ({"lambda_value": "0.3"}, TypeError, "lambda_value: expected a number, got str"),
        ({"compat": "layumi"}, ValueError, "compat: expected one of 'official', 'torchreid', 'fastreid', got 'layumi'"),
        ({"metric": "dot"}, ValueError, "metric: expected one of 'euclidean', 'sqeuclidean', 'cosine', got 'dot'"),
        ({"topk": 0}, ValueError, "topk: expected 1 to 3, the rows of gallery, got 0"),
        ({"topk": 4}, ValueError, "topk: expected 1 to 3, the rows of gallery, got 4"),
        ({"topk": 1.5}, TypeError, "topk: expected an integer or None, got float"),
        ({"device": "mps"}, ValueError, "device: expected a CPU or CUDA device, got 'mps'"),
    ],
)
def test_bad_input(change: dict[str, Any], error: type[Exception], match: str) -> None:
    good: dict[str, Any] = {
        "query": np.ones((2, 2), dtype=np.float32),
        "gallery": np.eye(3, 2, dtype=np.float32),
    }
    assert k_reciprocal(**good).shape == (2, 3)
    with pytest.raises(error, match=match) as caught:
        k_reciprocal(**(good | change))
    assert "\n" not in str(caught.value)


def test_parameters_are_checked_when_they_are_made() -> None:
    with pytest.raises(ValueError, match="k1: expected at least 1, got -1"):
        KReciprocal(k1=-1)
    with pytest.raises(AttributeError):
        KReciprocal().k1 = 3  # type: ignore[misc]
    settings = KReciprocal(np.int64(3), np.int64(2), np.float32(0.5)).settings()  # type: ignore[arg-type]
    assert json.loads(json.dumps(settings))["k1"] == 3
    assert KReciprocal() == pyreid.KReciprocal(k1=20, k2=6, lambda_value=0.3, compat="official")
