"""Re-ranking on a CUDA device against the CPU: features whose neighbors rounding does not decide about."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch

import pyreid
from pyreid.ops.set_neighbors import set_neighbors
from pyreid.retrieval import KReciprocal, k_reciprocal
from python_tests.retrieval.naive import tolerance
from python_tests.retrieval.test_k_reciprocal import COMPATS, clusters, integers

pytestmark = pytest.mark.gpu


def check(query: np.ndarray, gallery: np.ndarray, *, exact: bool, **parameters: Any) -> np.ndarray:
    """Both devices are within the tolerance of the exact result, so within twice of one another."""
    want = k_reciprocal(query, gallery, **parameters)
    result = k_reciprocal(query, gallery, device="cuda", **parameters)
    assert (result.dtype, result.shape) == (want.dtype, want.shape)
    joint = np.concatenate([query, gallery])
    if parameters.get("metric") == "cosine":
        joint = joint / np.linalg.norm(joint, axis=1, keepdims=True).clip(1e-30)
    compat, k2 = parameters.get("compat", "official"), min(parameters.get("k2", 6), len(joint))
    atol = 2 * tolerance(want.dtype.type, joint, k2, exact=exact, compat=compat)
    np.testing.assert_allclose(result, want, rtol=0, atol=atol)
    return result


@pytest.mark.parametrize("compat", COMPATS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_small_sets_against_the_cpu(dtype: type, compat: str) -> None:
    query, gallery = (f.astype(dtype) for f in integers(5, 60))
    check(query, gallery, exact=True, compat=compat)
    k_reciprocal(query, gallery, topk=7, compat=compat, device="cuda")  # type: ignore[call-overload]


@pytest.mark.parametrize("compat", COMPATS)
@pytest.mark.parametrize(("k1", "k2"), [(1, 1), (2, 2), (5, 6), (20, 6), (25, 1), (70, 40), (400, 300)])
def test_exact_products(k1: int, k2: int, compat: str) -> None:
    for dim, levels in ((3, 3), (6, 9)):
        query, gallery = integers(40, 260, dim=dim, levels=levels)
        check(query, gallery, exact=True, k1=k1, k2=k2, compat=compat)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("compat", COMPATS)
def test_real_features(compat: str, metric: str) -> None:
    query, gallery = clusters(60, 1500)
    for lambda_value in (0.0, 0.3, 1.0):
        check(query, gallery, exact=False, compat=compat, metric=metric, lambda_value=lambda_value)


@pytest.mark.parametrize("duplicates", [2, 9, 40])
def test_repeated_rows(duplicates: int) -> None:
    rng = np.random.default_rng(0)
    distinct = rng.standard_normal((9, 37))
    gallery = np.repeat(distinct, duplicates, axis=0)[rng.permutation(9 * duplicates)]
    query = np.concatenate([distinct[:3], rng.standard_normal((2, 37))])
    for dtype in (np.float64, np.float32):
        check(query.astype(dtype), gallery.astype(dtype), exact=False, k1=6, k2=3)


def test_all_rows_equal() -> None:
    query, gallery = np.full((3, 37), 0.1, dtype=np.float32), np.full((50, 37), 0.1, dtype=np.float32)
    for compat in COMPATS:
        result = k_reciprocal(query, gallery, compat=compat, device="cuda")  # type: ignore[call-overload]
        assert np.isfinite(result).all()
    assert (k_reciprocal(query, gallery, lambda_value=1, device="cuda") == 0).all()


def test_sets_of_one_image_and_none() -> None:
    one, none = np.ones((1, 3), dtype=np.float32), np.empty((0, 3), dtype=np.float32)
    assert k_reciprocal(one, one, device="cuda").tolist() == [[0.0]]
    check(one, 2 * one, exact=True)
    assert k_reciprocal(none, one, device="cuda").shape == (0, 1)
    assert k_reciprocal(one, none, device="cuda").shape == (1, 0)
    distances, indices = k_reciprocal(none, one, topk=1, device="cuda")
    assert (distances.shape, indices.shape, indices.dtype) == ((0, 1), (0, 1), np.int64)


@pytest.mark.parametrize("topk", [1, 33, 700, 2048, 2049])
def test_the_nearest_are_those_of_the_matrix(topk: int) -> None:
    query, gallery = integers(5, 2100, dim=4)
    whole = k_reciprocal(query, gallery, device="cuda")
    assert len(np.unique(whole)) < whole.size / 2  # ties
    distances, indices = k_reciprocal(query, gallery, topk=topk, device="cuda")
    order = np.argsort(whole, axis=1, kind="stable")[:, :topk]
    assert np.array_equal(indices, order)
    assert np.array_equal(distances, np.take_along_axis(whole, order, 1))


def test_repeated_and_in_parts_the_bits_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    for features in (clusters(70, 800), [f.astype(np.float32) for f in clusters(70, 800)]):
        first = k_reciprocal(*features, device="cuda")
        assert np.array_equal(k_reciprocal(*features, device="cuda"), first)
        with monkeypatch.context() as patch:
            patch.setattr(sys.modules["pyreid.ops.k_reciprocal_cuda"], "_ENTRIES_AT_A_TIME", 1000)
            patch.setattr(sys.modules["pyreid.ops.set_neighbors"], "_DIFFERENCES_AT_A_TIME", 5000)
            assert np.array_equal(k_reciprocal(*features, device="cuda"), first)


def test_height_of_the_strips_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    query, gallery = integers(100, 300, dim=6, levels=9)
    whole = k_reciprocal(query, gallery, device="cuda")
    tiles = sys.modules["pyreid.ops.distance_tiles"]
    monkeypatch.setattr(tiles, "_TILE_BYTES", {"cuda": 33 * 4 * 400})
    assert np.array_equal(k_reciprocal(query, gallery, device="cuda"), whole)
    strips = list(KReciprocal().strips(query, gallery, device="cuda"))
    assert len(strips) > 2
    for rows, distances in KReciprocal().strips(query, gallery, device="cuda"):
        assert distances.is_cuda
        assert np.array_equal(distances.cpu().numpy(), whole[rows])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lists_are_those_of_the_cpu(dtype: torch.dtype) -> None:
    x = torch.from_numpy(np.concatenate(integers(40, 700, dim=5, levels=6))).to(dtype)
    norms = x.square().sum(1)
    want = set_neighbors(x, norms, 300, num_query=40)
    lists = set_neighbors(x.cuda(), norms.cuda(), 300, num_query=40)
    for name in ("values", "indices", "farthest_value"):
        assert torch.equal(getattr(lists, name).cpu(), getattr(want, name))
    farthest = lists.farthest.cpu().long()
    assert torch.equal(norms[farthest] / 2 - (x * x[farthest]).sum(1), want.farthest_value)


def test_where_it_is_computed() -> None:
    query, gallery = integers(9, 80)
    on_cuda = [torch.from_numpy(f).cuda() for f in (query, gallery)]
    want = k_reciprocal(query, gallery, device="cuda")
    assert np.array_equal(k_reciprocal(*on_cuda), want)
    assert np.array_equal(k_reciprocal(on_cuda[0], gallery), want)
    assert np.array_equal(k_reciprocal(*on_cuda, device="cpu"), k_reciprocal(query, gallery))
    tensor = k_reciprocal(*on_cuda, return_torch=True)
    assert isinstance(tensor, torch.Tensor)
    assert tensor.device.type == "cpu"
    half = k_reciprocal(*(f.half() for f in on_cuda), topk=3)
    assert all(np.array_equal(a, b) for a, b in zip(half, k_reciprocal(*on_cuda, topk=3), strict=True))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_evaluate(metric: Any) -> None:
    query, gallery = clusters(40, 300)
    rng = np.random.default_rng(1)
    labels = [rng.integers(0, high, n) for high, n in ((9, 40), (9, 300), (3, 40), (3, 300))]
    labels[1][::50] = -1
    results = [
        pyreid.evaluate(query, gallery, *labels, rerank=KReciprocal(), metric=metric, device=device).to_dict()
        for device in ("cpu", "cuda")
    ]
    devices = [result["settings"].pop("device") for result in results]
    assert devices[0] == "cpu"
    assert devices[1].startswith("cuda")
    assert results[0] == results[1]


def test_lists_that_are_too_long() -> None:
    query, gallery = integers(4, 2100)
    with pytest.raises(ValueError, match="k1: expected lists of at most 2048 neighbors on CUDA, got 2049 with k1 = 20"):
        k_reciprocal(query, gallery, k1=2048, device="cuda")
    with pytest.raises(ValueError, match="k2: expected lists of at most 2048 neighbors on CUDA, got 2104 with k2 = 30"):
        k_reciprocal(query, gallery, k2=3000, device="cuda")
    check(query[:2], gallery[:300], exact=True, k1=3000)  # a set that is smaller
