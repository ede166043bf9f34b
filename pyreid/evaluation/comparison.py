"""Whether one evaluation is better than another on the same queries: a paired test."""

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
    sign_flip_p_values,
    sum_by_unit,
)
from pyreid.evaluation.result import EvaluationResult

_RULES = ("ap", "no_match", "camera_filter")  # settings that say what a score is


@dataclass(frozen=True, slots=True)
class Difference:
    """A metric of two evaluations.

    Attributes:
        a: of the first.
        b: of the second.
        difference: ``b - a``.
        low: lower end of the confidence interval of the difference.
        high: upper end.
        p_value: two-sided, of the hypothesis that it makes no difference which of the two a query is scored by.
    """

    a: float
    b: float
    difference: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A paired comparison of two evaluations.

    Attributes:
        differences: by name: ``"map"``, ``"minp"``, ``"rank1"``, ...
        level: probability that a confidence interval should cover.
        resamples: number of draws for the intervals, and of random signs for the test.
        seed: of both.
        unit: what was drawn.
        num_units: how many there are.
    """

    differences: dict[str, Difference]
    level: float
    resamples: int
    seed: int
    unit: Unit
    num_units: int

    def __getitem__(self, name: str) -> Difference:
        return self.differences[name]

    def summary(self) -> str:
        """A small table for people, metrics in per cent and differences in points."""
        noun = {"query": "queries", "identity": "identities"}[self.unit]
        rows = [f"b - a over {self.num_units} {noun}, {100 * self.level:g} % confidence, {self.resamples} draws"]
        rows += [
            f"{name:<9} {percent(d.a)} -> {percent(d.b)}: {100 * d.difference:+.2f} "
            f"({100 * d.low:+.2f} to {100 * d.high:+.2f}), p = {d.p_value:.2g}"
            for name, d in self.differences.items()
        ]
        return "\n".join(rows)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain Python values."""
        return asdict(self)


def compare(
    a: EvaluationResult,
    b: EvaluationResult,
    *,
    ranks: Sequence[int] = (1, 5, 10),
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    unit: Unit = "query",
) -> Comparison:
    """Compare two evaluations of the same queries, such as two models, query by query.

    The p-value is that of a paired permutation test: if it made no difference which of the two scores a query, each
    query's difference could as well have the other sign; the p-value is the share of random signs that give a mean
    difference at least as large. The interval of the difference is a paired BCa bootstrap. Neither is corrected for
    the number of metrics or of comparisons.

    Args:
        a: an evaluation.
        b: another, of the same queries in the same order; galleries, features and distances may differ.
        ranks: which rank-k.
        level: probability that a confidence interval should cover.
        resamples: number of draws, at least 100; no p-value is below ``1 / (resamples + 1)``.
        seed: of the draws; the same seed gives the same numbers.
        unit: ``"query"``, or ``"identity"`` to draw all queries of an identity together (queries of one identity
            resemble each other, so that a test over queries finds differences too easily).

    Returns:
        The differences ``b - a`` by the metrics' names: ``compare(a, b)["map"].p_value``.

    Raises:
        TypeError: if ``a`` or ``b`` is no EvaluationResult, or an option not of the right kind.
        ValueError: if the queries differ, if they were scored by other rules (AP, queries without a match, camera
            filter), if an option is out of range, or fewer than two queries or identities are scored.
    """
    level, resamples, seed = check_options(ranks, level, resamples, seed, unit)
    _check_same_queries(a, b)
    values_a, values_b = query_values(a, ranks), query_values(b, ranks)
    gains = np.stack([values_b[name] - values_a[name] for name in values_a], axis=1)
    sums, sizes = sum_by_unit("a", a, gains, unit)
    low, high = bootstrap_intervals(sums, sizes, level=level, resamples=resamples, rng=np.random.default_rng((seed, 0)))
    p_values = sign_flip_p_values(sums, resamples=resamples, rng=np.random.default_rng((seed, 1)))
    differences = {
        name: Difference(
            a=float(values_a[name].mean()),
            b=float(values_b[name].mean()),
            difference=float(gains[:, m].mean()),
            low=float(low[m]),
            high=float(high[m]),
            p_value=float(p_values[m]),
        )
        for m, name in enumerate(values_a)
    }
    return Comparison(differences, level, resamples, seed, unit, len(sums))


def _check_same_queries(a: EvaluationResult, b: EvaluationResult) -> None:
    for name, result in (("a", a), ("b", b)):
        if not isinstance(result, EvaluationResult):
            raise TypeError(f"{name}: expected an EvaluationResult, got {type(result).__name__}")
    if a.num_queries != b.num_queries:
        raise ValueError(f"b: expected the queries of a, {a.num_queries} of them, got {b.num_queries}")
    for what, ours, theirs in (
        ("identities", a.query_ids, b.query_ids),
        ("cameras", a.query_cams, b.query_cams),
    ):
        if ours is not None and theirs is not None and not np.array_equal(ours, theirs):
            other = np.flatnonzero(ours != theirs)
            raise ValueError(
                f"b: expected the queries of a, but {len(other)} {what} differ, the first is that of query "
                f"{other[0]}, {ours[other[0]]} in a and {theirs[other[0]]} in b"
            )
    for rule in _RULES:
        if a.settings.get(rule) != b.settings.get(rule):
            raise ValueError(
                f"b: expected the rules of a, but {rule} is {a.settings.get(rule)!r} in a and "
                f"{b.settings.get(rule)!r} in b"
            )
    other = np.flatnonzero(a.scored != b.scored)
    if len(other):
        raise ValueError(
            f"b: expected the queries of a, but {len(other)} have a match in one gallery only, the first is query "
            f"{other[0]}"
        )
