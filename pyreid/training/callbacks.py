"""Callbacks of a training run: watching every step, recording and evaluating every epoch, writing files."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint

from pyreid._files import write_atomically, write_json
from pyreid.errors import TrainingError
from pyreid.training.early_stopping import has_stalled, is_finished
from pyreid.training.last_evaluation import FurtherResults, evaluate_further
from pyreid.training.module import BatchRecord, ReIDModule
from pyreid.training.objectives import term_names
from pyreid.training.processes import agree, copy_buffers, gather, mean_over_ranks, several
from pyreid.training.randomness import random_states, restore_random_states
from pyreid.training.recipe import Recipe
from pyreid.training.run_folder import RunFolder, write_csv
from pyreid.training.scores import SCORES, part_of_row, plain_part, scores
from pyreid.training.sharing import evaluate_own_features, extract_own_features, own_part

if TYPE_CHECKING:
    from pyreid.data import ReIDDataset
    from pyreid.evaluation import EvaluationResult, RepeatedResult
    from pyreid.inference.images import ImageInput
    from pyreid.training.features import TestFeatures

_NAMED_FILES = 4


class StepMonitor(L.Callback):
    """Before every optimiser step: stops if a loss or a gradient is not finite, and sums up the epoch.

    The losses of all batches of the step and the norm of the gradient reach the host in one copy. The optimiser has
    not touched the weights yet when the run is stopped. Several processes log the means over all of them, and stop
    together, with the same error.

    Args:
        names: names of the loss terms.
        files: file of every image of the training split, to name those of a bad batch.
    """

    def __init__(self, names: Sequence[str], files: Sequence[Path]) -> None:
        self.names = tuple(names)
        self.files = files
        self.latest_loss = math.nan
        self.lr = math.nan
        self._batches: list[list[float]] = []
        self._norms: list[float] = []

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, ReIDModule)
        pl_module.pending.clear()
        self._batches.clear()
        self._norms.clear()

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        assert isinstance(pl_module, ReIDModule)
        # The norm is that of the optimiser's parameters, as clipping sees them. Those that learn by themselves, such as
        # the centres of a loss, have to be finite as well; no scaler skips their step.
        mine = {id(p) for group in optimizer.param_groups for p in group["params"]}
        with_gradient = [(id(p) in mine, p.grad) for p in pl_module.parameters() if p.grad is not None]
        norms = [
            torch.nn.utils.get_total_norm([grad for own, grad in with_gradient if own is which])
            for which in (True, False)
        ]
        rows = [torch.stack([item.loss, *item.terms]) for item in pl_module.pending]
        *flat, norm_value, other_norm = torch.cat([*rows, *(norm.reshape(1).to(rows[0]) for norm in norms)]).tolist()
        width = 1 + len(self.names)
        values = [flat[i : i + width] for i in range(0, len(flat), width)]
        # Means over the ranks: what the log says, and not finite on all of them if one of them has such a value.
        means = torch.tensor([*flat, norm_value, other_norm], dtype=torch.float64)
        *flat, norm_mean, other_mean = mean_over_ranks(means).tolist()
        if not all(map(math.isfinite, (*flat, norm_mean, other_mean))):
            agree(self._problem(trainer, pl_module, values, norm_value, other_norm))
        values = [flat[i : i + width] for i in range(0, len(flat), width)]
        pl_module.pending.clear()
        self._batches += values
        if math.isfinite(norm_value):
            self._norms.append(norm_value)
        self.latest_loss = values[-1][0]
        self.lr = float(optimizer.param_groups[0]["lr"])
        step = trainer.global_step + 1
        if step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            last = dict(zip(("loss", *self.names), values[-1], strict=True))
            log_scalars(trainer, "train", last | {"grad_norm": norm_value, "lr": self.lr}, step)

    def epoch_means(self) -> dict[str, float]:
        """Mean loss, terms and gradient norm (before clipping) over the batches of the epoch so far.

        Without the norm where it was finite in no step, as while the scaler of fp16 looks for its scale.
        """
        means = {
            name: math.fsum(row[column] for row in self._batches) / len(self._batches)
            for column, name in enumerate(("loss", *self.names))
        }
        return means | ({"grad_norm": math.fsum(self._norms) / len(self._norms)} if self._norms else {})

    def _problem(
        self, trainer: L.Trainer, module: ReIDModule, values: list[list[float]], norm: float, other_norm: float
    ) -> TrainingError | None:
        """The error of this rank, if it has one."""
        for item, row in zip(module.pending, values, strict=True):
            if not all(map(math.isfinite, row)):
                return self._error(trainer, "the loss is not finite", item, row)
        if math.isfinite(other_norm) and (math.isfinite(norm) or _scaler_will_skip(trainer)):
            return None
        bad = next((n for n, p in module.named_parameters() if p.grad is not None and not _finite(p.grad)), None)
        what = f"the gradient of {bad!r}" if bad is not None else "the norm of the gradient"
        return self._error(trainer, f"{what} is not finite", module.pending[-1], values[-1])

    def _error(self, trainer: L.Trainer, what: str, record: BatchRecord, row: list[float]) -> TrainingError:
        indices = record.indices.tolist()
        terms = ", ".join(f"{name}={value:g}" for name, value in zip(("loss", *self.names), row, strict=True))
        files = ", ".join(self.files[index].name for index in indices[:_NAMED_FILES])
        more = f", ... ({len(indices)} images)" if len(indices) > _NAMED_FILES else ""
        return TrainingError(
            f"{what} at epoch {trainer.current_epoch + 1}, step {trainer.global_step + 1} "
            f"(batch {record.batch + 1} of {trainer.num_training_batches}): {terms}; batch of {files}{more}; "
            "try a lower optimizer.lr, a trainer.grad_clip, or trainer.precision=32"
        )


def _finite(tensor: torch.Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def _scaler_will_skip(trainer: L.Trainer) -> bool:
    """In fp16 an overflowing gradient is ordinary: the scaler skips the step and halves its scale, down to a limit."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return scaler is not None and scaler.get_scale() >= 1.0


