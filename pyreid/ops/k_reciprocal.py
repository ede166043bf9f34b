"""The stages of k-reciprocal re-ranking on sparse matrices. Internal: :mod:`pyreid.retrieval` puts them together.

Row i of a matrix belongs to item i of the joint set of query and gallery. Results do not depend on the number of
threads, and are on the device of the arguments.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyreid.ops import k_reciprocal_cuda


class SparseRows(NamedTuple):
    """A sparse matrix by rows.

    Attributes:
        starts: (N + 1,) int64; row i has the entries ``starts[i]`` to ``starts[i + 1] - 1``.
        columns: (entries,) int32, ascending in each row.
        weights: (entries,) float32 or float64.
    """

    starts: Tensor
    columns: Tensor
    weights: Tensor


def reciprocal_sets(neighbors: Tensor, forward: int, half: int) -> tuple[Tensor, Tensor]:
    """The expanded k-reciprocal set of each item.

    R(i, k) holds those of the first k neighbors of i that have i among their own first k. To R(i, forward) is added
    every R(c, half) of a c in it that has more than two thirds of its items in R(i, forward).

    Args:
        neighbors: (N, K) int32, the nearest items of each item.
        forward: from 1 to K.
        half: from 1 to K.

    Returns:
        ``(starts, columns)`` as in :class:`SparseRows`.
    """
    if neighbors.is_cuda:
        return k_reciprocal_cuda.reciprocal_sets(neighbors, forward, half)
    starts, columns = torch.ops.pyreid.reciprocal_sets(neighbors, forward, half)
    return starts, columns


def pair_distances(x: Tensor, starts: Tensor, columns: Tensor) -> Tensor:
    """(entries,) squared Euclidean distances between the rows i and j of (N, D) ``x`` for all entries (i, j).

    Summed from the differences, so near duplicates keep their digits and equal rows are at distance 0.
    """
    distances: Tensor = torch.ops.pyreid.pair_distances(x, starts, columns)
    return distances


def reciprocal_weights(distances: Tensor, starts: Tensor, columns: Tensor) -> SparseRows:
    """The entries' distances d into exp(-d), divided by the sum of their row."""
    return SparseRows(starts, columns, torch.ops.pyreid.reciprocal_weights(distances, starts, columns))


def mean_rows(rows: SparseRows, neighbors: Tensor, k2: int) -> SparseRows:
    """Local query expansion: row i of the result is the mean of the rows of the first ``k2`` neighbors of i."""
    if neighbors.is_cuda:
        return SparseRows(*k_reciprocal_cuda.mean_rows(*rows, neighbors, k2))
    return SparseRows(*torch.ops.pyreid.mean_rows(*rows, neighbors, k2))


def by_columns(rows: SparseRows, first: int) -> SparseRows:
    """The rows from ``first`` on, by columns: an inverted index; the rows' numbers are counted from ``first``."""
    if rows.starts.is_cuda:
        return SparseRows(*k_reciprocal_cuda.by_columns(*rows, first))
    return SparseRows(*torch.ops.pyreid.by_columns(*rows, first))


def re_rank_strip(
    values: Tensor,
    queries: SparseRows,
    gallery: SparseRows,
    *,
    lambda_value: float,
    offset: Tensor | None = None,
    query_norms: Tensor | None = None,
    limits: Tensor | None = None,
    divisors: Tensor | None = None,
    squared: bool = False,
    clip: bool = False,
) -> None:
    """Turn the (R, G) distances of a strip of queries into re-ranked ones, in place.

    The result is ``(1 - lambda_value) (1 - m / (2 - m)) + lambda_value d``, where m is the sum over the columns of the
    smaller weight of query and gallery item. The distance d is ``values``, or with ``offset`` and its companions it is
    computed from inner products: ``query_norms + 2 (offset - values)``, clamped between 0 and ``limits``, divided by
    ``divisors`` (by 1 where it is 0) and, if ``squared``, multiplied by itself.

    Args:
        values: (R, G) float32 or float64, rows may lie apart.
        queries: the R rows of the queries; ``starts`` is a part of those of the whole matrix.
        gallery: the gallery's rows by columns.
        lambda_value: weight of the distance.
        offset: (G,) half the squared norms of the gallery.
        query_norms: (R,) squared norms.
        limits: (R,) the largest squared distance of each query.
        divisors: (R,).
        squared: see above.
        clip: make Jaccard distances below 0, which rounding can make, 0.
    """
    torch.ops.pyreid.re_rank_strip_(
        values, offset, query_norms, limits, divisors, squared, *queries, *gallery, lambda_value, clip
    )
