from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch

from pyreid.ops import set_neighbors as module
from pyreid.ops.set_neighbors import SetNeighbors, set_neighbors

Update = torch.ops.pyreid.set_neighbors_


def lists_of(x: np.ndarray, k: int, num_query: int) -> SetNeighbors:
    tensor = torch.from_numpy(x)
    return set_neighbors(tensor, tensor.square().sum(1), k, num_query=num_query)


def check(x: np.ndarray, k: int, num_query: int) -> None:
    """Against a stable sort of exact values."""
    values = (x.astype(np.float64) ** 2).sum(1) / 2 - x.astype(np.float64) @ x.astype(np.float64).T
    lists = lists_of(x, k, num_query)
    order = np.argsort(values, axis=1, kind="stable")[:, :k]
    assert np.array_equal(lists.indices.numpy(), order)
    assert np.array_equal(lists.values.numpy(), np.take_along_axis(values, order, 1).astype(x.dtype))
    assert np.array_equal(lists.farthest_value.numpy(), values.max(1).astype(x.dtype))
    reached = np.take_along_axis(values, lists.farthest.numpy()[:, None].astype(np.int64), 1)[:, 0]
    assert np.array_equal(reached, values.max(1))


@hypothesis.settings(deadline=None, max_examples=100)
@hypothesis.given(
    st.integers(1, 90),
    st.integers(1, 5),
    st.integers(1, 40),
    st.integers(0, 90),
    st.integers(1, 30),
    st.sampled_from([np.float32, np.float64]),
    st.integers(0, 10**6),
)
def test_equals_a_stable_sort(items: int, dim: int, k: int, num_query: int, levels: int, dtype: Any, seed: int) -> None:
    # Integers, so products are exact and values tie; few levels make rows repeat, many do not.
    rng = np.random.default_rng(seed)
    check(rng.integers(-levels, levels + 1, (items, dim)).astype(dtype), min(k, items), min(num_query, items))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("num_query", [0, 700, 3000])
def test_more_items_than_a_block(num_query: int, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-400, 401, (3000, 4)).astype(dtype)
    check(x, 21, num_query)


@pytest.mark.parametrize("height", [1, 3, 64])
def test_repeated_rows_take_the_way_that_ties_them(height: int, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["pyreid.ops.set_neighbors"]
    rng = np.random.default_rng(0)
    distinct = rng.standard_normal((20, 37)).astype(np.float32)
    x = distinct[rng.integers(0, 20, 150)]
    halves = []
    triangle_strips = module.triangle_strips
    monkeypatch.setattr(module, "triangle_strips", lambda *a: halves.append(a) or triangle_strips(*a))
    tiles = sys.modules["pyreid.ops.distance_tiles"]
    monkeypatch.setattr(tiles, "_TILE_BYTES", {"cpu": height * 4 * 150})
    monkeypatch.setattr(tiles, "_MIN_ROWS", 1)
    lists = lists_of(x, 12, 10)
    assert not halves
    exact = x.astype(np.float64)
    values = (exact**2).sum(1) / 2 - exact @ exact.T
    same = (x[:, None] == x).all(2)
    first = same.argmax(1)
    order = np.argsort(values[:, first], axis=1, kind="stable")[:, :12]  # copies have one value, whatever the product
    assert np.array_equal(lists.indices.numpy(), order)
    lists_of(distinct, 12, 5)
    assert len(halves) == 1


def test_the_products_of_the_queries_are_handed_out() -> None:
    x = torch.arange(30.0).reshape(10, 3)
    out = torch.empty(4, 6)
    set_neighbors(x, x.square().sum(1), 2, num_query=4, query_products=out)
    assert torch.equal(out, x[:4] @ x[4:].T)


def arguments(**changes: Any) -> tuple[Any, ...]:
    given: dict[str, Any] = {
        "products": torch.zeros(2, 3),
        "offset": torch.zeros(3),
        "first": 0,
        "transposed": False,
        "values": torch.full((2, 4), torch.inf),
        "indices": torch.zeros(2, 4, dtype=torch.int32),
        "farthest_value": torch.zeros(2),
        "farthest": torch.zeros(2, dtype=torch.int32),
    }
    return tuple((given | changes).values())


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"products": torch.zeros(3)}, "products must be 2-D"),
        ({"products": torch.zeros(3, 2).t()}, "products must be 2-D with dense rows"),
        ({"products": torch.zeros(2, 3, dtype=torch.int32)}, "values has another dtype|expected float32 or float64"),
        ({"offset": torch.zeros(2)}, "offset must be contiguous, with a row for each of 3 items"),
        ({"offset": None, "transposed": True}, "the transposed form needs offset"),
        ({"transposed": True}, "values must be contiguous, with a row for each of 3 items"),
        ({"values": torch.zeros(2, 4, dtype=torch.float64)}, "values has another dtype"),
        ({"values": torch.zeros(2, 3)}, "lists of different or no length"),
        ({"indices": torch.zeros(2, 4, dtype=torch.int64)}, "indices has another dtype"),
        ({"farthest": torch.zeros(2, dtype=torch.int64)}, "farthest has another dtype"),
        ({"first": 2**31}, "indices must fit 31 bits"),
    ],
)
def test_bad_input(changes: dict[str, Any], match: str) -> None:
    Update(*arguments())
    with pytest.raises(RuntimeError, match=match):
        Update(*arguments(**changes))


def test_schema() -> None:
    torch.library.opcheck(Update.default, arguments(), test_utils="test_schema")


@pytest.mark.parametrize("repeated", [False, True])
def test_one_strip_exists_at_a_time(repeated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).integers(-50, 51, (40, 8)).astype(np.float32)
    if repeated:
        x[30] = x[20]
    strips: list[weakref.ref[torch.Tensor]] = []
    loops = 0

    def watched(make: Any) -> Any:
        def make_and_keep(*arguments: Any, **options: Any) -> Iterator[tuple[Any, ...]]:
            nonlocal loops
            loops += 1
            assert all(strip() is None for strip in strips)
            for *place, products in make(*arguments, **options):
                strips.append(weakref.ref(products))
                yield *place, products
                del products

        return make_and_keep

    for name in ("inner_product_tiles", "triangle_strips"):
        monkeypatch.setattr(module, name, watched(getattr(module, name)))
    check(x, 5, 10)
    assert loops == 2