def log_scalars(trainer: L.Trainer, group: str, values: dict[str, float], step: int) -> None:
    """Send scalars to TensorBoard as ``group/name``."""
    for logger in trainer.loggers:
        logger.log_metrics({f"{group}/{name}": value for name, value in values.items()}, step=step)


class EpochRecorder(L.Callback):
    """At the end of every epoch: a row for ``metrics.csv``, with the scores where the recipe asks for an evaluation.

    Attributes:
        history: one row per finished epoch; ``epoch`` counts from 1, ``step`` is the number of optimiser steps done.
        best: the row with the best mAP so far, the earliest of equals; None before the first evaluation.
        result: the evaluation of the latest epoch; None if it was not evaluated.
        further: what the last evaluation of the run gave besides.
    """

    def __init__(self, monitor: StepMonitor, dataset: ReIDDataset, recipe: Recipe, images: ImageInput) -> None:
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.result: EvaluationResult | RepeatedResult | None = None
        self.further = FurtherResults()
        self._monitor = monitor
        self._dataset = dataset
        self._recipe = recipe
        self._images = images
        self._watch: tuple[Callable[[int], None], Callable[[int], None], Callable[[], None]] | None = None

    def watch_evaluation(
        self, start: Callable[[int], None], advance: Callable[[int], None], end: Callable[[], None]
    ) -> None:
        """Have ``start(total)``, ``advance(count)`` and ``end()`` called around and during each evaluation."""
        self._watch = (start, advance, end)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, ReIDModule)
        # In training each rank has its own statistics of batch norm; those of rank 0 are evaluated and saved.
        copy_buffers(pl_module)
        epoch = trainer.current_epoch + 1
        row: dict[str, Any] = {"epoch": epoch, "step": trainer.global_step, "lr": self._monitor.lr}
        row |= self._monitor.epoch_means()
        self.result, features = None, None
        if epoch % self._recipe.trainer.evaluate_every == 0 or epoch == trainer.max_epochs:
            features = self._features(pl_module)
            self.result = evaluate_own_features(
                features, self._recipe.evaluation, self._dataset, device=pl_module.device
            )
            found = scores(self.result)
            row |= found
            log_scalars(trainer, "test", found, trainer.global_step)
        log_scalars(trainer, "epoch", {"loss": row["loss"]}, trainer.global_step)
        self.history.append(row)
        if "mAP" in row and (self.best is None or row["mAP"] > self.best["mAP"]):
            self.best = row
        stalled = has_stalled(self.history, self._recipe.trainer.early_stopping)
        if stalled:
            trainer.should_stop = True
        if features is not None and (stalled or epoch == trainer.max_epochs):
            self._evaluate_further(trainer, pl_module, features, row)

    def _features(self, module: ReIDModule) -> TestFeatures:
        settings = self._recipe.evaluation
        with self._watched() as advance:
            return extract_own_features(
                module.model,  # type: ignore[arg-type]
                self._dataset,
                settings,
                images=self._images,
                workers=self._recipe.data.workers,
                on_batch=advance,
            )

    def _evaluate_further(
        self, trainer: L.Trainer, module: ReIDModule, features: TestFeatures, row: dict[str, Any]
    ) -> None:
        settings = self._recipe.evaluation
        if settings.rerank is None and not settings.stages:
            return
        with self._watched() as advance:
            self.further = evaluate_further(
                module.model,  # type: ignore[arg-type]
                features,
                self._dataset,
                settings,
                images=self._images,
                workers=self._recipe.data.workers,
                on_batch=advance,
                device=module.device,
            )
        found = self.further.row()
        row |= found
        log_scalars(trainer, "test", found, trainer.global_step)

    @contextmanager
    def _watched(self) -> Iterator[Callable[[int], None]]:
        """Announces one pass over the test images; gives what is called with the number of images of each batch."""
        start, advance, end = self._watch or (lambda total: None, lambda count: None, lambda: None)
        start(len(own_part(self._dataset, self._recipe.evaluation.batch_size)))
        try:
            yield advance
        finally:
            end()


