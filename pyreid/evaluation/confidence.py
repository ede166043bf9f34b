"""How far the metrics of an evaluation would move with other queries: bootstrap confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pyreid.evaluation.resampling import (
    Unit,
    bootstrap_intervals,
    check_options,
    percent,
    query_values,
    sum_by_unit,
)
from pyreid.evaluation.result import EvaluationResult


@dataclass(frozen=True, slots=True)
class Interval:
    """A metric and where it may lie.

    Attributes:
        value: of the evaluation.
        low: lower end of the interval.
        high: upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ConfidenceIntervals:
    """Confidence intervals of the metrics of an evaluation.

    Attributes:
        intervals: by name: ``"map"``, ``"minp"``, ``"rank1"``, ...
        level: probability that an interval should cover.
        resamples: number of draws.
        seed: of the draws.
        unit: what was drawn.
        num_units: how many there are.
    """

    intervals: dict[str, Interval]
    level: float
    resamples: int
    seed: int
    unit: Unit
    num_units: int

    def __getitem__(self, name: str) -> Interval:
        return self.intervals[name]

    def summary(self) -> str:
        """A small table for people, metrics in per cent."""
        noun = {"query": "queries", "identity": "identities"}[self.unit]
        rows = [f"{100 * self.level:g} % confidence, {self.resamples} draws of {self.num_units} {noun}"]
        rows += [
            f"{name:<9} {percent(i.value)} ({percent(i.low)} to {percent(i.high)})"
            for name, i in self.intervals.items()
        ]
        return "\n".join(rows)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain Python values."""
        return asdict(self)


def confidence_intervals(
    result: EvaluationResult,
    *,
    ranks: Sequence[int] = (1, 5, 10),
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    unit: Unit = "query",
) -> ConfidenceIntervals:
    """Bootstrap confidence intervals of mAP, mINP and rank-k over the queries.

    The scored queries are drawn anew with replacement, and the intervals are the bias-corrected and accelerated (BCa)
    ones of the means. The gallery stays as it is. Queries of one identity resemble each other, so intervals over
    queries are too narrow as a statement about other people or vehicles; ``unit="identity"`` draws whole identities.

    Args:
        result: of :func:`pyreid.evaluate`.
        ranks: which rank-k.
        level: probability that an interval should cover.
        resamples: number of draws, at least 100.
        seed: of the draws; the same seed gives the same intervals.
        unit: ``"query"`` or ``"identity"``, what is drawn.

    Returns:
        The intervals by the metrics' names: ``confidence_intervals(result)["rank1"].low``.

    Raises:
        TypeError: if an option is not of the right kind.
        ValueError: if it is out of range, or fewer than two queries or identities are scored.
    """
    level, resamples, seed = check_options(ranks, level, resamples, seed, unit)
    values = query_values(result, ranks)
    sums, sizes = sum_by_unit("result", result, np.stack(list(values.values()), axis=1), unit)
    low, high = bootstrap_intervals(sums, sizes, level=level, resamples=resamples, rng=np.random.default_rng((seed, 0)))
    intervals = {
        name: Interval(float(column.mean()), float(low[m]), float(high[m]))
        for m, (name, column) in enumerate(values.items())
    }
    return ConfidenceIntervals(intervals, level, resamples, seed, unit, len(sums))
