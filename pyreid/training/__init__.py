"""Training: recipes, the Lightning module and data module, callbacks, and the loop that ties them together.

Names load on first use: reading recipes needs neither torch nor Lightning.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pyreid.errors import require

if TYPE_CHECKING:
    from pyreid.training.engine import TrainingResult, train
    from pyreid.training.features import evaluate_model, extract_features
    from pyreid.training.recipe import Recipe
    from pyreid.training.recipe_files import dump_recipe, find_recipe, list_recipes, load_recipe, recipe_dirs
    from pyreid.training.repeated import train_repeatedly

_NAMES = {
    "Recipe": "recipe",
    "TrainingResult": "engine",
    "dump_recipe": "recipe_files",
    "evaluate_model": "features",
    "extract_features": "features",
    "find_recipe": "recipe_files",
    "list_recipes": "recipe_files",
    "load_recipe": "recipe_files",
    "recipe_dirs": "recipe_files",
    "train": "engine",
    "train_repeatedly": "repeated",
}
__all__ = [
    "Recipe",
    "TrainingResult",
    "dump_recipe",
    "evaluate_model",
    "extract_features",
    "find_recipe",
    "list_recipes",
    "load_recipe",
    "recipe_dirs",
    "train",
    "train_repeatedly",
]


_NEEDS = {
    "engine": ("lightning", "tensorboard", "torchvision"),
    "repeated": ("lightning", "tensorboard", "torchvision"),
    "features": ("lightning", "torchvision"),
}


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        for package in _NEEDS.get(_NAMES[name], ()):
            require(package, extra="train")
        return getattr(importlib.import_module(f"pyreid.training.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'pyreid.training' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
