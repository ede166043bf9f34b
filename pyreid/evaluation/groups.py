"""Metrics of an evaluation by camera, by identity or by any label of the queries."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyreid.evaluation.inputs import as_count, as_integers
from pyreid.evaluation.resampling import percent
from pyreid.evaluation.result import EvaluationResult


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Breakdown:
    """Metrics of groups of queries; the arrays are read-only.

    Attributes:
        by: ``"camera"``, ``"identity"`` or ``"label"``.
        labels: (K,) int64, ascending.
        num_queries: (K,) int64, all queries of a group.
        num_scored: (K,) int64, those that its means are taken over.
        map: (K,) float64 mAP; NaN for a group without a scored query, as all means.
        minp: (K,) float64 mINP.
        first_match_ranks: for each group the ranks of the first match of its scored queries, -1 for none.
    """

    by: str
    labels: np.ndarray
    num_queries: np.ndarray
    num_scored: np.ndarray
    map: np.ndarray
    minp: np.ndarray
    first_match_ranks: tuple[np.ndarray, ...]

    def __post_init__(self) -> None:
        for array in (self.labels, self.num_queries, self.num_scored, self.map, self.minp, *self.first_match_ranks):
            array.flags.writeable = False

    def __repr__(self) -> str:
        return f"Breakdown(by={self.by!r}, groups={len(self.labels)})"

    def rank(self, k: int) -> np.ndarray:
        """(K,) float64: fraction of each group's scored queries with a positive among the first ``k`` images."""
        as_count("k", k, least=1)
        return np.array(
            [
                ((first >= 0) & (first < k)).sum() / len(first) if len(first) else math.nan
                for first in self.first_match_ranks
            ]
        )

    def summary(self, *, limit: int = 20) -> str:
        """A table for people, the lowest mAP first, metrics in per cent."""
        header = f"{self.by:>10} {'queries':>8} {'mAP':>9} {'mINP':>9} {'rank-1':>9} {'rank-5':>9}"
        order = np.argsort(self.map, kind="stable")  # NaN last
        columns = (self.map, self.minp, self.rank(1), self.rank(5))
        rows = [
            f"{self.labels[i]:>10} {self.num_queries[i]:>8} "
            + " ".join(f"{percent(float(column[i])):>9}" for column in columns)
            for i in order[:limit]
        ]
        left = len(order) - limit
        return "\n".join([header, *rows, *([f"... and {left} more"] if left > 0 else [])])

    def to_dict(self) -> dict[str, Any]:
        """A list of groups as plain Python values; NaN becomes None."""
        names = ("num_queries", "num_scored", "map", "minp", "rank1", "rank5", "rank10")
        columns = (self.num_queries, self.num_scored, self.map, self.minp, *(self.rank(k) for k in (1, 5, 10)))
        groups = [
            {"label": label} | {name: None if value != value else value for name, value in zip(names, row, strict=True)}
            for label, row in zip(self.labels.tolist(), zip(*(c.tolist() for c in columns), strict=True), strict=True)
        ]
        return {"by": self.by, "groups": groups}


def breakdown(result: EvaluationResult, by: Any = "camera") -> Breakdown:
    """Metrics of the queries of each camera, of each identity or of each value of a label.

    Args:
        result: of :func:`pyreid.evaluate`.
        by: ``"camera"``, ``"identity"``, or (Q,) integers, a label for each query, such as its viewpoint.

    Returns:
        Metrics of each group that occurs. Their means over the groups, weighted by ``num_scored``, are those of
        ``result``.

    Raises:
        TypeError: if labels are not integers.
        ValueError: if ``by`` is another word, labels are of another length, or the result does not know the cameras
            or identities.
    """
    if not isinstance(by, str):
        name, labels = "label", as_integers("by", by, result.num_queries, "query")
    elif by in ("camera", "identity"):
        known = result.query_cams if by == "camera" else result.query_ids
        if known is None:
            raise ValueError(f"by: result does not know the {by} of its queries; pass one label for each query")
        name, labels = by, known
    else:
        raise ValueError(f"by: expected 'camera', 'identity' or one integer for each query, got {by!r}")
    values, group = np.unique(labels, return_inverse=True)
    scored = result.scored
    num_scored = np.bincount(group[scored], minlength=len(values))

    def means(scores: np.ndarray) -> np.ndarray:
        sums = np.bincount(group[scored], weights=scores[scored], minlength=len(values))
        return np.where(num_scored > 0, sums / np.maximum(num_scored, 1), np.nan)

    order = np.argsort(group[scored], kind="stable")
    first = result.first_match_rank[scored][order]
    return Breakdown(
        by=name,
        labels=values,
        num_queries=np.bincount(group, minlength=len(values)),
        num_scored=num_scored,
        map=means(result.average_precision),
        minp=means(result.inverse_negative_penalty),
        first_match_ranks=tuple(np.split(first, np.cumsum(num_scored)[:-1])),
    )
