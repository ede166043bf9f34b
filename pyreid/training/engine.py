"""Training a recipe from start to end."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pyreid._files import write_text
from pyreid.data import load_dataset
from pyreid.errors import RecipeError, TrainingError
from pyreid.models import create_model
from pyreid.training.preflight import check_losses, check_training_data, fingerprint
from pyreid.training.recipe import Recipe
from pyreid.training.recipe_files import dump_recipe
from pyreid.training.resume import check_resumable, load_checkpoint
from pyreid.training.run_folder import RunFolder

if TYPE_CHECKING:
    import lightning as L

    from pyreid.data import ReIDDataset
    from pyreid.evaluation import EvaluationResult


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a run gave.

    Attributes:
        output_dir: the folder of the run.
        history: one row per finished epoch, the rows of ``metrics.csv``; ``mAP`` and the ranks only where evaluated.
        best_epoch: epoch (from 1) with the best mAP.
        best_map: its mAP, in 0..1.
        last_map: mAP after the last epoch, in 0..1.
        best_checkpoint: file with the weights of the best epoch.
        last_checkpoint: file with everything after the last epoch.
        metrics_csv: file with the history.
        evaluation: the evaluation after the last epoch; None when a finished run was resumed.
    """

    output_dir: Path
    history: tuple[dict[str, Any], ...]
    best_epoch: int
    best_map: float
    last_map: float
    best_checkpoint: Path
    last_checkpoint: Path
    metrics_csv: Path
    evaluation: EvaluationResult | None


