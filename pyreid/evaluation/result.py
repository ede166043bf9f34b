"""The result of an evaluation."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pyreid._files import write_json

_SUMMARY_RANKS = (1, 5, 10, 20)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class EvaluationResult:
    """Metrics of an evaluation as fractions between 0 and 1, and what they were computed from.

    Attributes:
        map: mean average precision, by the definition that was asked for.
        cmc: (max_rank,) float64; ``cmc[k - 1]`` is the fraction of queries with a positive among the first k images.
        minp: mean inverse negative penalty (AGW).
        map_step: mAP by the definition of torchreid, fast-reid and the VeRi starter code.
        map_trapezoid: mAP by the definition of the official Matlab code of Market-1501.
        average_precision: (Q,) float64 AP of each query by the definition that was asked for. A query without a match
            has NaN with ``no_match="skip"`` and 0 with ``"zero"``.
        inverse_negative_penalty: (Q,) float64, likewise.
        first_match_rank: (Q,) int64, 0-based rank of the first positive, -1 for a query without a match.
        num_queries: all queries.
        num_skipped: queries without a match: left out of all means with ``no_match="skip"``, counted as 0 with
            ``"zero"``.
        settings: the options of the evaluation and the size of the gallery.

    The means are NaN if no query is left to score.
    """

    map: float
    cmc: np.ndarray
    minp: float
    map_step: float
    map_trapezoid: float
    average_precision: np.ndarray
    inverse_negative_penalty: np.ndarray
    first_match_rank: np.ndarray
    num_queries: int
    num_skipped: int
    settings: dict[str, Any]

    def __repr__(self) -> str:
        return (
            f"EvaluationResult(map={self.map:.4f}, rank1={self.rank(1):.4f}, minp={self.minp:.4f}, "
            f"num_queries={self.num_queries}, num_skipped={self.num_skipped})"
        )

    def rank(self, k: int) -> float:
        """Fraction of queries with a positive among the first ``k`` images; k counts from 1 and may pass max_rank."""
        if k < 1:
            raise ValueError(f"k: expected at least 1, got {k}")
        first = self.first_match_rank
        scored = len(first) if self.settings["no_match"] == "zero" else int((first >= 0).sum())
        return int(((first >= 0) & (first < k)).sum()) / scored if scored else math.nan

    def summary(self) -> str:
        """A small table for people, metrics in per cent."""
        unmatched = "counted as 0" if self.settings["no_match"] == "zero" else "skipped"
        junk = f" ({self.settings['num_junk']} junk images removed)" if self.settings["num_junk"] else ""
        reranked = ", re-ranked" if "rerank" in self.settings else ""
        rows = [
            ("queries", f"{self.num_queries} ({self.num_skipped} without a match, {unmatched})"),
            ("gallery", f"{self.settings['num_gallery']}{junk}"),
            ("metric", f"{self.settings['metric']}, {self.settings['ap']} AP{reranked}"),
            ("mAP", f"{100 * self.map:.2f} %"),
            ("mINP", f"{100 * self.minp:.2f} %"),
            *((f"rank-{k}", f"{100 * self.rank(k):.2f} %") for k in _SUMMARY_RANKS),
        ]
        return "\n".join(f"{name:<9} {value}" for name, value in rows)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain Python values; NaN becomes None, which JSON can hold."""
        names = ("map", "minp", "map_step", "map_trapezoid", "num_queries", "num_skipped")
        arrays = ("cmc", "average_precision", "inverse_negative_penalty", "first_match_rank")
        plain: dict[str, Any] = {name: _without_nan(getattr(self, name)) for name in names}
        plain |= {name: [_without_nan(value) for value in getattr(self, name).tolist()] for name in arrays}
        return plain | {"settings": dict(self.settings)}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write :meth:`to_dict` as JSON. The file appears whole or not at all.

        Raises:
            OSError: if the folder cannot be made or written.
        """
        write_json(Path(path), self.to_dict())


def _without_nan(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
