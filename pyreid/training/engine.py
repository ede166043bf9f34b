"""Training a recipe from start to end."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pyreid._files import write_text
from pyreid.data import load_dataset
from pyreid.errors import DatasetError, RecipeError, TrainingError
from pyreid.training.devices import check_devices, device_of_rank, on_gpu
from pyreid.training.early_stopping import has_stalled, is_finished
from pyreid.training.last_evaluation import FurtherResults, check_further
from pyreid.training.preflight import check_losses, check_training_data, fingerprint, make_model
from pyreid.training.processes import Ranks, agree, current_ranks, from_first, joined
from pyreid.training.recipe import Recipe
from pyreid.training.recipe_files import dump_recipe
from pyreid.training.resume import check_resumable, load_checkpoint
from pyreid.training.run_folder import RunFolder

if TYPE_CHECKING:
    import lightning as L

    from pyreid.data import ReIDDataset
    from pyreid.evaluation import EvaluationResult, RepeatedResult


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
        reranked: that of re-ranked distances, with ``evaluation.rerank``; likewise.
        stages: those of the model's exits by name, with ``evaluation.stages``; empty when a finished run was resumed.
        stopped_early: whether ``trainer.early_stopping`` ended the run.
    """

    output_dir: Path
    history: tuple[dict[str, Any], ...]
    best_epoch: int
    best_map: float
    last_map: float
    best_checkpoint: Path
    last_checkpoint: Path
    metrics_csv: Path
    evaluation: EvaluationResult | RepeatedResult | None
    reranked: EvaluationResult | RepeatedResult | None = None
    stages: Mapping[str, EvaluationResult | RepeatedResult] = field(default_factory=dict)
    stopped_early: bool = False


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

    With ``trainer.devices`` above 1 it starts that many processes on this machine. Where ``torchrun`` has started the
    processes, or torch.distributed is initialised, every process calls it, and all get the result; the folder must
    be the same for all of them.

    Args:
        recipe: see :func:`pyreid.training.load_recipe`; ``data.root`` must be set.
        output_dir: the folder of the run; see :mod:`pyreid.training.run_folder`.
        resume: continue the run in ``output_dir`` after its last finished epoch; one that was interrupted in its first
            starts anew.
        overwrite: replace the run in ``output_dir``.
        progress: show bars and a line per epoch.

    Raises:
        TrainingError: the folder does not fit, or a loss or gradient is not finite.
        RecipeError: a setting does not fit the data set or the machine.
        DatasetError: the data set is incomplete.
        MissingDependencyError: a package of the extra ``train`` is missing.
    """
    ranks = current_ranks()
    check_devices(recipe, ranks)
    options = {"output_dir": Path(output_dir), "resume": resume, "overwrite": overwrite, "progress": progress}
    if ranks.world == 1 and recipe.trainer.num_devices > 1:
        from pyreid.training.launch import launch

        # What is wrong with the folder or the data shows before any process starts.
        RunFolder(Path(output_dir)).check(resume=resume, overwrite=overwrite)
        check_training_data(open_dataset(recipe), recipe)
        return launch(recipe, recipe.trainer.num_devices, options)
    with joined(device_of_rank(recipe, ranks)) as ranks:
        return _train(recipe, RunFolder(Path(output_dir)), ranks, resume, overwrite, progress and ranks.rank == 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What a run is made of, once everything has been checked."""

    dataset: ReIDDataset
    model: Any
    objective: Any
    data: Any
    facts: dict[str, Any]
    checkpoint: dict[str, Any] | None