def train(
    recipe: Recipe,
    *,
    output_dir: Path | str,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> TrainingResult:
    """Train and evaluate a model as a recipe says.

    Everything that can be checked is checked before the first step: the folder, the data set, the model, the losses.
    On the CPU a run is reproducible bit for bit (with the same number of threads), also across ``resume``.

    Args:
        recipe: see :func:`pyreid.training.load_recipe`; ``data.root`` must be set.
        output_dir: the folder of the run; see :mod:`pyreid.training.run_folder`.
        resume: continue the run in ``output_dir`` after its last finished epoch.
        overwrite: replace the run in ``output_dir``.
        progress: show bars and a line per epoch.

    Raises:
        TrainingError: the folder does not fit, or a loss or gradient is not finite.
        RecipeError: a setting does not fit the data set or the machine.
        DatasetError: the data set is incomplete.
        MissingDependencyError: a package of the extra ``train`` is missing.
    """
    from pyreid.training.callbacks import write_metrics
    from pyreid.training.datamodule import ReIDDataModule, image_input
    from pyreid.training.objectives import Objective, needs_classifier
    from pyreid.training.randomness import seed_everything

    folder = RunFolder(Path(output_dir))
    folder.check(resume=resume, overwrite=overwrite)
    _check_device(recipe)
    dataset = open_dataset(recipe)
    check_training_data(dataset, recipe)
    checkpoint = None
    if resume:
        checkpoint = load_checkpoint(folder.last_checkpoint)
        check_resumable(checkpoint, recipe, fingerprint=fingerprint(dataset), path=folder.root)
    num_classes = dataset.num_train_ids
    seed_everything(recipe.seed)
    # A resumed run gets its weights from the checkpoint; the file it once started from may be gone.
    weights = None if resume else recipe.model.weights
    classes = num_classes if needs_classifier(recipe.losses) else 0
    model = create_model(recipe.model.name, num_classes=classes, weights=weights, **recipe.model.overrides)
    images = image_input(model, recipe.data)
    data = ReIDDataModule(dataset, recipe, images)
    widths = check_losses(model, data, recipe, num_classes=num_classes)
    objective = Objective(recipe.losses, num_classes=num_classes, widths=widths, weighting=recipe.loss_weighting)
    if overwrite:
        folder.clear()
    folder.remove_leftovers()
    write_text(folder.recipe, dump_recipe(recipe))

    facts = {"num_classes": num_classes, "fingerprint": fingerprint(dataset)}
    if checkpoint is not None and len(checkpoint["pyreid"]["history"]) == recipe.trainer.epochs:
        history = checkpoint["pyreid"]["history"]
        best = next((row for row in history if row["epoch"] == checkpoint["pyreid"]["best_epoch"]), None)
        write_metrics(folder, recipe, history, best)
        return _result(folder, history, best, None)
    return _fit(recipe, folder, dataset, model, objective, data, facts, checkpoint, progress)


def open_dataset(recipe: Recipe) -> ReIDDataset:
    """The data set of a recipe.

    Raises:
        RecipeError: ``data.root`` is not set, or the data set is unknown.
        DatasetError: it is not there or incomplete.
    """
    from pyreid.data import list_datasets
    from pyreid.training.recipe_errors import suggest

    if recipe.data.dataset not in list_datasets():
        raise RecipeError(f"'data.dataset' is {recipe.data.dataset!r}{suggest(recipe.data.dataset, list_datasets())}")
    if recipe.data.root is None:
        raise RecipeError(f"'data.root' is not set; give the folder of {recipe.data.dataset}: data.root=FOLDER")
    return load_dataset(recipe.data.dataset, Path(recipe.data.root).expanduser())


def _fit(
    recipe: Recipe,
    folder: RunFolder,
    dataset: ReIDDataset,
    model: Any,
    objective: Any,
    data: Any,
    facts: dict[str, Any],
    checkpoint: dict[str, Any] | None,
    progress: bool,
) -> TrainingResult:
    from pyreid.training.averaging import CycleAverager
    from pyreid.training.callbacks import EpochRecorder, RunWriter, StepMonitor
    from pyreid.training.module import ReIDModule
    from pyreid.training.progress import TrainingProgress

    module = ReIDModule(model, objective, recipe)
    monitor = StepMonitor(objective.names, [record.path for record in dataset.train])
    recorder = EpochRecorder(monitor, dataset, recipe, data.image_input)
    callbacks: list[Any] = [monitor, recorder]
    if progress:
        callbacks.append(TrainingProgress(monitor, recorder))
    if recipe.swag is not None:
        callbacks.insert(2, CycleAverager(folder, recipe, dataset, data, recorder))
    callbacks.append(RunWriter(folder, recipe, recorder, facts))
    finished_steps = int(checkpoint["global_step"]) if checkpoint is not None else 0
    del checkpoint
    with _quiet_lightning(), _restored_globals():
        trainer = _make_trainer(recipe, folder, callbacks, resumed_after=finished_steps)
        _run(trainer, module, data, folder.last_checkpoint if finished_steps else None)
    return _result(folder, recorder.history, recorder.best, recorder.result)


def _make_trainer(recipe: Recipe, folder: RunFolder, callbacks: list[Any], *, resumed_after: int) -> L.Trainer:
    import lightning as L
    from lightning.pytorch.loggers import TensorBoardLogger

    settings = recipe.trainer
    # Events of an epoch that was interrupted are taken back when it is run again.
    purge: dict[str, Any] = {"purge_step": resumed_after + 1} if resumed_after else {}
    events = TensorBoardLogger(folder.root, name=folder.tensorboard.name, version="", default_hp_metric=False, **purge)
    return L.Trainer(
        default_root_dir=folder.root,
        logger=events,
        callbacks=callbacks,
        # Lightning's own "auto" may take devices that the operators of this package do not run on.
        accelerator="gpu" if _on_gpu(recipe) else "cpu",
        devices=list(settings.devices) if isinstance(settings.devices, tuple) else 1,
        precision="32-true" if settings.precision == "32" else settings.precision,
        max_epochs=settings.epochs,
        gradient_clip_val=settings.grad_clip,
        gradient_clip_algorithm="norm",
        accumulate_grad_batches=settings.accumulate,
        deterministic=settings.deterministic or None,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
        log_every_n_steps=settings.log_every,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _run(trainer: L.Trainer, module: Any, data: Any, checkpoint: Path | None) -> None:
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit:
        # Lightning turns Ctrl-C into an exit.
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise


def _on_gpu(recipe: Recipe) -> bool:
    return recipe.trainer.accelerator != "cpu" and torch.cuda.is_available()


def _check_device(recipe: Recipe) -> None:
    settings = recipe.trainer
    if settings.accelerator == "gpu" and not torch.cuda.is_available():
        raise RecipeError(
            "'trainer.accelerator' is 'gpu', but this machine has no usable CUDA device; use 'auto' or 'cpu'"
        )
    on_gpu = _on_gpu(recipe)
    if settings.precision == "16-mixed" and not on_gpu:
        raise RecipeError("'trainer.precision' is '16-mixed', which needs a CUDA device; use 'bf16-mixed' or '32'")
    if settings.devices != 1:
        index = settings.devices[0] if isinstance(settings.devices, tuple) else 0
        if not on_gpu or index >= torch.cuda.device_count():
            raise RecipeError(
                f"'trainer.devices' is [{index}], but there are {torch.cuda.device_count() if on_gpu else 0} CUDA "
                "devices to choose from; use 1"
            )


def _result(
    folder: RunFolder,
    history: list[dict[str, Any]],
    best: dict[str, Any] | None,
    evaluation: EvaluationResult | None,
) -> TrainingResult:
    evaluated = [row for row in history if "mAP" in row]
    if best is None:
        raise TrainingError(f"run {folder.root}: no epoch was evaluated")
    return TrainingResult(
        output_dir=folder.root,
        history=tuple(history),
        best_epoch=best["epoch"],
        best_map=best["mAP"],
        last_map=evaluated[-1]["mAP"],
        best_checkpoint=folder.best_checkpoint,
        last_checkpoint=folder.last_checkpoint,
        metrics_csv=folder.metrics_csv,
        evaluation=evaluation,
    )


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Without Lightning's notes on devices, tips and advertisements; its errors still come through."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            # Advice on what the recipe decides, and its own use of what PyTorch deprecates.
            for category in (UserWarning, FutureWarning, DeprecationWarning):
                warnings.filterwarnings("ignore", category=category, module=r"lightning\..*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _restored_globals() -> Iterator[None]:
    """Puts back what Lightning sets for the whole process."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    benchmark = torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.benchmark = benchmark
