"""From the ranks of the positives to AP, INP and CMC, in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

AveragePrecision = Literal["step", "trapezoid"]
NoMatch = Literal["skip", "zero"]

_SLOTS_AT_A_TIME = 1 << 18  # pairs of a query and an item of its identity, of about 50 bytes each while they are scored


@dataclass(frozen=True, slots=True)
class QueryScores:
    """Scores of each query, (Q,) arrays; 0 for a query without a match.

    Attributes:
        first_match_rank: int64, 0-based rank of the first positive, -1 for a query without a match.
        step: AP as the mean over the positives of the precision at the positive.
        trapezoid: AP with the mean of that precision and the one at the rank before.
        inverse_negative_penalty: number of positives divided by the 1-based rank of the last.
    """

    first_match_rank: np.ndarray
    step: np.ndarray
    trapezoid: np.ndarray
    inverse_negative_penalty: np.ndarray

    @property
    def matched(self) -> np.ndarray:
        """(Q,) bool: the queries that have a match."""
        return self.first_match_rank >= 0


def query_scores(ranks: np.ndarray, starts: np.ndarray) -> QueryScores:
    """Score each query by the 0-based ranks of its positives.

    The i-th positive (from 0) at rank r has precision (i + 1) / (r + 1); one rank before, the precision is i / r, and 1
    before the first rank. The step AP averages the former (torchreid, fast-reid, the VeRi starter code), the trapezoid
    AP the mean of both (the official Matlab code of Market-1501). INP is that of AGW.

    Beside the ranks memory holds some 50 bytes for each slot of a block of queries: 13 MiB, or those of one query.

    Args:
        ranks: (slots,) for each query its ranks, ascending, then -1.
        starts: (Q + 1,) where each query's slots begin.
    """
    num_queries = len(starts) - 1
    scores = QueryScores(np.full(num_queries, -1, dtype=np.int64), *(np.zeros(num_queries) for _ in range(3)))
    begin = 0
    while begin < num_queries:
        fits = int(np.searchsorted(starts, starts[begin] + _SLOTS_AT_A_TIME, side="right")) - 1
        rows = slice(begin, min(max(fits, begin + 1), num_queries))
        _score(ranks[starts[rows.start] : starts[rows.stop]], starts[rows.start : rows.stop + 1], scores, rows)
        begin = rows.stop
    return scores


def _score(ranks: np.ndarray, starts: np.ndarray, scores: QueryScores, rows: slice) -> None:
    """Enter the scores of the queries ``rows``, from their slots alone; of each, terms are added in their order."""
    num_queries = len(starts) - 1
    is_positive = ranks >= 0
    query = np.repeat(np.arange(num_queries), np.diff(starts))[is_positive]
    rank = ranks[is_positive]
    count = np.bincount(query, minlength=num_queries)
    first = np.cumsum(count) - count
    hits_before = np.arange(len(rank)) - first[query]

    precision = (hits_before + 1) / (rank + 1)
    precision_before = np.where(rank > 0, hits_before / np.maximum(rank, 1), 1.0)
    divisor = np.maximum(count, 1)

    def per_query(weights: np.ndarray) -> np.ndarray:
        return np.bincount(query, weights=weights, minlength=num_queries) / divisor

    scores.step[rows] = per_query(precision)
    scores.trapezoid[rows] = per_query((precision + precision_before) / 2)
    matched = count > 0
    scores.first_match_rank[rows][matched] = rank[first[matched]]
    last = (first + count - 1)[matched]
    scores.inverse_negative_penalty[rows][matched] = count[matched] / (rank[last] + 1)


def cumulative_match(first_match_rank: np.ndarray, max_rank: int, num_scored: int) -> np.ndarray:
    """(max_rank,) fraction of the scored queries whose first positive is among the first 1, 2, ... images."""
    within = first_match_rank[(first_match_rank >= 0) & (first_match_rank < max_rank)]
    hits = np.bincount(within, minlength=max_rank).cumsum()
    return hits / num_scored if num_scored else np.full(max_rank, np.nan)