def _train(
    recipe: Recipe, folder: RunFolder, ranks: Ranks, resume: bool, overwrite: bool, progress: bool
) -> TrainingResult:
    from pyreid.training.callbacks import write_metrics
    from pyreid.training.randomness import seed_rank

    if from_first(resume and not overwrite and folder.is_begun()):
        resume, overwrite = False, True
    parts, error = None, None
    try:
        parts = _prepare(recipe, folder, ranks, resume, overwrite)
    except Exception as problem:
        error = problem
    agree(error)
    assert parts is not None
    saved = parts.checkpoint["pyreid"] if parts.checkpoint is not None else None
    finished = saved is not None and is_finished(saved["history"], recipe.trainer)
    error = None
    try:
        if ranks.rank == 0:
            if not finished:
                folder.drop_summary()
            if overwrite:
                folder.clear()
            folder.remove_leftovers()
            write_text(folder.recipe, dump_recipe(recipe))
    except Exception as problem:
        error = problem
    agree(error)

    if saved is not None and finished:
        history = saved["history"]
        best = next((row for row in history if row["epoch"] == saved["best_epoch"]), None)
        if ranks.rank == 0:
            write_metrics(folder, recipe, history, best, dataset=parts.facts["dataset"])
        return _result(recipe, folder, history, best, None, FurtherResults())
    seed_rank(recipe.seed, ranks.rank)
    return _fit(recipe, folder, parts, ranks, progress)


def _run_id(recipe: Recipe, checkpoint: dict[str, Any] | None) -> str | None:
    """By which the logger knows the run, if it wants to know."""
    from pyreid.training.loggers import new_run_id

    if recipe.trainer.logger == "tensorboard":
        return None
    return (checkpoint["pyreid"]["run_id"] if checkpoint is not None else None) or new_run_id()


def _prepare(recipe: Recipe, folder: RunFolder, ranks: Ranks, resume: bool, overwrite: bool) -> _Parts:
    """Everything that can fail before the first step; no file is written."""
    from pyreid.training.custom_losses import check_custom_losses
    from pyreid.training.datamodule import ReIDDataModule, image_input
    from pyreid.training.loggers import check_logger
    from pyreid.training.objectives import Objective, needs_classifier
    from pyreid.training.randomness import seed_everything

    if ranks.rank == 0:
        folder.check(resume=resume, overwrite=overwrite)
    check_logger(recipe)
    with warnings.catch_warnings():
        if ranks.rank != 0:
            warnings.simplefilter("ignore")  # rank 0 says the same
        dataset = open_dataset(recipe)
        check_training_data(dataset, recipe)
    facts: dict[str, Any] = {"dataset": describe_dataset(dataset, recipe)}
    checkpoint = None
    if resume:
        checkpoint = load_checkpoint(folder.last_checkpoint)
        check_resumable(checkpoint, recipe, fingerprint=fingerprint(dataset), path=folder.root, world=ranks.world)
    num_classes = dataset.num_train_ids
    seed_everything(recipe.seed)
    # A resumed run gets its weights from the checkpoint; the file it once started from may be gone.
    weights = None if resume else recipe.model.weights
    classes = num_classes if needs_classifier(recipe.losses) else 0
    model = make_model(recipe, num_classes=classes, weights=weights)
    check_further(recipe.evaluation, dataset, model)
    images = image_input(model, recipe.data)
    data = ReIDDataModule(dataset, recipe, images)
    if not len(data.sampler):
        raise RecipeError(
            f"'trainer.devices' makes {ranks.world} processes, but an epoch has {len(data.sampler.sampler)} batches"
        )
    widths = check_losses(model, data, recipe, num_classes=num_classes)
    objective = Objective(recipe.losses, num_classes=num_classes, widths=widths, weighting=recipe.loss_weighting)
    check_custom_losses(objective, model, data, recipe.sampler)
    facts |= {
        "num_classes": num_classes,
        "fingerprint": fingerprint(dataset),
        "world": ranks.world,
        "run_id": _run_id(recipe, checkpoint),
    }
    return _Parts(dataset=dataset, model=model, objective=objective, data=data, facts=facts, checkpoint=checkpoint)


def describe_dataset(dataset: ReIDDataset, recipe: Recipe) -> dict[str, Any]:
    """For ``metrics.json``: the data set's name, whether it is a synthetic one, and the rule it is evaluated by.

    Raises:
        RecipeError: the data set has no such protocol.
    """
    from pyreid.data.layouts import synthetic_manifest
    from pyreid.training.features import choose_protocol

    protocol = choose_protocol(dataset, recipe.evaluation)
    return {
        "name": dataset.name,
        "synthetic": synthetic_manifest(dataset.root, dataset.name) is not None,
        "protocol": protocol.name,
        "ap": protocol.ap,
        "no_match": protocol.no_match,
    }


