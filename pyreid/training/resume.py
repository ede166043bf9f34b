"""Whether a run in a folder may be continued with a recipe."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from pyreid.errors import TrainingError
from pyreid.training.recipe import Recipe
from pyreid.training.references import comparable_reference

# Keys that may differ between a run and its continuation: they do not change what is learned.
FREE_KEYS = (
    "name",
    "description",
    "paper",
    "data.root",
    "data.workers",
    "trainer.epochs",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.strategy",
    "trainer.early_stopping",
    "trainer.logger",
    "trainer.evaluate_every",
    "trainer.log_every",
    "evaluation.max_rank",
    "evaluation.batch_size",
    "evaluation.rerank",
    "evaluation.stages",
)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of this package to the CPU, without running code from it.

    Raises:
        TrainingError: the file is missing, damaged or something else.
    """
    if not path.is_file():
        raise TrainingError(f"checkpoint {path}: no such file")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        # torch's own message proposes to load without safety, which is no advice for a damaged file
        raise TrainingError(f"checkpoint {path}: damaged, cut off, or no checkpoint at all") from error
    if not isinstance(checkpoint, dict) or "pyreid" not in checkpoint or "state_dict" not in checkpoint:
        raise TrainingError(f"checkpoint {path}: not a checkpoint of `pyreid train` (for bare weights use --weights)")
    return checkpoint


def check_resumable(
    checkpoint: Mapping[str, Any], recipe: Recipe, *, fingerprint: str, path: Path, world: int = 1
) -> None:
    """Refuse to continue a run with settings or images that would make it another run.

    Raises:
        TrainingError: names the keys that differ, with both values.
    """
    saved = checkpoint["pyreid"]
    changed = changed_keys(with_new_keys(saved["recipe"]), recipe.model_dump(mode="json"))
    decay = recipe.schedule.decay.type
    if decay in ("cosine", "exponential") and saved["recipe"]["trainer"]["epochs"] != recipe.trainer.epochs:
        # They end with the last epoch, so another number of epochs is another learning rate everywhere.
        before, after = saved["recipe"]["trainer"]["epochs"], recipe.trainer.epochs
        changed.append(f"trainer.epochs (was {before}, is {after}; the {decay} schedule depends on it)")
    if saved["world"] != world:
        changed.append(f"trainer.devices (was {saved['world']} processes, is {world}; a step sees a batch of each)")
    if changed:
        raise TrainingError(
            f"cannot resume {path} with other settings: {', '.join(changed)}; "
            "give the settings of the run, or start a new run in another folder"
        )
    done = len(saved["history"])
    if done > recipe.trainer.epochs:
        raise TrainingError(f"cannot resume {path}: it has {done} epochs, trainer.epochs is {recipe.trainer.epochs}")
    if saved["fingerprint"] != fingerprint:
        raise TrainingError(
            f"cannot resume {path}: the training images in {recipe.data.root} are not those of the run "
            "(file names, identities or cameras differ)"
        )


def with_new_keys(saved: Mapping[str, Any]) -> Mapping[str, Any]:
    """A dumped recipe, perhaps of an earlier version, with the keys that came since, whose defaults change nothing."""
    try:
        return Recipe.model_validate(dict(saved)).model_dump(mode="json")
    except ValidationError:  # of keys that are gone, which changed_keys will name
        return saved


def changed_keys(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Dotted keys, with both values, in which two dumped recipes differ; free keys are left out.

    The folder of a custom loss's file is free, too.
    """
    old, new = dict(_flatten(before)), dict(_flatten(after))
    keys = [key for key in {**old, **new} if _differ(key, old.get(key, _ABSENT), new.get(key, _ABSENT))]
    return [f"{key} (was {old.get(key, _ABSENT)!r}, is {new.get(key, _ABSENT)!r})" for key in keys]


class _Absent:
    def __repr__(self) -> str:
        return "not set"


_ABSENT = _Absent()


def _differ(key: str, before: Any, after: Any) -> bool:
    if re.fullmatch(r"losses\.\d+\.loss", key) and isinstance(before, str) and isinstance(after, str):
        return comparable_reference(before) != comparable_reference(after)
    return bool(before != after) and not _is_free(key)


def _is_free(key: str) -> bool:
    return any(key == free or key.startswith(free + ".") for free in FREE_KEYS)


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flatten(item, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list | tuple) and value:
        for index, item in enumerate(value):
            yield from _flatten(item, f"{prefix}.{index}")
    else:
        yield prefix, value
