"""What a person sees of a training run: a live bar in a terminal, and one line per epoch everywhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import lightning as L
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from pyreid.training.callbacks import EpochRecorder, StepMonitor
from pyreid.training.scores import part_of_row


def score_parts(row: Mapping[str, Any]) -> list[str]:
    """mAP and rank-1 of a row for people, as far as they are there."""
    shown = (("mAP", "mAP"), ("rank1", "rank-1"))
    return [f"{title} {100 * row[name]:.2f}%" for name, title in shown if name in row]


class TrainingProgress(L.Callback):
    """A bar for the batches of the epoch, another for the images of the evaluation, and a line when an epoch is done.

    Lightning's own bar knows neither the evaluation of this package, which needs all features at once, nor epochs that
    count from 1. In a file or a pipe there are only the lines.
    """

    def __init__(self, monitor: StepMonitor, recorder: EpochRecorder, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        self._monitor = monitor
        self._recorder = recorder
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._began = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[note]}"), console=self.console, transient=True)
            self._bar.start()
        self._recorder.watch_evaluation(self._start_evaluation, self._advance, self._end_task)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._began = time.perf_counter()
        epoch = f"Epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        self._start_task(epoch, int(trainer.num_training_batches))

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=1, note=f"loss {self._monitor.latest_loss:.4f}")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._end_task()
        row = self._recorder.history[-1]
        parts = [f"epoch {row['epoch']}/{trainer.max_epochs}", f"loss {row['loss']:.4f}", f"lr {row['lr']:.2e}"]
        if "mAP" in row:
            parts += score_parts(row)
        parts.append(f"{time.perf_counter() - self._began:.1f} s")
        self.console.print("  ".join(parts), highlight=False)
        reranked, stages = part_of_row(row, "reranked"), part_of_row(row, "stages")
        for name, found in (({"re-ranked": reranked} if reranked else {}) | (stages or {})).items():
            self.console.print("  ".join([f"  {name}", *score_parts(found)]), highlight=False)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._stop()

    def _start_evaluation(self, total: int) -> None:
        self._end_task()
        self._start_task("Evaluating", total)

    def _advance(self, count: int) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task, count)

    def _start_task(self, description: str, total: int) -> None:
        if self._bar is not None:
            self._task = self._bar.add_task(description, total=total, note="")

    def _end_task(self) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.remove_task(self._task)
        self._task = None

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
