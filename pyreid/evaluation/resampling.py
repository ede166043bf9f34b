"""Resampling the queries of an evaluation: what confidence intervals and paired tests share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import Literal

import numpy as np

from pyreid.evaluation.inputs import as_count
from pyreid.evaluation.result import EvaluationResult
from pyreid.ops._checks import check_choice

Unit = Literal["query", "identity"]

_NORMAL = NormalDist()
_ROUNDING = 1e-12  # scores are between 0 and 1, and means closer than this count as equal
_NUMBERS_AT_A_TIME = 2**20  # drawn, of all resamples together


def check_options(ranks: Sequence[int], level: float, resamples: int, seed: int, unit: str) -> tuple[float, int, int]:
    """Reject options that no interval can be made of.

    Returns:
        ``level``, ``resamples`` and ``seed`` as plain Python numbers.

    Raises:
        TypeError: if a number is not of the right kind.
        ValueError: if it is out of range, or the unit unknown.
    """
    for k in ranks:
        as_count("ranks", k, least=1)
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number between 0 and 1, such as 0.95, got {level}")
    check_choice("unit", unit, Unit)
    return float(level), as_count("resamples", resamples, least=100), as_count("seed", seed, least=0)


def query_values(result: EvaluationResult, ranks: Sequence[int]) -> dict[str, np.ndarray]:
    """For each metric its value for every scored query, float64; the metric is their mean."""
    scored = result.scored
    first = result.first_match_rank[scored]
    values = {"map": result.average_precision[scored], "minp": result.inverse_negative_penalty[scored]}
    return values | {f"rank{k}": ((first >= 0) & (first < k)).astype(np.float64) for k in ranks}


def sum_by_unit(name: str, result: EvaluationResult, values: np.ndarray, unit: Unit) -> tuple[np.ndarray, np.ndarray]:
    """Add up the values of the scored queries by what is drawn.

    Args:
        name: of the result, for messages.
        result: whose scored queries these are.
        values: (S, M).
        unit: what is drawn.

    Returns:
        ``(sums, sizes)``: (U, M) and (U,) float64.

    Raises:
        ValueError: if there are fewer than two units, or identities are asked for and not known.
    """
    if unit == "identity":
        if result.query_ids is None:
            raise ValueError(f"unit: {name} does not know the identities of its queries; take unit='query'")
        _, group = np.unique(result.query_ids[result.scored], return_inverse=True)
        sizes = np.bincount(group).astype(np.float64)
        columns = [np.bincount(group, weights=column) for column in values.T]
        sums = np.stack(columns, axis=1) if len(group) else values
    else:
        sums, sizes = values, np.ones(len(values))
    if len(sizes) < 2:
        raise ValueError(f"{name}: expected at least 2 scored {_plural(unit)}, got {len(sizes)}")
    return sums, sizes


def _plural(unit: Unit) -> str:
    return "queries" if unit == "query" else "identities"


def bootstrap_intervals(
    sums: np.ndarray, sizes: np.ndarray, *, level: float, resamples: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """BCa bootstrap intervals of ``sums.sum(0) / sizes.sum()``.

    Units are drawn with replacement, as many as there are. The bias-corrected and accelerated interval (Efron 1987)
    takes the quantiles of the drawn means where they make up for skewness, which is large for scores near 0 or 1; it
    stays within the range of the scores.

    Args:
        sums: (U, M) of each unit.
        sizes: (U,) number of queries of each unit.
        level: probability that an interval should cover.
        resamples: number of draws.
        rng: the source of randomness.

    Returns:
        ``(low, high)``, two (M,) float64.
    """
    num_units = len(sums)

    def means(draws: np.ndarray) -> np.ndarray:
        return sums[draws].sum(axis=1) / sizes[draws].sum(axis=1)[:, None]

    rows = max(1, _NUMBERS_AT_A_TIME // num_units)
    drawn = np.concatenate([means(rng.integers(0, num_units, (count, num_units))) for count in _split(resamples, rows)])
    estimate = means(np.arange(num_units)[None])[0]
    # Leaving out one unit at a time. A unit of all queries is impossible: there are two or more, none is empty.
    deviations = -(sums.sum(0) - sums) / (sizes.sum() - sizes)[:, None]
    deviations -= deviations.mean(0)
    low, high = np.empty_like(estimate), np.empty_like(estimate)
    for m in range(len(estimate)):
        # Draws of the same units in another order are equal but for rounding.
        above_estimate = drawn[:, m] - estimate[m]
        below = (above_estimate < -_ROUNDING).mean() + (np.abs(above_estimate) <= _ROUNDING).mean() / 2
        bias = _NORMAL.inv_cdf(min(max(below, 0.5 / resamples), 1 - 0.5 / resamples))
        spread = float((deviations[:, m] ** 2).sum())
        skew = float((deviations[:, m] ** 3).sum()) / (6 * spread**1.5) if spread**1.5 > 0 else 0.0
        ends = [_corrected(tail, bias, skew) for tail in ((1 - level) / 2, (1 + level) / 2)]
        low[m], high[m] = np.quantile(drawn[:, m], ends)
    return low, high


def _corrected(tail: float, bias: float, skew: float) -> float:
    shifted = bias + _NORMAL.inv_cdf(tail)
    room = 1 - skew * shifted
    if room <= 0:  # so skewed that the correction has no answer: the end of what was drawn
        return 0.0 if shifted < 0 else 1.0
    return min(max(_NORMAL.cdf(bias + shifted / room), 0.0), 1.0)


def sign_flip_p_values(sums: np.ndarray, *, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Two-sided p-values of the hypothesis that each unit's difference might as well have the other sign.

    The share of random choices of signs, the one observed among them, that give a sum at least as far from 0.

    Args:
        sums: (U, M) differences of each unit.
        resamples: number of random choices.
        rng: the source of randomness.

    Returns:
        (M,) float64 between ``1 / (resamples + 1)`` and 1.
    """
    num_units, num_metrics = sums.shape
    total = sums.sum(axis=0)
    reached = np.abs(total) - _ROUNDING * np.abs(sums).sum(axis=0)
    extreme = np.ones(num_metrics)
    for count in _split(resamples, max(1, _NUMBERS_AT_A_TIME // num_units)):
        flipped = rng.integers(0, 2, (count, num_units), dtype=np.int8).astype(np.float64)
        # einsum, not a matrix product, which may add in another order with another number of threads
        flipped_sums = total - 2 * np.einsum("bu,um->bm", flipped, sums)
        extreme += (np.abs(flipped_sums) >= reached).sum(axis=0)
    return extreme / (resamples + 1)


def _split(total: int, most: int) -> Iterator[int]:
    for start in range(0, total, most):
        yield min(most, total - start)


def percent(value: float) -> str:
    """For tables."""
    return "-" if math.isnan(value) else f"{100 * value:.2f} %"
