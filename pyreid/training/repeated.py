"""The same recipe with several seeds, for the mean and the standard deviation of its scores."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyreid._files import write_json
from pyreid.errors import TrainingError
from pyreid.training.devices import device_of_rank
from pyreid.training.engine import TrainingResult, train
from pyreid.training.processes import agree, current_ranks, from_first, joined
from pyreid.training.recipe import Recipe
from pyreid.training.run_folder import RunFolder
from pyreid.training.scores import SCORES, is_score


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatedTraining:
    """What the runs gave.

    Attributes:
        runs: their results, in the order of the seeds.
        last: by score: mean and sample standard deviation over the last evaluations of the runs, in 0..1; NaN for the
            deviation of one run. What only a last evaluation has stands under ``reranked.mAP`` and so on.
        best: likewise over the evaluations with the best mAP, which are chosen by the test set.
        file: with all of it, ``repeat.json``.
    """

    runs: tuple[TrainingResult, ...]
    last: dict[str, tuple[float, float]]
    best: dict[str, tuple[float, float]]
    file: Path


def train_repeatedly(
    recipe: Recipe,
    *,
    output_dir: Path | str,
    repeat: int,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> RepeatedTraining:
    """Train with the seeds ``recipe.seed``, ``recipe.seed + 1``, ... in the folders ``run-1``, ``run-2``, ...

    Args:
        recipe: as for :func:`pyreid.training.train`, as all that follows.
        output_dir: folder of the folders; ``repeat.json`` is written into it when all runs are done.
        repeat: how many runs.
        resume: continue: finished runs are kept, an interrupted one is resumed, and the others are made.
        overwrite: replace the runs that are there.
        progress: show what each run does.

    Raises:
        ValueError: ``repeat`` is not positive, or the last seed would be too large.
        TrainingError: a folder holds a run and neither ``resume`` nor ``overwrite`` is given, and what
            :func:`pyreid.training.train` raises.
    """
    if repeat < 1:
        raise ValueError(f"repeat: got {repeat}, expected at least 1")
    if resume and overwrite:
        raise ValueError("resume and overwrite exclude each other; give one of them")
    if recipe.seed + repeat > 2**32:
        raise ValueError(f"repeat: got {repeat}, with which the last seed is above 2**32 - 1")
    root = Path(output_dir)
    seeds = [recipe.seed + number for number in range(repeat)]
    folders = [RunFolder(root).repeated(number + 1) for number in range(repeat)]
    with joined(device_of_rank(recipe, current_ranks())) as ranks:
        begun = _begun(folders, resume=resume, overwrite=overwrite)
        results = []
        for seed, folder, there in zip(seeds, folders, begun, strict=True):
            own = recipe.model_copy(update={"seed": seed})
            # A run that was interrupted in its first epoch has nothing to resume and starts anew.
            results.append(
                train(
                    own,
                    output_dir=folder.root,
                    resume=resume and there,
                    overwrite=overwrite or (resume and not there),
                    progress=progress,
                )
            )
        last, best = (_statistics(rows) for rows in _rows(results))
        found = RepeatedTraining(runs=tuple(results), last=last, best=best, file=root / "repeat.json")
        error = None
        if ranks.rank == 0:
            try:
                write_json(found.file, _to_dict(recipe, seeds, found))
            except OSError as problem:
                error = problem
        agree(error)
    return found


def _begun(folders: Sequence[RunFolder], *, resume: bool, overwrite: bool) -> list[bool]:
    """Which runs have something to resume, as rank 0 sees it; an error if a run is in the way, before any starts."""
    error, above = None, RunFolder(folders[0].root.parent)
    if above.holds_a_run():
        error = TrainingError(
            f"output {above.root}: holds a single run already; choose another folder for those of --repeat"
        )
    elif not resume and not overwrite:
        held = next((folder for folder in folders if folder.holds_a_run()), None)
        if held is not None:
            error = TrainingError(
                f"output {held.root}: holds a run already; choose another folder, continue with --resume, "
                "or replace all runs with --overwrite"
            )
    begun: list[bool] = from_first([folder.last_checkpoint.is_file() for folder in folders])
    agree(error)
    return begun


def _rows(results: Sequence[TrainingResult]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of the last and of the best evaluations."""
    last = [[row for row in result.history if "mAP" in row][-1] for result in results]
    best = [next(row for row in result.history if row["epoch"] == result.best_epoch) for result in results]
    return last, best


def _statistics(rows: Sequence[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    found = {}
    further = dict.fromkeys(name for row in rows for name in row if is_score(name) and name not in SCORES)
    for name in (*SCORES, *further):
        values = [float(row[name]) for row in rows if name in row]
        if len(values) == len(rows):
            found[name] = (statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan)
    return found


def _to_dict(recipe: Recipe, seeds: Sequence[int], found: RepeatedTraining) -> dict[str, Any]:
    def plain(values: dict[str, tuple[float, float]]) -> dict[str, Any]:
        return {
            name: {"mean": mean, "std": None if math.isnan(deviation) else deviation}
            for name, (mean, deviation) in values.items()
        }

    last, best = _rows(found.runs)
    names = ("epoch", *found.last)
    runs = [
        {
            "folder": result.output_dir.name,
            "seed": seed,
            "last": {name: end[name] for name in names},
            "best": {name: top[name] for name in names if name in top},
        }
        for seed, result, end, top in zip(seeds, found.runs, last, best, strict=True)
    ]
    return {"recipe": recipe.name, "runs": runs, "last": plain(found.last), "best": plain(found.best)}
