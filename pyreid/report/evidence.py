"""Evidence that learning works, behind ``pyreid evidence``: rows of a table, each trained with several seeds.

::

    data/SET/                the synthetic data sets
    runs/SET/ROW/seed-N/     the runs, with log.txt, and run.json when finished
    results.json             every finished run
    table.md, results.png    made of results.json
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pyreid._files import write_atomically, write_json, write_text
from pyreid.errors import TrainingError, require
from pyreid.report.evidence_run import Job
from pyreid.report.evidence_table import ROWS, draw, read_record, tables

if TYPE_CHECKING:
    from pyreid.data import ReIDDataset

_POLL = 0.2  # seconds between two looks at the processes

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subset:
    """A synthetic data set of the table.

    Attributes:
        name: in the table.
        layout: of a real data set, whose protocol it is evaluated by.
        size: height and width of its images, as they are drawn and as the network gets them.
    """

    name: str
    layout: str
    size: tuple[int, int]


SUBSETS = (
    Subset(name="vehicle", layout="veri776", size=(64, 64)),
    Subset(name="person", layout="market1501", size=(96, 48)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How large the data sets are; see :func:`pyreid.data.synthesize`."""

    train_ids: int = 100
    test_ids: int = 100
    images_per_id: int = 12
    cameras: int = 6


def run_evidence(
    output: Path,
    *,
    repeat: int = 3,
    jobs: int = 2,
    rows: Sequence[str] = ROWS,
    sizes: Sizes | None = None,
    overrides: Sequence[str] = (),
    say: Say = print,
) -> dict[str, Any]:
    """Make the data sets, train every row with every seed on each, and write the table.

    What is finished in ``output`` is kept and an interrupted run is resumed, so that the same call again continues
    after an interruption. All rows of a seed come before those of the next one. The table is written anew after each
    run, with as many seeds as are finished.

    Args:
        output: folder of all of it.
        repeat: seeds, from 0.
        jobs: processes at a time, of one thread each.
        rows: names of rows, of :data:`ROWS`.
        sizes: of both data sets.
        overrides: settings of all recipes that differ, as ``key=value``.
        say: takes lines for people.

    Returns:
        What ``results.json`` holds.

    Raises:
        ValueError: an argument is out of range.
        TrainingError: ``output`` holds data or runs of other settings, or runs failed (others go on).
        RecipeError: an override does not fit.
    """
    for package in ("lightning", "matplotlib", "tensorboard", "torchvision"):
        require(package, extra="train")
    for name, value in (("repeat", repeat), ("jobs", jobs)):
        if value < 1:
            raise ValueError(f"{name}: got {value}, expected at least 1")
    unknown = [row for row in rows if row not in ROWS]
    if unknown or not rows:
        raise ValueError(f"rows: got {unknown[0] if unknown else 'none'}, expected some of {', '.join(ROWS)}")
    sizes = sizes or Sizes()
    rows = [row for row in ROWS if row in rows]
    plan = list(_plan(output, rows=rows, repeat=repeat, overrides=overrides))
    records = {job: read_record(job.record) for job in plan if job.record.is_file()}
    for job, record in records.items():
        _check_same(job, record)
    sets = {subset.name: _facts(subset, _make(subset, output, sizes, say)) for subset in SUBSETS}

    def report() -> dict[str, Any]:
        done = [records[job] for job in plan if job in records]
        return write_results(output, {"sets": sets, "rows": rows, "planned_seeds": repeat, "runs": done})

    results = report()
    failed = []
    for job, code in _run_all([job for job in plan if job not in records], jobs, say):
        if code == 0:
            records[job] = read_record(job.record)
            scores = records[job]["scores"]
            say(f"{job.title}: mAP {100 * scores['mAP']:.1f} %, {len(records)} of {len(plan)} runs done")
            results = report()
        else:
            failed.append(job)
            say(f"{job.title}: failed, see {_log(job)}")
    if failed:
        first = failed[0]
        raise TrainingError(f"{len(failed)} of {len(plan)} runs failed, first {first.title}: see {_log(first)}")
    return results


def write_results(output: Path, results: dict[str, Any]) -> dict[str, Any]:
    """Write ``results.json``, the table and the picture, each whole or not at all."""
    write_json(output / "results.json", results)
    write_text(output / "table.md", tables(results))
    if results["runs"]:
        figure = draw(results)
        write_atomically(output / "results.png", lambda path: figure.savefig(path, dpi=110))
    return results