def open_dataset(recipe: Recipe) -> ReIDDataset:
    """The data set of a recipe.

    Raises:
        RecipeError: ``data.root`` is not set, or the data set is unknown.
        DatasetError: it is not there or incomplete.
    """
    from pyreid.data import list_datasets
    from pyreid.data.registry import get_layout, missing_root
    from pyreid.training.recipe_errors import suggest

    if recipe.data.dataset not in list_datasets():
        raise RecipeError(f"'data.dataset' is {recipe.data.dataset!r}{suggest(recipe.data.dataset, list_datasets())}")
    if recipe.data.root is None:
        raise RecipeError(f"'data.root' is not set; give the folder of {recipe.data.dataset}: data.root=FOLDER")
    root = Path(recipe.data.root).expanduser()
    missing = missing_root(get_layout(recipe.data.dataset), root)
    if missing is not None:
        raise DatasetError(f"'data.root' is {recipe.data.root!r}: {missing}")
    try:
        return load_dataset(recipe.data.dataset, root)
    except DatasetError as error:
        raise DatasetError(
            f"'data.root' is {recipe.data.root!r}, read as 'data.dataset' {recipe.data.dataset}: {error}"
        ) from error


def _fit(recipe: Recipe, folder: RunFolder, parts: _Parts, ranks: Ranks, progress: bool) -> TrainingResult:
    from pyreid.training.averaging import CycleAverager
    from pyreid.training.callbacks import EpochRecorder, RunWriter, StepMonitor
    from pyreid.training.loggers import ended_run
    from pyreid.training.module import ReIDModule
    from pyreid.training.progress import TrainingProgress

    module = ReIDModule(parts.model, parts.objective, recipe)
    monitor = StepMonitor(parts.objective.names, [record.path for record in parts.dataset.train])
    recorder = EpochRecorder(monitor, parts.dataset, recipe, parts.data.image_input)
    callbacks: list[Any] = [monitor, recorder]
    if progress:
        callbacks.append(TrainingProgress(monitor, recorder))
    if recipe.swag is not None:
        callbacks.insert(2, CycleAverager(folder, recipe, parts.dataset, parts.data, recorder))
    facts = from_first(parts.facts)  # the id of a new run is drawn
    callbacks.append(RunWriter(folder, recipe, recorder, facts))
    finished_steps = int(parts.checkpoint["global_step"]) if parts.checkpoint is not None else 0
    with _quiet_lightning(), _restored_globals(), ended_run(recipe):
        trainer = _make_trainer(recipe, folder, callbacks, ranks, facts["run_id"], resumed_after=finished_steps)
        _run(trainer, module, parts.data, folder.last_checkpoint if finished_steps else None)
    return _result(recipe, folder, recorder.history, recorder.best, recorder.result, recorder.further)


def _make_trainer(
    recipe: Recipe, folder: RunFolder, callbacks: list[Any], ranks: Ranks, run_id: str | None, *, resumed_after: int
) -> L.Trainer:
    import lightning as L

    from pyreid.training.loggers import make_logger
    from pyreid.training.strategy import make_strategy

    settings = recipe.trainer
    return L.Trainer(
        default_root_dir=folder.root,
        logger=make_logger(recipe, folder, run_id=run_id, resumed_after=resumed_after),
        callbacks=callbacks,
        # Lightning's own "auto" may take devices that the operators of this package do not run on.
        accelerator="gpu" if on_gpu(recipe) else "cpu",
        devices=list(settings.devices) if isinstance(settings.devices, tuple) else ranks.local_world,
        num_nodes=ranks.num_nodes,
        strategy=make_strategy(ranks, device_of_rank(recipe, ranks)),
        sync_batchnorm=settings.sync_batchnorm,
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
    except SystemExit as done:
        # Lightning turns Ctrl-C into an exit; others, such as that of the command line on SIGTERM, are what they are.
        if isinstance(done.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise


def _result(
    recipe: Recipe,
    folder: RunFolder,
    history: list[dict[str, Any]],
    best: dict[str, Any] | None,
    evaluation: EvaluationResult | RepeatedResult | None,
    further: FurtherResults,
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
        reranked=further.reranked,
        stages=further.stages,
        stopped_early=has_stalled(history, recipe.trainer.early_stopping),
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
