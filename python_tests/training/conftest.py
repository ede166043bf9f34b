"""A tiny data set on disk, and recipes for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from pyreid.training import Recipe, load_recipe
from python_tests.training.tiny import RECIPE, write_market


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_market(tmp_path_factory.mktemp("market"))


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def make_recipe(recipe_file: Path, market: Path) -> Callable[..., Recipe]:
    """Builds the tiny recipe with overrides."""
    return lambda *overrides: load_recipe(recipe_file, [f"data.root={market}", *overrides])
