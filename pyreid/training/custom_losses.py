"""Losses of the user's own, which a recipe takes from a file or a module."""

from __future__ import annotations

import copy
import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from pyreid.data import SampleKey
from pyreid.errors import RecipeError
from pyreid.training.recipe_errors import suggest
from pyreid.training.references import is_file, split_reference
from pyreid.training.settings.losses import CustomSettings

if TYPE_CHECKING:
    from pyreid.models.base import ReIDModel
    from pyreid.training.datamodule import ReIDDataModule
    from pyreid.training.objectives import Objective
    from pyreid.training.settings.data import SamplerSettings

_EXPECTED = "expected an nn.Module class, or a function that returns an nn.Module"


def make_custom_loss(settings: CustomSettings, *, index: int) -> nn.Module:
    """The loss that ``settings`` names, built with its options; the file or module is run.

    Args:
        settings: an item of the ``losses`` of a recipe.
        index: its position, for messages.

    Raises:
        RecipeError: there is no such file, module or name, it cannot be imported, the options do not fit, or the
            result is not an ``nn.Module``.
    """
    key = _key(settings, index)
    where, name = split_reference(settings.loss)
    module = _load_file(Path(where), key) if is_file(where) else _load_module(where, key)
    if not hasattr(module, name):
        own = [n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module.__name__]
        raise RecipeError(f"{key}, but {where} has no {name!r}{suggest(name, sorted(own))}")
    factory = getattr(module, name)
    if not callable(factory) or isinstance(factory, nn.Module):
        raise RecipeError(f"{key}, which is a {type(factory).__name__}; {_EXPECTED}")
    if isinstance(factory, type) and not issubclass(factory, nn.Module):
        raise RecipeError(f"{key}, which is no nn.Module; {_EXPECTED}")
    _check_options(factory, settings, index)
    try:
        loss = factory(**settings.options)
    except Exception as error:
        raise RecipeError(
            f"'losses.{index}.options' is {settings.options}, with which {settings.loss} fails: {_told(error)}"
        ) from error
    if not isinstance(loss, nn.Module):
        raise RecipeError(f"{key}, which returns a {type(loss).__name__}; {_EXPECTED}")
    return loss


def evaluate_custom_loss(loss: nn.Module, value: Tensor, labels: Tensor) -> Tensor:
    """The loss in float32: as for all losses, mixed precision ends before it."""
    with torch.autocast(value.device.type, enabled=False):
        result: Tensor = loss(value, labels)
    return result.float()


def check_custom_losses(objective: Objective, model: ReIDModel, data: ReIDDataModule, sampler: SamplerSettings) -> None:
    """Try the custom losses on a batch as the sampler makes them; neither they nor the model change.

    Raises:
        RecipeError: a loss fails, or its result is not a finite scalar with a gradient.
    """
    from pyreid.training.objectives import pick
    from pyreid.training.preflight import forward_once

    chosen = [(i, item) for i, item in enumerate(objective.settings) if isinstance(item, CustomSettings)]
    if not chosen:
        return
    batch = default_collate([data.images[key] for key in _probe_keys(data.images.labels, sampler)])
    output = forward_once(copy.deepcopy(model).train(), batch.image)
    for index, item in chosen:
        value = pick(output, item).detach().requires_grad_()
        kind, source = ("logits", item.logits) if item.logits is not None else ("embedding", item.embedding)
        what = f"on the {kind} {source!r} {tuple(value.shape)} and labels {tuple(batch.label.shape)}"
        key = _key(item, index)
        try:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(0)
                result = copy.deepcopy(objective.terms[index]).train()(value, batch.label)
        except Exception as error:
            raise RecipeError(f"{key}, which fails {what}: {_told(error)}") from error
        if not isinstance(result, Tensor):
            raise RecipeError(f"{key}, which returns a {type(result).__name__} {what}; expected a scalar tensor")
        if result.shape != () or not result.is_floating_point():
            raise RecipeError(
                f"{key}, which returns {result.dtype} of shape {tuple(result.shape)} {what}; expected a scalar float"
            )
        if not torch.isfinite(result):
            raise RecipeError(
                f"{key}, which is {float(result.detach())} {what} before the first step; expected a finite number"
            )
        if not result.requires_grad:
            raise RecipeError(f"{key}, whose result {what} has no gradient; does it detach its input?")


def _probe_keys(labels: tuple[int, ...], sampler: SamplerSettings) -> list[SampleKey]:
    """A batch as the sampler makes them: a loss may need so many identities, or images of each."""
    size = sampler.num_ids * sampler.num_instances
    if sampler.batches == "shuffled":
        return [SampleKey(i * len(labels) // size, 0) for i in range(size)]
    images: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        images.setdefault(label, []).append(index)
    groups = list(images.values())[: sampler.num_ids]
    return [SampleKey(group[i % len(group)], i // len(group)) for group in groups for i in range(sampler.num_instances)]


def _check_options(factory: Callable[..., Any], settings: CustomSettings, index: int) -> None:
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return  # compiled code without a signature: the call itself will tell
    try:
        signature.bind(**settings.options)
    except TypeError as error:
        known = [p.name for p in signature.parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        unknown = [option for option in settings.options if option not in known]
        hint = suggest(unknown[0], known) if unknown else ""
        if not isinstance(factory, type):
            hint += f"; {_EXPECTED}"
        raise RecipeError(
            f"'losses.{index}.options' is {settings.options}, but {settings.loss} takes {signature}: {error}{hint}"
        ) from None


def _load_file(path: Path, key: str) -> ModuleType:
    """Run a Python file as a module of its own; it may import what lies beside it."""
    if not path.is_file():
        known = sorted(other.name for other in path.parent.glob("*.py"))
        raise RecipeError(f"{key}, but there is no such file{suggest(path.name, known)}")
    name = f"_pyreid_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RecipeError(f"{key}, but {path} is no Python file; expected FILE.py:NAME")
    module = importlib.util.module_from_spec(spec)
    folder = str(path.parent)
    sys.modules[name] = module  # dataclasses and pickles look there
    sys.path.append(folder)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f" in line {lines[-1]}" if lines else ""
        raise RecipeError(f"{key}, but {path} cannot be imported{where}: {_told(error)}") from error
    finally:
        sys.path.remove(folder)
    return module


def _load_module(name: str, key: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise RecipeError(f"{key}, but {name} cannot be imported: {_told(error)}") from error


def _key(settings: CustomSettings, index: int) -> str:
    return f"'losses.{index}.loss' is {settings.loss!r}"


def _told(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
