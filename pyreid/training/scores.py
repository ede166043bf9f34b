"""The scores of evaluations as they stand in the history of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyreid.evaluation import EvaluationResult, RepeatedResult

SCORES = ("mAP", "rank1", "rank5", "rank10", "mINP")


def scores(result: EvaluationResult | RepeatedResult) -> dict[str, float]:
    """The scores of an evaluation as fractions, under the names of :data:`SCORES`.

    A protocol of several random galleries gives means and, as ``mAP_std`` and so on, standard deviations, and has no
    mINP; a rank above the evaluation's ``max_rank`` is left out.
    """
    from pyreid.evaluation import RepeatedResult

    ranks = [k for k in (1, 5, 10) if k <= len(result.cmc)]
    values = {"mAP": result.map} | {f"rank{k}": result.rank(k) for k in ranks}
    if isinstance(result, RepeatedResult):
        deviations = {"mAP": result.map_std} | {f"rank{k}": result.rank_std(k) for k in ranks}
        values |= {f"{name}_std": value for name, value in deviations.items() if math.isfinite(value)}
    else:
        values["mINP"] = result.minp
    return {name: float(value) for name, value in values.items()}


def is_score(name: str) -> bool:
    """Whether a column of the history is a score: one of :data:`SCORES`, re-ranked, of an exit or of averaged models.

    Such columns are ``mAP``, ``reranked.mAP``, ``stages.stage1.rank1``, ``swa_mAP`` and ``reranked.bma_mAP``.
    """
    last = name.split(".")[-1]
    return last.removeprefix("swa_").removeprefix("bma_") in SCORES


def part_of_row(row: Mapping[str, Any], part: str) -> dict[str, Any] | None:
    """The entries ``part.name`` of a row of the history, nested by their dots; None if there is none."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        first, *keys = name.split(".")
        if first != part or not keys:
            continue
        node = found
        for key in keys[:-1]:
            node = node.setdefault(key, {})
        node[keys[-1]] = value
    return found or None


def plain_part(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the history without the entries that have dots in their names."""
    return {name: value for name, value in row.items() if "." not in name}
