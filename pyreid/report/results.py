"""What runs gave beside what the papers report, read from the folders of the runs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyreid.errors import PyreidError, TrainingError
from pyreid.training.run_folder import RunFolder
from pyreid.training.scores import part_of_row, plain_part

if TYPE_CHECKING:
    from pyreid.training.recipe import Recipe

METRICS = ("mAP", "rank1", "rank5")
GROUP = "repeat.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One number of a run beside that of its paper, in percent.

    Attributes:
        evaluation: ``"last"``, ``"re-ranked"``, ``"stage 1"`` and so on, or ``"swa"`` and ``"bma"`` for averaged models
            (``"re-ranked swa"`` too).
        metric: one of :data:`METRICS`.
        paper: what the paper reports; None where it is silent.
        paper_std: its standard deviation over the paper's runs.
        ours: what the run gave, or the mean over the runs of a group; None where it did not evaluate that.
        ours_std: the sample standard deviation over the runs of a group.
    """

    evaluation: str
    metric: str
    paper: float | None = None
    paper_std: float | None = None
    ours: float | None = None
    ours_std: float | None = None

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's, in percentage points."""
        return None if self.paper is None or self.ours is None else self.ours - self.paper


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """A run, or a group of runs with several seeds, beside its paper.

    Attributes:
        folder: of the run or the group.
        recipe: name of the recipe.
        dataset: name of the data set.
        synthetic: whether it is a synthetic one; None if that is not known.
        epochs: epochs done, the least of a group.
        planned_epochs: ``trainer.epochs``.
        finished: whether all epochs were done, or the run ended early by itself.
        runs: runs that ``ours`` is the mean of; None for a run by itself.
        source: of the paper's numbers.
        entries: the numbers.
    """

    folder: Path
    recipe: str
    dataset: str
    synthetic: bool | None
    epochs: int
    planned_epochs: int
    finished: bool
    runs: int | None
    source: str | None
    entries: tuple[Entry, ...]

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values for JSON."""
        plain = asdict(self)
        entries = [asdict(entry) | {"difference": entry.difference} for entry in self.entries]
        return plain | {"folder": str(self.folder), "entries": entries}


def read_results(folders: Sequence[Path]) -> tuple[list[RunReport], list[str]]:
    """The runs below some folders, sorted by recipe and folder, and a line for each that cannot be read.

    A folder with ``repeat.json`` is one group; a folder with ``recipe.yaml`` or ``metrics.json`` is a run. What lies
    deeper is not looked at.

    Raises:
        FileNotFoundError: a folder is not there.
    """
    reports, broken = [], []
    for root in dict.fromkeys(_runs_below(folders)):
        try:
            reports.append(read_group(root) if (root / GROUP).is_file() else read_run(root))
        except (PyreidError, OSError, ValueError) as error:
            broken.append(f"{root}: {' '.join(str(error).split())}")
    return sorted(reports, key=lambda report: (report.recipe, str(report.folder))), broken


def _runs_below(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder")
        for place, inner, names in os.walk(folder):
            if {GROUP, "recipe.yaml", "metrics.json"} & set(names):
                inner.clear()
                yield Path(place)
            inner[:] = sorted(name for name in inner if not name.startswith("."))


def read_run(root: Path) -> RunReport:
    """The report of a run.

    Raises:
        PyreidError: a file is missing or damaged.
    """
    folder = RunFolder(root)
    recipe = _recipe_of(folder)
    # A run writes its first metrics at the end of its first epoch.
    begun = folder.metrics_json.is_file() or folder.last_checkpoint.is_file()
    metrics = _read_json(folder.metrics_json) if begun else {"epochs": 0, "last": None}
    found = _expect(metrics, "last", dict, folder.metrics_json, optional=True) or {}
    values = {name: (value, None) for name, value in plain_part(found).items() if _is_number(value)}
    for part in ("reranked", "stages"):
        nested = _expect(metrics, part, dict, folder.metrics_json, optional=True) or {}
        values |= {f"{part}.{name}": (value, None) for name, value in _flat(nested) if _is_number(value)}
    epochs = _expect(metrics, "epochs", int, folder.metrics_json)
    return _report(root, recipe, [(metrics, epochs)], values, runs=None)


def read_group(root: Path) -> RunReport:
    """The report of the runs of ``pyreid train --repeat``: means and standard deviations.

    Raises:
        PyreidError: a file is missing or damaged.
    """
    path = root / GROUP
    group = _read_json(path)
    members = _expect(group, "runs", list, path)
    if not members or not all(isinstance(item, dict) and isinstance(item.get("folder"), str) for item in members):
        raise TrainingError(f"{path}: 'runs' is not a list of runs")
    folders = [RunFolder(root / item["folder"]) for item in members]
    metrics = [_read_json(folder.metrics_json) for folder in folders]
    values: dict[str, tuple[float, float | None]] = {}
    for name, item in _expect(group, "last", dict, path).items():
        if not isinstance(item, dict) or not _is_number(item.get("mean")):
            raise TrainingError(f"{path}: 'last.{name}' is {item!r}, expected a mean and a std")
        values[name] = (item["mean"], item.get("std"))
    done = [
        (found, _expect(found, "epochs", int, folder.metrics_json))
        for found, folder in zip(metrics, folders, strict=True)
    ]
    return _report(root, _recipe_of(folders[0]), done, values, runs=len(members))


def _report(
    root: Path,
    recipe: Recipe,
    done: Sequence[tuple[Mapping[str, Any], int]],
    values: Mapping[str, tuple[float, float | None]],
    *,
    runs: int | None,
) -> RunReport:
    planned = recipe.trainer.epochs
    facts = done[0][0].get("dataset")
    known = facts.get("synthetic") if isinstance(facts, dict) else None
    return RunReport(
        folder=root,
        recipe=recipe.name,
        dataset=recipe.data.dataset,
        synthetic=known if known is not None else _is_synthetic(recipe),
        epochs=min(epochs for _, epochs in done),
        planned_epochs=planned,
        finished=all(metrics.get("finished", epochs == planned) for metrics, epochs in done),
        runs=runs,
        source=recipe.paper.source if recipe.paper is not None else None,
        entries=tuple(_entries(recipe, values)),
    )


def _entries(recipe: Recipe, values: Mapping[str, tuple[float, float | None]]) -> Iterator[Entry]:
    """Those that the paper or the run has, in the order last, averaged models, re-ranked, stages."""
    paper = recipe.paper.model_dump(mode="json") if recipe.paper is not None else {}
    deviations = paper.get("std") or {}
    reranked = paper.get("reranked") or {}
    stages = paper.get("stages") or []
    exits = list(part_of_row(dict.fromkeys(values, None), "stages") or {})
    rows: list[tuple[str, str, Mapping[str, Any], Mapping[str, Any]]] = [("last", "", paper, deviations)]
    for part, title, numbers in (("", "", paper), ("reranked.", "re-ranked ", reranked)):
        if part:
            rows.append(("re-ranked", part, numbers, {}))
        for average in ("swa", "bma"):
            if any(f"{part}{average}_{metric}" in values for metric in METRICS):
                rows.append((f"{title}{average}", f"{part}{average}_", numbers, {}))
    # The last exit is the fused embedding, whose numbers are the main ones.
    for number in range(max(len(stages), len(exits) - 1)):
        prefix = f"stages.{exits[number]}." if number < len(exits) - 1 else "-"
        rows.append((f"stage {number + 1}", prefix, stages[number] if number < len(stages) else {}, {}))
    for title, prefix, numbers, std in rows:
        for metric in METRICS:
            ours, ours_std = values.get(f"{prefix}{metric}", (None, None))
            entry = Entry(
                evaluation=title,
                metric=metric,
                paper=numbers.get(metric),
                paper_std=std.get(metric),
                ours=None if ours is None else 100 * ours,
                ours_std=None if ours_std is None else 100 * ours_std,
            )
            if entry.paper is not None or entry.ours is not None:
                yield entry


def _recipe_of(folder: RunFolder) -> Recipe:
    from pyreid.training.recipe_files import load_recipe

    if not folder.recipe.is_file():
        raise TrainingError(f"no {folder.recipe.name}")
    return load_recipe(folder.recipe)


def _is_synthetic(recipe: Recipe) -> bool | None:
    """For a run that did not write it down: whether its data set is synthetic, as far as that is still there."""
    from pyreid.data.layouts import synthetic_manifest

    root = Path(recipe.data.root).expanduser() if recipe.data.root is not None else None
    if root is None or not root.is_dir():
        return None
    return synthetic_manifest(root, recipe.data.dataset) is not None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path.name}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise TrainingError(f"{path.name}: expected a mapping, got {type(content).__name__}")
    return content


def _expect(content: Mapping[str, Any], key: str, kind: type, path: Path, *, optional: bool = False) -> Any:
    value = content.get(key)
    if (value is None and optional) or (isinstance(value, kind) and not isinstance(value, bool)):
        return value
    raise TrainingError(f"{path.name}: {key!r} is {value!r}, expected {kind.__name__}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _flat(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
