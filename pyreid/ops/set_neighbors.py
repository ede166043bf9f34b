"""The nearest items of each item of one set, and its farthest one. Internal: re-ranking uses it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pyreid.ops.distance_tiles import inner_product_tiles, triangle_strips
from pyreid.ops.duplicate_rows import duplicate_rows


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
    def empty(cls, items: int, k: int, dtype: torch.dtype) -> SetNeighbors:
        wide = torch.int64 if dtype == torch.float64 else torch.int32
        return cls(
            torch.full((items, k), torch.inf, dtype=dtype),
            torch.zeros((items, k), dtype=torch.int32),
            torch.full((items,), -torch.inf, dtype=dtype),
            torch.zeros(items, dtype=wide),
        )

    def add(
        self, items: slice, values: Tensor, first: int, *, offset: Tensor | None = None, transposed: bool = False
    ) -> None:
        """Fold a strip into the lists of ``items``.

        Args:
            items: the rows of the strip, or with ``transposed`` its columns.
            values: (R, C) values, or inner products with ``offset``.
            first: index of the first of the others: the strip's columns, or with ``transposed`` its rows.
            offset: of the others, half their squared norms: the value is ``offset - product``.
            transposed: see ``items``; needs ``offset``.
        """
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


def set_neighbors(
    x: Tensor, norms: Tensor, k: int, *, num_query: int, query_products: Tensor | None = None
) -> SetNeighbors:
    """The ``k`` nearest of all N rows to each row, itself included, by Euclidean distance.

    Ranked by ``|y|^2 / 2 - x.y`` as :func:`pyreid.evaluate` does, ties in the order of the indices. The first
    ``num_query`` rows are multiplied with all rows, by :func:`query_strips`; of the others each pair is multiplied
    once, unless rows repeat: equal rows must tie.

    Args:
        x: (N, D) contiguous float32 or float64 on the CPU.
        norms: (N,) squared norms of its rows.
        k: from 1 to N.
        num_query: how many of the first rows are queries.
        query_products: (num_query, N - num_query), receives the queries' inner products with the other rows.
    """
    lists = SetNeighbors.empty(len(x), k, x.dtype)
    offset = norms / 2
    repeats = duplicate_rows(x) is not None
    others = slice(num_query, len(x))
    for rows, products in query_strips(x, num_query):
        lists.add(rows, products, 0, offset=offset)
        if not repeats:
            lists.add(others, products[:, num_query:], rows.start, offset=offset[rows], transposed=True)
        if query_products is not None:
            query_products[rows] = products[:, num_query:]
    if repeats:
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
