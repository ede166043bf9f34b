"""The nearest items of each item of one set, and its farthest one. Internal: re-ranking uses it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pyreid.ops.distance_tiles import inner_product_tiles, triangle_strips
from pyreid.ops.duplicate_rows import duplicate_rows

_DIFFERENCES_AT_A_TIME = 2**24


@dataclass(frozen=True, slots=True)
class SetNeighbors:
    """Lists for N items that fill up strip by strip, in the order of the others' indices.

    Attributes:
        values: (N, k) what the neighbors are ranked by, ascending; infinite where there is none yet.
        indices: (N, k) int32, in the order (value, index).
        farthest_value: (N,) the largest value.
        farthest: (N,) int32, or int64 for float64: the first item that has it.
    """

    values: Tensor
    indices: Tensor
    farthest_value: Tensor
    farthest: Tensor

    @classmethod
    def empty(cls, items: int, k: int, dtype: torch.dtype, device: torch.device | str | None = None) -> SetNeighbors:
        wide = torch.int64 if dtype == torch.float64 else torch.int32
        return cls(
            torch.full((items, k), torch.inf, dtype=dtype, device=device),
            torch.zeros((items, k), dtype=torch.int32, device=device),
            torch.full((items,), -torch.inf, dtype=dtype, device=device),
            torch.zeros(items, dtype=wide, device=device),
        )

    def add(
        self, items: slice, values: Tensor, first: int, *, offset: Tensor | None = None, transposed: bool = False
    ) -> None:
        """Fold a strip into the lists of ``items``. On CUDA a strip holds the values of all the others, by rows.

        Args:
            items: the rows of the strip, or with ``transposed`` its columns.
            values: (R, C) values, or inner products with ``offset``.
            first: index of the first of the others: the strip's columns, or with ``transposed`` its rows.
            offset: of the others, half their squared norms: the value is ``offset - product``.
            transposed: see ``items``; needs ``offset``.
        """
        if values.is_cuda:
            assert first == 0
            assert not transposed
            self._set(items, values, offset)
            return
        torch.ops.pyreid.set_neighbors_(
            values,
            offset,
            first,
            transposed,
            self.values[items],
            self.indices[items],
            self.farthest_value[items],
            self.farthest[items],
        )

    def _set(self, items: slice, values: Tensor, offset: Tensor | None) -> None:
        indices = smallest_in_rows(values, self.indices.shape[1], offset)
        self.indices[items] = indices
        found = values.gather(1, indices)
        self.values[items] = found if offset is None else offset[indices] - found
        # by rows that take a part of the strip's memory
        height = max(1, _DIFFERENCES_AT_A_TIME // max(1, values.shape[1]))
        for start in range(0, len(values), height):
            block = values[start : start + height]
            rows = slice(items.start + start, items.start + start + len(block))
            farthest = (block if offset is None else offset - block).max(dim=1)
            self.farthest_value[rows], self.farthest[rows] = farthest.values, farthest.indices.to(self.farthest.dtype)


def smallest_in_rows(values: Tensor, k: int, offset: Tensor | None = None) -> Tensor:
    """(R, k) int64 columns of the smallest of (R, C) ``values``, or of ``offset - values``, in each row.

    They are in the order of (value, column).
    """
    words = values.element_size() // 4  # of 64 bits for a neighbor, see csrc/nearest_neighbors.h
    kept = torch.empty((len(values), k * words), dtype=torch.int64, device=values.device)
    torch.ops.pyreid.keep_nearest(kept, values, offset, None, 0)
    return kept & 0xFFFFFFFF if words == 1 else kept[:, 1::2]


def set_neighbors(
    x: Tensor, norms: Tensor, k: int, *, num_query: int, query_products: Tensor | None = None
) -> SetNeighbors:
    """The ``k`` nearest of all N rows to each row, itself included, by Euclidean distance.

    Ranked by ``|y|^2 / 2 - x.y`` as :func:`pyreid.evaluate` does, ties in the order of the indices. The first
    ``num_query`` rows are multiplied with all rows, by :func:`query_strips`; of the others each pair is multiplied
    once, unless rows repeat, for equal rows must tie, or ``x`` is on CUDA, where a product costs less than to search
    columns.

    Args:
        x: (N, D) contiguous float32 or float64.
        norms: (N,) squared norms of its rows.
        k: from 1 to N.
        num_query: how many of the first rows are queries.
        query_products: (num_query, N - num_query), receives the queries' inner products with the other rows.
    """
    lists = SetNeighbors.empty(len(x), k, x.dtype, x.device)
    offset = norms / 2
    in_full = x.is_cuda or duplicate_rows(x) is not None
    others = slice(num_query, len(x))
    for rows, products in query_strips(x, num_query):
        lists.add(rows, products, 0, offset=offset)
        if not in_full:
            lists.add(others, products[:, num_query:], rows.start, offset=offset[rows], transposed=True)
        if query_products is not None:
            query_products[rows] = products[:, num_query:]
        del products  # the strip's memory, before that of the next loop is allocated
    if in_full:
        for rows, _, products in inner_product_tiles(x[num_query:], x, device=x.device, dtype=x.dtype):
            lists.add(slice(rows.start + num_query, rows.stop + num_query), products, 0, offset=offset)
        return lists
    for rows, products in triangle_strips(x, num_query):
        height = rows.stop - rows.start
        lists.add(rows, products, rows.start, offset=offset[rows.start :])
        later = slice(rows.stop, len(x))
        lists.add(later, products[:, height:], rows.start, offset=offset[rows], transposed=True)
    return lists


def query_strips(x: Tensor, num_query: int) -> Iterator[tuple[slice, Tensor]]:
    """Strips of the inner products of the first ``num_query`` rows with all rows: bit for bit the same at each call."""
    for rows, _, products in inner_product_tiles(x[:num_query], x, device=x.device, dtype=x.dtype):
        yield rows, products
