"""Loggers by name."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pyreid.errors import MissingDependencyError
from pyreid.training import Recipe, train

pytestmark = pytest.mark.filterwarnings("ignore::pyreid.data.DatasetWarning")


def test_a_missing_package_is_named_before_anything_is_written(
    make_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingDependencyError, match=r"'trainer\.logger' is 'wandb', but .*'pyreid\[wandb\]'"):
        train(make_recipe("trainer.logger=wandb"), output_dir=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_wandb_offline(make_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    train(make_recipe("trainer.logger=wandb"), output_dir=tmp_path / "run", progress=False)
    assert list((tmp_path / "run/wandb").glob("offline-run-*"))
    assert not (tmp_path / "run/tensorboard").exists()
