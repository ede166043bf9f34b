"""The table and the picture of ``pyreid evidence``, made of its results."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyreid.errors import TrainingError, require
from pyreid.report.evidence_run import SCORES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = ("baseline", "norm_neck", "global_attention", "dbam", "soft_triplet", "gem")
"""Rows that are trained, each with all that those before it have."""

_TITLES = {
    "baseline": "baseline",
    "norm_neck": "+ norm neck",
    "global_attention": "+ global attention",
    "dbam": "+ DBAM",
    "soft_triplet": "+ soft triplet",
    "gem": "+ GeM",
}
Runs = dict[int, dict[str, float]]
"""The scores of a row by seed."""


def read_record(path: Path) -> dict[str, Any]:
    """The record of a finished run.

    Raises:
        TrainingError: it cannot be read.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"run {path}: cannot be read: {error}") from error
    if not isinstance(record, dict) or not {"scores", "reranked", "untrained", "recipe"} <= record.keys():
        raise TrainingError(f"run {path}: is not the record of a finished run")
    return record


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; NaN for the deviation of one value, and for both of none."""
    if not values:
        return math.nan, math.nan
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def collect(results: Mapping[str, Any], subset: str) -> list[tuple[str, Runs, Runs | None]]:
    """The rows of a set's table: title, scores by seed, and those of the row it is compared with.

    A row is compared with the one before it, a re-ranked one with the same networks without re-ranking.
    """
    runs = [run for run in results["runs"] if run["subset"] == subset]

    def scores(row: str, kind: str) -> Runs:
        return {run["seed"]: run[kind] for run in runs if run["row"] == row}

    rows: Sequence[str] = results["rows"]
    first, last = rows[0], rows[-1]
    found: list[tuple[str, Runs, Runs | None]] = [
        (f"{_TITLES[first]}, untrained", scores(first, "untrained"), None),
        (_TITLES[first], scores(first, "scores"), scores(first, "untrained")),
    ]
    for before, row in itertools.pairwise(rows):
        found.append((_TITLES[row], scores(row, "scores"), scores(before, "scores")))
    found.append(("+ re-ranking", scores(last, "reranked"), scores(last, "scores")))
    if len(rows) > 1:
        found.append((f"{_TITLES[first]}, re-ranked", scores(first, "reranked"), scores(first, "scores")))
    return found


def change(runs: Runs, before: Runs, score: str = "mAP") -> tuple[float, float]:
    """Mean and sample standard deviation of what a row adds to another, seed by seed; NaN without a common seed."""
    return mean_and_deviation([runs[seed][score] - before[seed][score] for seed in sorted(runs.keys() & before.keys())])


def _cell(mean: float, deviation: float, *, sign: bool = False) -> str:
    if math.isnan(mean):
        return "-"
    text = f"{100 * mean:{'+' if sign else ''}.1f}"
    return text if math.isnan(deviation) else f"{text} ± {100 * deviation:.1f}"


def tables(results: Mapping[str, Any]) -> str:
    """One Markdown table a data set, scores in per cent, mean ± sample standard deviation over the seeds."""
    parts = []
    for subset, facts in results["sets"].items():
        height, width = facts["size"]
        lines = [
            f"**{subset.capitalize()} set**: {facts['layout']}'s layout, images of {height} x {width}, "
            f"{facts['cameras']} cameras; {facts['train']} training images of {facts['train_ids']} identities, "
            f"{facts['query']} queries of {facts['test_ids']} other identities, {facts['gallery']} gallery images.",
            "",
            "| row | seeds | mAP | rank-1 | mINP | change of mAP |",
            "|---|---|---|---|---|---|",
        ]
        for title, runs, before in collect(results, subset):
            cells = [_cell(*mean_and_deviation([run[score] for run in runs.values()])) for score in SCORES]
            added = "" if before is None else _cell(*change(runs, before), sign=True)
            lines.append(f"| {title} | {len(runs)} | {' | '.join(cells)} | {added} |")
        parts.append("\n".join(lines))
    parts.append(_conditions(results))
    return "\n\n".join(parts) + "\n"


def _conditions(results: Mapping[str, Any]) -> str:
    """How the runs were made."""
    runs = results["runs"]
    planned = results["planned_seeds"] * len(results["sets"]) * len(results["rows"])
    text = f"{len(runs)} of {planned} runs are finished."
    if not runs:
        return text
    recipe = runs[0]["recipe"]
    batch = recipe["sampler"]["num_ids"] * recipe["sampler"]["num_instances"]
    steps = sorted({run["steps"] for run in runs})
    seconds = [run["cpu_seconds"] for run in runs if not run["resumed"]]
    millions = sorted({f"{run['parameters'] / 1e6:.2f}" for run in runs}, key=float)
    took = f", a median of {statistics.median(seconds):.0f} s of one core each" if seconds else ""
    return (
        f"{text} Each has {recipe['trainer']['epochs']} epochs with batches of {batch} "
        f"({' or '.join(map(str, steps))} steps){took}; "
        f"{' to '.join(dict.fromkeys((millions[0], millions[-1])))} million parameters; "
        f"torch {', '.join(sorted({run['torch'] for run in runs}))}."
    )


def draw(results: Mapping[str, Any]) -> Figure:
    """mAP of every row, a panel a data set: a dot a seed, and mean and standard deviation.

    Raises:
        MissingDependencyError: if matplotlib is missing.
    """
    require("matplotlib", extra="train")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panels = figure.subplots(1, len(results["sets"]), squeeze=False)[0]
    for axes, subset in zip(panels, results["sets"], strict=True):
        rows = collect(results, subset)
        for place, (_, runs, _) in enumerate(rows):
            values = [100 * run["mAP"] for run in runs.values()]
            if not values:
                continue
            mean, deviation = mean_and_deviation(values)
            axes.barh(place, mean, color="tab:blue", alpha=0.35)
            axes.errorbar(mean, place, xerr=None if math.isnan(deviation) else deviation, color="black", capsize=4)
            axes.plot(values, [place] * len(values), "o", color="tab:blue", markersize=4)
        axes.set(title=f"{subset} set", xlabel="mAP in %, dots are seeds", xlim=(0, 100))
        axes.set_yticks(range(len(rows)), [title for title, _, _ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(axis="x", alpha=0.3)
    return figure