class RunWriter(Checkpoint):
    """After every epoch: ``last.ckpt``, ``best.ckpt`` where it is the best, and the metrics; each file atomically.

    A checkpoint holds all that a bit-exact continuation needs: weights, optimiser, schedule and loops (by Lightning),
    and under ``"pyreid"`` the recipe, the history, the best score and all random states. It contains plain values and
    tensors only, so that it loads without running code.

    As a Lightning ``Checkpoint`` it runs after the other callbacks. Of several processes, rank 0 writes; the random
    states of all are in the checkpoint.
    """

    def __init__(self, folder: RunFolder, recipe: Recipe, recorder: EpochRecorder, facts: dict[str, Any]) -> None:
        self._folder = folder
        self._recipe = recipe
        self._recorder = recorder
        self._facts = facts
        self._restore: dict[str, Any] | None = None

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        best, states = self._recorder.best, gather(random_states())
        checkpoint["pyreid"] = {
            "recipe": self._recipe.model_dump(mode="json"),
            "history": self._recorder.history,
            "best_epoch": best["epoch"] if best is not None else None,
            "random_states": states[0],
            "other_random_states": states[1:],
            **self._facts,
        }

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint["pyreid"]
        history = [dict(row) for row in saved["history"]]
        self._recorder.history[:] = history
        self._recorder.best = next((row for row in history if row["epoch"] == saved["best_epoch"]), None)
        self._restore = [saved["random_states"], *saved["other_random_states"]][trainer.global_rank]

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Only now: between loading and here Lightning and the data loaders may have drawn random numbers.
        if self._restore is not None:
            restore_random_states(self._restore)
            self._restore = None

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        recorder, folder = self._recorder, self._folder
        error, saved = None, False

        def save(path: Path) -> None:
            nonlocal saved
            trainer.save_checkpoint(path)
            saved = True
            if recorder.best is recorder.history[-1]:
                # Before last.ckpt: killed in between, the run is resumed one epoch back and makes the same file again.
                write_atomically(folder.best_checkpoint, lambda best: _link(path, best))

        try:
            if trainer.is_global_zero:
                write_atomically(folder.last_checkpoint, save)
                write_metrics(folder, self._recipe, recorder.history, recorder.best, dataset=self._facts["dataset"])
            else:
                trainer.save_checkpoint(folder.last_checkpoint)  # which takes part, and writes nothing
        except Exception as problem:
            if not several():
                raise
            error = problem
            if not saved:
                trainer.strategy.barrier()  # where the others wait at the end of saving
        agree(error)


def write_metrics(
    folder: RunFolder,
    recipe: Recipe,
    history: Sequence[dict[str, Any]],
    best: dict[str, Any] | None,
    *,
    dataset: dict[str, Any],
) -> None:
    """Write ``metrics.csv`` and ``metrics.json`` of the finished epochs.

    Args:
        folder: of the run.
        recipe: of the run.
        history: one row per finished epoch.
        best: that with the best mAP.
        dataset: facts on the data set, see :func:`pyreid.training.engine.describe_dataset`.
    """
    columns = ["epoch", "step", "lr", "loss", *term_names(recipe.losses), "grad_norm", *SCORES]
    columns += sorted({name for row in history for name in row} - set(columns))  # those of the last evaluation
    write_csv(folder.metrics_csv, history, columns)
    evaluated = [row for row in history if "mAP" in row]
    last = evaluated[-1] if evaluated else {}
    metrics = {
        "recipe": recipe.name,
        "dataset": dataset,
        "epochs": len(history),
        "finished": is_finished(history, recipe.trainer),
        "best": plain_part(best) if best is not None else None,
        "last": plain_part(last) or None,
        "reranked": part_of_row(last, "reranked"),
        "stages": part_of_row(last, "stages"),
        "settings": recipe.evaluation.model_dump(mode="json"),
        "paper": recipe.paper.model_dump(mode="json") if recipe.paper is not None else None,
    }
    write_json(folder.metrics_json, metrics)


def _link(source: Path, target: Path) -> None:
    """Make ``target`` the same file as ``source``; a copy where the file system has no hard links."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
