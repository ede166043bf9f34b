"""Recipes made small enough for a test: tiny images of a synthetic set, batches of 2 x 2, the CPU."""

from __future__ import annotations

import json
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

from pyreid.data import synthesize
from pyreid.models import resolve_config
from pyreid.training import Recipe, list_recipes, load_recipe

SETS = {"num_train_ids": 4, "num_test_ids": 8, "images_per_id": 6, "num_cameras": 4, "size": (32, 16)}
SIDE = 64  # pixels of the longer side of an image, unless a network needs more

STEP = 1e-4  # learning rate: the gradients of four images throw a fresh network far off with that of a recipe


@cache
def loaded(name: str) -> Recipe:
    """A recipe as it is shipped."""
    return load_recipe(name)


def write_set(dataset: str, root: Path) -> Path:
    """A tiny synthetic set in the layout of a data set."""
    synthesize(dataset, root, **SETS, workers=1)  # type: ignore[arg-type]
    return root


def shrink(name: str, root: Path, *, least: tuple[int, int] = (1, 1), more: tuple[str, ...] = ()) -> Recipe:
    """A recipe with all its parts, on tiny images.

    Args:
        name: of the recipe.
        root: of the data set.
        least: smallest (height, width) that the network takes.
        more: further overrides.
    """
    recipe = loaded(name)
    height, width = recipe.data.size or (SIDE, SIDE)
    scale = SIDE / max(height, width)
    size = [max(side, round(scale * full)) for side, full in zip(least, (height, width), strict=True)]
    overrides = [
        f"data.root={root}",
        f"data.size={size}",
        f"data.pad={min(recipe.data.pad, 2)}",
        "data.workers=0",
        "model.weights=null",
        "sampler.num_ids=2",
        "sampler.num_instances=2",
        "evaluation.batch_size=16",
        f"optimizer.lr={min(recipe.optimizer.lr, STEP)}",
        "trainer.accelerator=cpu",
        "trainer.devices=1",
        "trainer.precision=32",
    ]
    if recipe.data.center_crop is not None:
        crop = [max(1, round(side * cut / full)) for side, cut, full in
                zip(size, recipe.data.center_crop, (height, width), strict=True)]  # fmt: skip
        overrides.append(f"data.center_crop={crop}")
    if recipe.schedule.cycles is not None:
        overrides.append(f"schedule.cycles.lr={min(recipe.schedule.cycles.lr, STEP)}")
    if recipe.mining is not None:
        overrides.append("mining.per_identity=4")
    if recipe.evaluation.rerank is not None:
        overrides.append("evaluation.rerank={k1: 4, k2: 2}")
    return load_recipe(name, [*overrides, *more])


def shorten(name: str) -> tuple[str, ...]:
    """Overrides for a run of one epoch, or two cycles of one, with the same kind of schedule and a small backbone."""
    recipe = loaded(name)
    schedule, epochs = recipe.schedule, 1
    overrides = ["trainer.evaluate_every=1", "trainer.log_every=1"]
    if hasattr(resolve_config(recipe.model.name), "backbone"):
        overrides.append("model.overrides.backbone=resnet10t")  # the two steps have the network itself
    if schedule.cycles is not None:
        epochs = 2
        overrides += ["schedule.cycles.begin=0", "schedule.cycles.count=2", "schedule.cycles.length=1"]
        overrides += ["schedule.warmup=null", "schedule.decay={type: constant}"]
    elif schedule.decay.type == "cosine":
        overrides.append("schedule.warmup=null")
    elif schedule.decay.type == "exponential":
        overrides.append("schedule.decay.start=0.5")
    if recipe.mining is None:
        overrides.append("trainer.iterations_per_epoch=2")
    if recipe.swag is not None and recipe.swag.samples > 1:
        overrides.append("swag.samples=1")
    return (*overrides, f"trainer.epochs={epochs}")


def groups() -> dict[str, list[str]]:
    """The recipes that take the same two steps but for numbers and images, by the name of the first of them."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in list_recipes():
        found[_key(loaded(name))].append(name)
    return {members[0]: members for members in found.values()}


def _key(recipe: Recipe) -> str:
    plain: dict[str, Any] = recipe.model_dump(mode="json")
    plain["model"].pop("weights")
    parts = {key: plain[key] for key in ("model", "losses", "loss_weighting")}
    parts["mining"] = None if recipe.mining is None else (recipe.mining.terms, recipe.mining.batches)
    parts["optimizer"] = {key: value for key, value in plain["optimizer"].items() if key not in ("lr", "weight_decay")}
    parts["sampler"] = (recipe.sampler.batches, recipe.sampler.epoch_of)
    parts["interval"] = recipe.schedule.interval
    return json.dumps(parts, sort_keys=True)


def one_of_each_paper() -> list[str]:
    """A recipe of each folder: one with averaged weights, rounds of mining or exits if there is one."""

    def order(name: str) -> tuple[bool, str]:
        recipe = loaded(name)
        return recipe.swag is None and recipe.mining is None and not recipe.evaluation.stages, name

    folders = {name.rpartition("/")[0] for name in list_recipes()}
    return [
        min((name for name in list_recipes() if name.rpartition("/")[0] == item), key=order) for item in sorted(folders)
    ]
