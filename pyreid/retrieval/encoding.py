"""From neighbor lists to k-reciprocal encodings, the sparse vectors whose Jaccard distance re-ranks. Internal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from pyreid.ops._checks import check_choice
from pyreid.ops.k_reciprocal import SparseRows, by_columns, mean_rows, reciprocal_sets, reciprocal_weights

Compat = Literal["official", "torchreid", "fastreid"]


@dataclass(frozen=True, slots=True)
class Parameters:
    """Of the method; :class:`pyreid.KReciprocal` checks and documents them."""

    k1: int
    k2: int
    lambda_value: float
    compat: Compat


@dataclass(frozen=True, slots=True)
class Encoding:
    """The encodings of all items.

    Attributes:
        rows: of all items, of which the queries are the first.
        gallery: of the gallery's items, by columns.
    """

    rows: SparseRows
    gallery: SparseRows

    def queries(self, rows: slice) -> SparseRows:
        """The encodings of a slice of queries."""
        return self.rows._replace(starts=self.rows.starts[rows.start : rows.stop + 1])


def list_length(k1: int, k2: int, items: int, compat: Compat) -> int:
    """How many neighbors of each item, itself included, are needed: as many as there are if the set is smaller."""
    return min(items, k1 if compat == "fastreid" else max(k1 + 1, k2))


def encode(
    neighbors: Tensor, num_query: int, k1: int, k2: int, distances: Callable[[Tensor, Tensor], Tensor]
) -> Encoding:
    """Encode all items.

    Args:
        neighbors: (N, K) int32; lists shorter than the k's ask for are taken whole, as by the peers' slices.
        num_query: how many of the items are queries.
        k1: neighbors, without the item itself, among which reciprocal ones are looked for.
        k2: neighbors, with the item itself, whose encodings are averaged; 1 averages none.
        distances: gives for ``(starts, columns)`` of sparse rows the distances of the entries, whose exponentials
            are the weights.
    """
    length = neighbors.shape[1]
    half = round(k1 / 2) + 1  # to even, as np.around: 25 gives 12 + 1
    starts, columns = reciprocal_sets(neighbors, min(k1 + 1, length), min(half, length))
    rows = reciprocal_weights(distances(starts, columns), starts, columns)
    if k2 != 1:
        rows = mean_rows(rows, neighbors, min(k2, length))
    return Encoding(rows, by_columns(rows, num_query))


def check_parameters(k1: object, k2: object, lambda_value: object, compat: object = "official") -> None:
    """Raise TypeError or ValueError unless these can be parameters of k-reciprocal re-ranking."""
    for name, k in (("k1", k1), ("k2", k2)):
        if isinstance(k, bool) or not isinstance(k, int | np.integer):
            raise TypeError(f"{name}: expected an integer, got {type(k).__name__}")
        if k < 1:
            raise ValueError(f"{name}: expected at least 1, got {k}")
    if isinstance(lambda_value, bool) or not isinstance(lambda_value, int | float | np.integer | np.floating):
        raise TypeError(f"lambda_value: expected a number, got {type(lambda_value).__name__}")
    if not 0 <= lambda_value <= 1:
        raise ValueError(f"lambda_value: expected a number from 0 to 1, got {lambda_value}")
    check_choice("compat", compat, Compat)
