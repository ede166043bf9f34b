"""Protocols that draw images at random, over and over: results of each draw, their mean and standard deviation."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pyreid._files import write_json
from pyreid.evaluation.resampling import percent


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class RepeatedResult:
    """Metrics of a protocol that is repeated with other random images.

    Attributes:
        maps: (R,) float64 mAP of each repeat.
        cmcs: (R, max_rank) float64 CMC of each repeat.
        num_queries: (R,) int64, the queries of each repeat that are scored.
        seed: of the draws.
        settings: the options of the evaluation.

    Standard deviations are those of a sample, with R - 1 in the denominator; NaN for one repeat. The arrays are
    read-only.
    """

    maps: np.ndarray
    cmcs: np.ndarray
    num_queries: np.ndarray
    seed: int
    settings: dict[str, Any]

    def __post_init__(self) -> None:
        for array in (self.maps, self.cmcs, self.num_queries):
            array.flags.writeable = False

    def __repr__(self) -> str:
        return f"RepeatedResult(map={self.map:.4f}, rank1={self.rank(1):.4f}, repeats={len(self.maps)})"

    @property
    def map(self) -> float:
        """Mean of the mAP over the repeats."""
        return float(self.maps.mean())

    @property
    def map_std(self) -> float:
        """Standard deviation of the mAP over the repeats."""
        return _deviation(self.maps)

    @property
    def cmc(self) -> np.ndarray:
        """(max_rank,) mean of the CMC over the repeats."""
        return self.cmcs.mean(axis=0)

    def rank(self, k: int) -> float:
        """Mean over the repeats of the fraction of queries with a positive among the first ``k`` images."""
        return float(self.cmcs[:, self._place(k)].mean())

    def rank_std(self, k: int) -> float:
        """Standard deviation of rank-k over the repeats."""
        return _deviation(self.cmcs[:, self._place(k)])

    def _place(self, k: int) -> int:
        if not 1 <= k <= self.cmcs.shape[1]:
            raise ValueError(f"k: expected 1 to {self.cmcs.shape[1]}, the max_rank of the evaluation, got {k}")
        return k - 1

    def summary(self) -> str:
        """A small table for people: mean and standard deviation in per cent."""
        rows = [
            f"{'repeats':<9} {len(self.maps)}, seed {self.seed}",
            f"{'queries':<9} {self.num_queries.mean():g}",
            f"{'mAP':<9} {percent(self.map)} (std {percent(self.map_std)})",
        ]
        rows += [
            f"{f'rank-{k}':<9} {percent(self.rank(k))} (std {percent(self.rank_std(k))})"
            for k in (1, 5, 10, 20)
            if k <= self.cmcs.shape[1]
        ]
        return "\n".join(rows)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain Python values; NaN becomes None."""
        names = ("maps", "cmcs", "num_queries")
        deviation = self.map_std
        return {
            "map": self.map,
            "map_std": None if np.isnan(deviation) else deviation,
            **{name: getattr(self, name).tolist() for name in names},
            "seed": self.seed,
            "settings": dict(self.settings),
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write :meth:`to_dict` as JSON. The file appears whole or not at all.

        Raises:
            OSError: if the folder cannot be made or written.
        """
        write_json(Path(path), self.to_dict())


def _deviation(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")
