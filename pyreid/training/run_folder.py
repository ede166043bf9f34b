"""The folder of one run, and how files get into it: whole or not at all.

::

    recipe.yaml            the recipe with every setting, as it was used
    metrics.csv            one row per finished epoch
    metrics.json           best and last scores
    tensorboard/           event files; wandb/ instead, if the recipe names that logger
    checkpoints/last.ckpt  after the last finished epoch
    checkpoints/best.ckpt  after the epoch with the best mAP
    checkpoints/swa.ckpt   the mean of the weights at the ends of the cycles, if the recipe averages
"""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyreid._files import write_text
from pyreid.errors import TrainingError


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write rows as CSV atomically; floats with all their digits, a missing value as an empty field."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, buffer.getvalue())


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths inside the folder of a run."""

    root: Path

    @property
    def recipe(self) -> Path:
        return self.root / "recipe.yaml"

    @property
    def metrics_csv(self) -> Path:
        return self.root / "metrics.csv"

    @property
    def metrics_json(self) -> Path:
        return self.root / "metrics.json"

    @property
    def tensorboard(self) -> Path:
        return self.root / "tensorboard"

    @property
    def wandb(self) -> Path:
        return self.root / "wandb"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        return self.checkpoints / "last.ckpt"

    @property
    def best_checkpoint(self) -> Path:
        return self.checkpoints / "best.ckpt"

    @property
    def averaged_checkpoint(self) -> Path:
        return self.checkpoints / "swa.ckpt"

    def _owned(self) -> tuple[Path, ...]:
        return (self.recipe, self.metrics_csv, self.metrics_json, self.tensorboard, self.wandb, self.checkpoints)

    def holds_a_run(self) -> bool:
        """True when anything that a run writes is there."""
        return any(path.exists() for path in self._owned())

    def is_begun(self) -> bool:
        """True when a run was interrupted before the end of its first epoch, so that nothing of it can be resumed."""
        of_epochs = (self.last_checkpoint, self.best_checkpoint, self.metrics_csv, self.metrics_json)
        return self.recipe.is_file() and not any(path.exists() for path in of_epochs)

    def holds_repeated_runs(self) -> bool:
        """True when :func:`pyreid.training.train_repeatedly` has trained, or begun to, in this folder."""
        return (self.root / "repeat.json").exists() or self.repeated(1).recipe.exists()

    def repeated(self, number: int) -> RunFolder:
        """The folder of one of repeated runs, from 1 on."""
        return RunFolder(self.root / f"run-{number}")

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """Refuse a folder that does not fit what is asked; nothing is changed.

        Raises:
            TrainingError: a run is there and would be overwritten, or there is none to resume.
        """
        if resume and overwrite:
            raise ValueError("resume and overwrite exclude each other; give one of them")
        if self.root.exists() and not self.root.is_dir():
            raise TrainingError(f"output {self.root}: is a file, expected a folder")
        present = next(path for path in (self.root, *self.root.absolute().parents) if path.exists())
        if not present.is_dir() or not os.access(present, os.W_OK | os.X_OK):
            why = "no permission to write there" if present.is_dir() else "it is a file"
            raise TrainingError(
                f"output {self.root}: nothing can be written in {present} ({why}); choose another folder"
            )
        if self.holds_repeated_runs():
            raise TrainingError(
                f"output {self.root}: holds the folders of repeated runs; choose another folder, or give --repeat"
            )
        if resume and not self.last_checkpoint.is_file() and not self.is_begun():
            raise TrainingError(
                f"output {self.root}: nothing to resume, {self.last_checkpoint} is missing (a run writes it at the end "
                "of its first epoch); start without --resume, with --overwrite if files of a run are there"
            )
        if not resume and not overwrite and self.holds_a_run():
            raise TrainingError(
                f"output {self.root}: holds a run already; choose another folder, "
                + ("continue it with --resume, " if self.last_checkpoint.is_file() or self.is_begun() else "")
                + "or replace it with --overwrite"
            )

    def remove_leftovers(self) -> None:
        """Delete the temporary files of a run that was killed while it wrote a checkpoint."""
        for name in (self.last_checkpoint.name, self.best_checkpoint.name, self.averaged_checkpoint.name):
            for path in self.checkpoints.glob(f".{name}.*"):
                path.unlink()

    def drop_summary(self) -> None:
        """Delete the ``repeat.json`` of the repeated runs that this is one of: it sums up what is about to change."""
        root = self.root.resolve()
        if re.fullmatch(r"run-\d+", root.name):
            (root.parent / "repeat.json").unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete what a run wrote, and nothing else."""
        for path in self._owned():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
