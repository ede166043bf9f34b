"""Evaluation as the definitions say it, one query at a time: a stable sort of all distances and plain loops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Expected:
    average_precision: list[float]
    trapezoid: list[float]
    inverse_negative_penalty: list[float]
    first_match_rank: list[int]
    ranks: list[list[int]]

    def mean(self, values: Sequence[float], no_match: str) -> float:
        scored = [v for v, first in zip(values, self.first_match_rank, strict=True) if no_match == "zero" or first >= 0]
        return math.fsum(scored) / len(scored) if scored else math.nan

    def cmc(self, max_rank: int, no_match: str) -> list[float]:
        return [
            self.mean([float(0 <= first <= k) for first in self.first_match_rank], no_match) for k in range(max_rank)
        ]


def brute_force(
    distances: np.ndarray,
    q_ids: np.ndarray,
    g_ids: np.ndarray,
    q_cams: np.ndarray | None,
    g_cams: np.ndarray | None,
    junk_id: int | None = -1,
) -> Expected:
    expected = Expected([], [], [], [], [])
    for q in range(len(distances)):
        hits = []
        for g in np.argsort(distances[q], kind="stable"):
            if junk_id is not None and g_ids[g] == junk_id:
                continue
            if q_cams is not None and g_cams is not None and g_ids[g] == q_ids[q] and g_cams[g] == q_cams[q]:
                continue
            hits.append(bool(g_ids[g] == q_ids[q]))
        positives = sum(hits)
        step = trapezoid = found = 0.0
        precision_before = 1.0
        for j, hit in enumerate(hits):
            found += hit
            precision = found / (j + 1)
            if hit:
                step += precision / positives
                trapezoid += (precision_before + precision) / 2 / positives
            precision_before = precision
        ranks = [j for j, hit in enumerate(hits) if hit]
        expected.average_precision.append(step)
        expected.trapezoid.append(trapezoid)
        expected.inverse_negative_penalty.append(positives / (ranks[-1] + 1) if ranks else 0.0)
        expected.first_match_rank.append(ranks[0] if ranks else -1)
        expected.ranks.append(ranks)
    return expected


def exact_distances(query: np.ndarray, gallery: np.ndarray, metric: str) -> np.ndarray:
    """Distances of small integers: exact, or for cosine such that equal distances are equal numbers."""
    products = query.astype(np.float64) @ gallery.astype(np.float64).T
    norms = (gallery.astype(np.float64) ** 2).sum(1)
    if metric == "cosine":
        return np.where(norms > 0, -products / np.sqrt(np.maximum(norms, 1)), 0.0)
    return norms / 2 - products
