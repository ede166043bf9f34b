"""Loggers by name."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pyreid.errors import MissingDependencyError
from pyreid.training import Recipe, train, train_repeatedly
from pyreid.training.module import ReIDModule
from python_tests.training.test_resume import PowerCut

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


class FakeRun:
    """What Lightning's logger uses of a run of W&B."""

    def __init__(self, name: str, id: str) -> None:
        self.name, self.id, self.rows = name, id, list[dict[str, float]]()

    def define_metric(self, *args: Any, **options: Any) -> None:
        pass

    def log(self, row: dict[str, float]) -> None:
        self.rows.append(row)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stand-in for the package, which has one run at a time for the whole process; ``ended`` has the exit codes."""
    from lightning.pytorch.loggers import wandb as lightning_wandb

    module: Any = ModuleType("wandb")
    parts: dict[str, Any] = {name: ModuleType(name) for name in ("wandb.sdk", "wandb.sdk.lib", "wandb.wandb_run")}
    parts["wandb.sdk.lib"].RunDisabled = parts["wandb.wandb_run"].Run = FakeRun
    module.run, module.runs, module.ended = None, [], []

    def init(*, name: str, id: str, **options: Any) -> FakeRun:
        run = module.run = FakeRun(name, id)
        module.runs.append(run)
        return run

    def finish(exit_code: int | None = None) -> None:
        module.ended.append((module.run, exit_code))
        module.run = None

    module.init, module.finish = init, finish
    for name, part in {"wandb": module, **parts}.items():
        monkeypatch.setitem(sys.modules, name, part)
    monkeypatch.setattr(lightning_wandb, "_WANDB_AVAILABLE", True)
    return module


def test_each_repeated_run_is_a_run_of_wandb(make_recipe: Callable[..., Recipe], tmp_path: Path, wandb: Any) -> None:
    recipe = make_recipe("trainer.logger=wandb", "trainer.epochs=1")
    train_repeatedly(recipe, output_dir=tmp_path, repeat=2, progress=False)
    first, second = wandb.runs
    assert first.id != second.id
    assert all(any("train/loss" in row for row in run.rows) for run in wandb.runs)
    assert wandb.run is None
    assert wandb.ended == [(first, None), (second, None)]


def test_a_run_of_wandb_ends_with_an_error_and_that_of_others_stays(
    make_recipe: Callable[..., Recipe], tmp_path: Path, wandb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(module: ReIDModule, data: Any, batch_idx: int) -> None:
        raise PowerCut

    recipe = make_recipe("trainer.logger=wandb", "trainer.epochs=1")
    with monkeypatch.context() as patch:
        patch.setattr(ReIDModule, "training_step", cut)
        with pytest.raises(PowerCut):
            train(recipe, output_dir=tmp_path / "cut", progress=False)
    assert wandb.ended == [(wandb.runs[0], 1)]
    own = wandb.init(name="own", id="own")
    train(recipe, output_dir=tmp_path / "run", progress=False)
    assert wandb.run is own, "the run of the program that calls train is its own to end"
    assert own.rows
