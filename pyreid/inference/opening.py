"""The model that a name or a path means: one of the zoo, a run, or a checkpoint of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, StrictInt, StrictStr, ValidationError
from torch import nn

from pyreid.errors import RecipeError, WeightsError
from pyreid.inference.crops import Crops
from pyreid.inference.embedding import Flip
from pyreid.inference.images import ImageInput, resolve_input
from pyreid.inference.weights import load_embedding_weights
from pyreid.models import create_model, list_models, model_entry
from pyreid.models.weights import SUFFIXES

FRESH = "none"  # in place of a weights file
# In the folder of a run, as training writes it.
RECIPE = "recipe.yaml"
CHECKPOINTS = "checkpoints"
BEST = "best.ckpt"
FIRST = "run-1"  # of repeated runs, in the folder of all


class _Model(BaseModel):
    name: StrictStr
    overrides: dict[StrictStr, Any] = Field(default_factory=dict)


class _Data(BaseModel):
    """The arguments of :func:`~pyreid.inference.images.resolve_input`."""

    size: tuple[StrictInt, StrictInt] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None


class _Evaluation(BaseModel):
    flip: Flip = "none"
    crops: Crops = "none"


class _Settings(BaseModel):
    """The part of a recipe that an embedding depends on."""

    model: _Model
    data: _Data = Field(default_factory=_Data)
    evaluation: _Evaluation = Field(default_factory=_Evaluation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A network with its weights.

    Attributes:
        network: in training mode, without a classifier.
        name: of the model in the zoo.
        label: for people: the name, or that of the run's folder.
        images: what its images look like.
        run: its folder; None for a model by name.
        flip: test-time augmentation that the run evaluates with; ``"none"`` for a model by name.
        crops: likewise.
    """

    network: nn.Module
    name: str
    label: str
    images: ImageInput
    run: Path | None = None
    flip: Flip = "none"
    crops: Crops = "none"


def find_run(model: str | os.PathLike[str]) -> Path | None:
    """The folder of a run or the checkpoint that ``model`` means; None for a model of the zoo.

    A model's name wins against a file or folder of the current directory, unless that is the folder of a run; a slash
    (``./rmnet``) makes it a path, as any ``os.PathLike`` is.

    Raises:
        ValueError: neither a model nor a path; the message offers close names.
        FileNotFoundError: a path to nothing; a name with a dot counts as one.
    """
    path = Path(model).expanduser()
    if isinstance(model, str) and model in list_models() and not (path / RECIPE).is_file():
        return None
    if path.exists() and os.fspath(model):  # an empty path would be the current folder
        return path
    if not isinstance(model, str) or os.sep in model or path.suffix:  # names have no dot
        raise FileNotFoundError(f"model: {model}: no such folder or file")
    try:
        model_entry(model)  # says which names there are
    except ValueError as error:
        raise ValueError(str(error).replace(";", ", and no folder or file of that name;", 1)) from None
    return path


def open_model(
    model: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None,
    *,
    overrides: Mapping[str, Any] | None = None,
    partial: Literal["error", "warn"] = "error",
) -> Opened:
    """Make the network that ``model`` means and load its weights.

    Of the recipe of a run only what an embedding depends on is read, so that a recipe that another version of pyreid
    has written does not stand in the way.

    Args:
        model: see :func:`find_run`.
        weights: a weights file, ``"timm"`` or ``"none"``; None for a run's best weights, and fresh ones of a model.
        overrides: settings of a model by name.
        partial: what a weights file gives that holds a backbone only.

    Raises:
        ValueError, FileNotFoundError: ``model`` is neither a model nor a run, or an option does not go with it.
        pyreid.errors.RecipeError: the recipe of the run cannot be read.
        pyreid.errors.WeightsError: the weights are not there, do not fit, or hold a backbone only.
    """
    path = find_run(model)
    if path is None:
        name = str(model)
        network = create_model(name, **(overrides or {}))
        opened = Opened(network=network, name=name, label=name, images=resolve_input(network))
        file = None if weights == FRESH else weights
    else:
        if overrides:
            raise ValueError(f"overrides (--set): {model} is a run, which has its own settings")
        if weights is not None and path.is_file():
            raise ValueError(f"weights: {model} has its own; give the folder of the run with other weights")
        if weights == FRESH:
            raise ValueError(f"weights: got {FRESH!r} for the run {model}, expected a file, or none for its best")
        opened = _open_run(path)
        file = weights or (path if path.is_file() else _best(path))
    if file is not None:
        load_embedding_weights(opened.network, file, partial=partial, stacklevel=4)
    return opened


def _open_run(path: Path) -> Opened:
    """The network of a run, given as its folder or a checkpoint, with fresh weights."""
    root = path.absolute() if path.is_dir() else path.absolute().parent.parent
    recipe = root / RECIPE
    if not recipe.is_file():
        first = path / FIRST
        if (first / RECIPE).is_file():
            raise FileNotFoundError(f"model: {path}: holds repeated runs; give one of them, such as {first}")
        if path.is_dir():
            raise FileNotFoundError(f"model: {path}: expected the folder of a run, but there is no {recipe}")
        if path.suffix in SUFFIXES:
            raise FileNotFoundError(
                f"model: {path}: expected a checkpoint in RUN/{CHECKPOINTS}, but there is no {recipe}; other weights "
                "go with a model's name, as weights"
            )
        raise ValueError(f"model: {path}: expected a model's name, the folder of a run or a checkpoint in it")
    settings = _read_settings(recipe)
    network = create_model(settings.model.name, **settings.model.overrides)
    return Opened(
        network=network,
        name=settings.model.name,
        label=root.name,
        images=resolve_input(network, **settings.data.model_dump()),
        run=root,
        flip=settings.evaluation.flip,
        crops=settings.evaluation.crops,
    )


def _best(run: Path) -> Path:
    best = run / CHECKPOINTS / BEST
    if not best.is_file():
        raise WeightsError(f"weights: no {best} yet, which a run writes at its first evaluation; name other weights")
    return best


def _read_settings(path: Path) -> _Settings:
    try:
        return _Settings.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the whole"
        raise RecipeError(f"recipe {path}: '{key}' is {first['input']!r:.60}: {first['msg']}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {path}: cannot be read as YAML ({' '.join(str(error).split())})") from error