def _plan(output: Path, *, rows: Sequence[str], repeat: int, overrides: Sequence[str]) -> Iterator[Job]:
    """All runs, those of the first seed first; every recipe is checked before the first of them starts."""
    from pyreid.training import find_recipe, load_recipe

    for seed in range(repeat):
        for subset in SUBSETS:
            for row in rows:
                recipe = str(find_recipe(f"evidence/{row}"))
                settings = (
                    f"data.dataset={subset.layout}",
                    f"data.size=[{subset.size[0]}, {subset.size[1]}]",
                    f"data.root={_data(output, subset)}",
                    *overrides,
                    f"seed={seed}",
                )
                load_recipe(recipe, settings)
                folder = output / "runs" / subset.name / row / f"seed-{seed}"
                yield Job(subset=subset.name, row=row, seed=seed, recipe=recipe, overrides=settings, folder=str(folder))


def _check_same(job: Job, record: dict[str, Any]) -> None:
    """Refuse a finished run whose settings are not those that are asked for."""
    from pyreid.training import load_recipe
    from pyreid.training.resume import changed_keys, with_new_keys

    before, now = with_new_keys(record["recipe"]), load_recipe(job.recipe, job.overrides).model_dump(mode="json")
    changed = changed_keys(before, now)
    if before["trainer"]["epochs"] != now["trainer"]["epochs"]:
        changed.append(f"trainer.epochs (was {before['trainer']['epochs']}, is {now['trainer']['epochs']})")
    if changed:
        raise TrainingError(
            f"output {job.folder}: holds a run with other settings: {', '.join(changed)}; choose another --output"
        )


def _data(output: Path, subset: Subset) -> Path:
    return output / "data" / subset.name


def _make(subset: Subset, output: Path, sizes: Sizes, say: Say) -> ReIDDataset:
    """The data set, drawn if it is not there."""
    from pyreid.data import load_dataset, synthesize
    from pyreid.data.layouts import read_manifest

    root = _data(output, subset)
    wanted = {
        "num_train_ids": sizes.train_ids,
        "num_test_ids": sizes.test_ids,
        "images_per_id": sizes.images_per_id,
        "num_cameras": sizes.cameras,
        "size": subset.size,
        "seed": 0,
    }
    manifest = read_manifest(root)
    if manifest is None:
        say(f"drawing the {subset.name} set")
        return synthesize(subset.layout, root, **wanted)  # type: ignore[arg-type]
    there = {**manifest["settings"], "size": tuple(manifest["settings"]["size"])}
    changed = [f"{key} (was {there[key]}, is {value})" for key, value in wanted.items() if there[key] != value]
    if changed:
        raise TrainingError(f"output {root}: holds another data set: {', '.join(changed)}; choose another --output")
    return load_dataset(subset.layout, root)


def _facts(subset: Subset, dataset: ReIDDataset) -> dict[str, Any]:
    """What the table says of a data set."""
    return {
        "layout": subset.layout,
        "size": list(subset.size),
        "train_ids": dataset.num_train_ids,
        "test_ids": len({record.pid for record in dataset.query}),
        "cameras": len({record.camid for record in dataset.train}),
        **{split: len(records) for split, records in dataset.splits.items()},
    }


def _log(job: Job) -> Path:
    return Path(job.folder) / "log.txt"


def _run_all(jobs: Sequence[Job], count: int, say: Say) -> Iterator[tuple[Job, int]]:
    """Run jobs, so many at a time in this order, and give each with its exit code as it ends."""
    waiting, running = list(jobs), dict[Job, subprocess.Popen[bytes]]()
    try:
        while waiting or running:
            while waiting and len(running) < count:
                job = waiting.pop(0)
                say(f"{job.title}: started")
                running[job] = _start(job)
            for job in [job for job, process in running.items() if process.poll() is not None]:
                yield job, running.pop(job).returncode
            time.sleep(_POLL)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()


def _start(job: Job) -> subprocess.Popen[bytes]:
    """A process of one thread, which ends when this one does."""
    log: IO[bytes]
    _log(job).parent.mkdir(parents=True, exist_ok=True)
    threads = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")}
    with _log(job).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "pyreid.report.evidence_run", job.to_json()],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env={**os.environ, **threads},
        )
