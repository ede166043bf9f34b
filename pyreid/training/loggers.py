"""The logger that a recipe names."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyreid.errors import MissingDependencyError, require
from pyreid.training.recipe import Recipe
from pyreid.training.run_folder import RunFolder


def check_logger(recipe: Recipe) -> None:
    """Whether the package of the logger is there.

    Raises:
        MissingDependencyError: it is not; names the key of the recipe.
    """
    name = recipe.trainer.logger
    if name == "wandb":
        try:
            require("wandb", extra="wandb")
        except MissingDependencyError as error:
            raise MissingDependencyError(f"'trainer.logger' is {name!r}, but {error}") from error


def new_run_id() -> str:
    """By which a service knows a run, also when it is resumed."""
    return uuid.uuid4().hex[:12]


@contextmanager
def ended_run(recipe: Recipe) -> Iterator[None]:
    """Ends the run of W&B that begins within: a process has one at a time, in which the next training would go on.

    A run that is there already is the caller's, and stays.
    """
    if recipe.trainer.logger != "wandb":
        yield
        return
    import wandb

    own = wandb.run is None
    try:
        yield
    except BaseException:
        if own and wandb.run is not None:
            wandb.finish(exit_code=1)
        raise
    if own and wandb.run is not None:
        wandb.finish()


def make_logger(recipe: Recipe, folder: RunFolder, *, run_id: str | None, resumed_after: int) -> Any:
    """The Lightning logger.

    Args:
        recipe: of the run.
        folder: of the run.
        run_id: from :func:`new_run_id`, the same when resumed; None for TensorBoard.
        resumed_after: steps done by a run that is resumed, or 0.
    """
    if recipe.trainer.logger == "wandb":
        from lightning.pytorch.loggers import WandbLogger

        folder.root.mkdir(parents=True, exist_ok=True)
        return WandbLogger(
            name=recipe.name, save_dir=folder.root, id=run_id, resume="allow", project="pyreid", log_model=False
        )
    from lightning.pytorch.loggers import TensorBoardLogger

    # Events of an epoch that was interrupted are taken back when it is run again.
    purge: dict[str, Any] = {"purge_step": resumed_after + 1} if resumed_after else {}
    return TensorBoardLogger(folder.root, name=folder.tensorboard.name, version="", default_hp_metric=False, **purge)
