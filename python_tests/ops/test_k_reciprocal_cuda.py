"""What torch's sorts make between the kernels of re-ranking on CUDA, run on the CPU with stand-ins for the kernels."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pyreid.ops import k_reciprocal as on_cpu
from pyreid.ops import k_reciprocal_cuda as by_sorting
from pyreid.ops.k_reciprocal import SparseRows
from pyreid.ops.set_neighbors import SetNeighbors, set_neighbors, smallest_in_rows
from pyreid.retrieval import k_reciprocal
from python_tests.retrieval.test_k_reciprocal import clusters, integers

NO_ITEM = 2**31 - 1


def reciprocal_neighbors(neighbors: Tensor, k: int) -> Tensor:
    out = torch.full((len(neighbors), k), NO_ITEM, dtype=torch.int32)
    for i, row in enumerate(neighbors[:, :k].tolist()):
        for a, j in enumerate(row):
            if i in neighbors[j, :k].tolist():
                out[i, a] = j
    return out


def reciprocal_expansions(own: Tensor, half: Tensor) -> Tensor:
    sizes = torch.zeros_like(own)
    for i, row in enumerate(own.tolist()):
        assert row == sorted(row)
        for a, c in enumerate(row):
            if c != NO_ITEM:
                theirs = [j for j in half[c].tolist() if j != NO_ITEM]
                if 3 * len(set(theirs) & set(row)) > 2 * len(theirs):
                    sizes[i, a] = len(theirs)
    return sizes


def run_means(values: Tensor, starts: Tensor, divisor: int) -> Tensor:
    means = values.new_zeros(len(starts) - 1)
    for r in range(len(means)):
        for e in range(int(starts[r]), int(starts[r + 1])):
            means[r] += values[e]
    return means / divisor


@pytest.fixture(autouse=True)
def _stand_ins() -> Iterator[None]:
    with torch.library._scoped_library("pyreid", "IMPL") as library:
        for kernel in (reciprocal_neighbors, reciprocal_expansions, run_means):
            library.impl(kernel.__name__, kernel, "CPU")
        yield


def lists_of(items: int, k: int, *, seed: int = 0) -> Tensor:
    query, gallery = integers(0, items, dim=4, seed=seed)
    x = torch.from_numpy(np.concatenate([query, gallery]))
    return set_neighbors(x, x.square().sum(1), k, num_query=0).indices


def same(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> bool:
    return all(x.dtype == y.dtype and torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("at_a_time", [1, 100, 2**21])
@pytest.mark.parametrize(("items", "k", "forward", "half"), [(1, 1, 1, 1), (60, 12, 12, 6), (90, 40, 35, 40)])
def test_stages_equal_those_of_the_cpu(
    items: int, k: int, forward: int, half: int, at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(by_sorting, "_ENTRIES_AT_A_TIME", at_a_time)
    neighbors = lists_of(items, k)
    starts, columns = on_cpu.reciprocal_sets(neighbors, forward, half)
    assert same(by_sorting.reciprocal_sets(neighbors, forward, half), (starts, columns))
    for dtype in (torch.float32, torch.float64):
        weights = torch.rand(len(columns), dtype=dtype, generator=torch.Generator().manual_seed(0))
        rows = SparseRows(starts, columns, weights)
        for k2 in (2, k) if k > 1 else (1,):
            assert same(by_sorting.mean_rows(*rows, neighbors, k2), on_cpu.mean_rows(rows, neighbors, k2))
        for first in (0, items // 3, items):
            assert same(by_sorting.by_columns(*rows, first), on_cpu.by_columns(rows, first))


def test_rows_without_entries() -> None:
    rows = SparseRows(torch.tensor([0, 0, 2, 2]), torch.tensor([0, 2], dtype=torch.int32), torch.tensor([0.5, 0.25]))
    neighbors = torch.tensor([[0, 2], [1, 0], [2, 1]], dtype=torch.int32)
    assert same(by_sorting.mean_rows(*rows, neighbors, 2), on_cpu.mean_rows(rows, neighbors, 2))
    assert same(by_sorting.by_columns(*rows, 2), on_cpu.by_columns(rows, 2))
    nothing = SparseRows(torch.zeros(4, dtype=torch.int64), rows.columns[:0], rows.weights[:0])
    assert same(by_sorting.mean_rows(*nothing, neighbors, 2), on_cpu.mean_rows(nothing, neighbors, 2))


@pytest.mark.parametrize("compat", ["official", "torchreid", "fastreid"])
@pytest.mark.parametrize(("k1", "k2"), [(20, 6), (7, 1), (200, 3)])
def test_the_whole_method_has_the_same_bits(k1: int, k2: int, compat: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for query, gallery in (integers(9, 60), clusters(9, 60)):
        want = k_reciprocal(query, gallery, k1=k1, k2=k2, compat=compat)
        encoding = sys.modules["pyreid.retrieval.encoding"]
        with monkeypatch.context() as patch:
            patch.setattr(encoding, "reciprocal_sets", by_sorting.reciprocal_sets)
            patch.setattr(encoding, "mean_rows", lambda rows, *rest: SparseRows(*by_sorting.mean_rows(*rows, *rest)))
            patch.setattr(encoding, "by_columns", lambda rows, first: SparseRows(*by_sorting.by_columns(*rows, first)))
            assert np.array_equal(k_reciprocal(query, gallery, k1=k1, k2=k2, compat=compat), want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows_at_a_time", [1, 5, 100])
def test_lists_of_whole_strips(rows_at_a_time: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["pyreid.ops.set_neighbors"]
    x = torch.from_numpy(np.concatenate(integers(3, 50, dim=4))).to(dtype)
    offset, products = x.square().sum(1) / 2, x @ x.T
    smallest = smallest_in_rows(products, 7, offset).sort(dim=1).values  # on the CPU they come in no order

    def stable(values: Tensor, k: int, offset: Tensor | None) -> Tensor:
        return (values if offset is None else offset - values).sort(dim=1, stable=True).indices[:, :k]

    assert torch.equal(smallest, stable(products, 7, offset).sort(dim=1).values)
    monkeypatch.setattr(module, "smallest_in_rows", stable)
    monkeypatch.setattr(module, "_DIFFERENCES_AT_A_TIME", rows_at_a_time * len(x))
    for values, given in ((products, offset), (offset - products, None)):
        actual, want = (SetNeighbors.empty(len(x), 7, dtype) for _ in range(2))
        actual._set(slice(0, 20), values[:20], given)
        actual._set(slice(20, len(x)), values[20:], given)
        want.add(slice(0, len(x)), values, 0, offset=given)
        for name in ("values", "indices", "farthest_value"):
            assert torch.equal(getattr(actual, name), getattr(want, name))
        assert actual.farthest.dtype == want.farthest.dtype
        assert torch.equal(actual.farthest.long(), (values if given is None else given - values).max(dim=1).indices)
