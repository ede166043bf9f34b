"""The model that an argument of the command line means: one of the zoo, a run, or a checkpoint of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn

    from pyreid.inference import ImageInput
    from pyreid.training.recipe import Recipe

FRESH = "none"  # in place of a weights file


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A network with its weights.

    Attributes:
        network: in training mode, without a classifier.
        name: of the model in the zoo.
        label: for people: the name, or that of the run's folder.
        images: what its images look like.
        recipe: of the run; None for a model by name.
    """

    network: nn.Module
    name: str
    label: str
    images: ImageInput
    recipe: Recipe | None


def find_run(name: str) -> Path | None:
    """The folder of a run or the checkpoint that ``name`` means; None for a model of the zoo.

    A model's name wins against a file or folder of the current directory, unless that is the folder of a run; a slash
    (``./rmnet``) makes it a path.

    Raises:
        ValueError: neither a model nor a path; the message offers close names.
        FileNotFoundError: a path with a slash to nothing.
    """
    from pyreid.models import list_models, model_entry

    path = Path(name)
    if name in list_models() and not (path / "recipe.yaml").is_file():
        return None
    if not path.exists():
        if os.sep in name:
            raise FileNotFoundError(f"model: {name}: no such folder or file")
        model_entry(name)  # says which names there are
    return path


def open_model(
    name: str,
    weights: str | None,
    *,
    overrides: Mapping[str, Any] | None = None,
    partial: Literal["error", "warn"] = "error",
) -> Opened:
    """Make the network that ``name`` means and load its weights.

    Args:
        name: see :func:`find_run`.
        weights: a weights file, ``"timm"`` or ``"none"``; None for a run's best weights, and fresh ones of a model.
        overrides: settings of a model by name.
        partial: what a weights file gives that holds a backbone only.

    Raises:
        ValueError, FileNotFoundError: ``name`` is neither a model nor a run, or an option does not go with it.
        pyreid.errors.WeightsError: the weights are not there, do not fit, or hold a backbone only.
    """
    from pyreid.inference.images import resolve_input
    from pyreid.inference.weights import load_embedding_weights
    from pyreid.models import create_model

    path = find_run(name)
    if path is None:
        network = create_model(name, **(overrides or {}))
        if weights not in (None, FRESH):
            load_embedding_weights(network, weights, partial=partial)
        return Opened(network=network, name=name, label=name, images=resolve_input(network), recipe=None)

    root = path.absolute() if path.is_dir() else path.absolute().parent.parent
    if not (root / "recipe.yaml").is_file():
        kind = "the folder of a run" if path.is_dir() else "a checkpoint in RUN/checkpoints"
        raise FileNotFoundError(f"model: {name}: expected {kind}, but there is no {root / 'recipe.yaml'}")
    if weights is not None and path.is_file():
        raise ValueError(f"weights: {name} has its own; give the folder of the run with --weights")
    if weights == FRESH:
        raise ValueError(
            f"weights: got {FRESH!r} for the run {name}, expected a file; without --weights it is its best"
        )
    if overrides:
        raise ValueError(f"--set: {name} is a run, which has its own settings")

    from pyreid.training import load_recipe
    from pyreid.training.datamodule import image_input
    from pyreid.training.run_folder import RunFolder

    recipe = load_recipe(str(root / "recipe.yaml"), [])
    network = create_model(recipe.model.name, **recipe.model.overrides)
    found = weights or str(path if path.is_file() else RunFolder(root).best_checkpoint)
    load_embedding_weights(network, found, partial=partial)
    images = image_input(network, recipe.data)
    return Opened(network=network, name=recipe.model.name, label=root.name, images=images, recipe=recipe)
