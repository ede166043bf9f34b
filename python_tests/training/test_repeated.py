"""The same recipe with several seeds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyreid.errors import TrainingError
from pyreid.training import Recipe, load_recipe, train, train_repeatedly
from pyreid.training.module import ReIDModule
from python_tests.training.test_resume import PowerCut, assert_same, interrupt, weights

pytestmark = pytest.mark.filterwarnings("ignore::pyreid.data.DatasetWarning")

MakeRecipe = Callable[..., Recipe]


def test_runs_have_their_seeds_and_are_those_of_train(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe("seed=5", "trainer.epochs=2")
    found = train_repeatedly(recipe, output_dir=tmp_path / "all", repeat=3, progress=False)
    seeds = [load_recipe(tmp_path / f"all/run-{number}/recipe.yaml").seed for number in (1, 2, 3)]
    assert seeds == [5, 6, 7]
    alone = train(make_recipe("seed=6", "trainer.epochs=2"), output_dir=tmp_path / "alone", progress=False)
    assert_same(weights(alone), weights(found.runs[1]))

    content = json.loads((tmp_path / "all/repeat.json").read_text())
    for part in ("last", "best"):
        for score in ("mAP", "rank1", "mINP"):
            values = [run[part][score] for run in content["runs"]]
            mean, deviation = getattr(found, part)[score]
            assert mean == pytest.approx(np.mean(values))
            assert deviation == pytest.approx(np.std(values, ddof=1))
            assert content[part][score] == {"mean": mean, "std": deviation}
    assert [run["last"]["mAP"] for run in content["runs"]] == [run.last_map for run in found.runs]
    assert [run["best"]["mAP"] for run in content["runs"]] == [run.best_map for run in found.runs]
    assert [run["seed"] for run in content["runs"]] == seeds


def test_resuming_keeps_continues_and_makes_runs(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe("trainer.epochs=2")
    whole = train_repeatedly(recipe, output_dir=tmp_path / "whole", repeat=3, progress=False)
    train(recipe, output_dir=tmp_path / "cut/run-1", progress=False)
    kept = (tmp_path / "cut/run-1/checkpoints/last.ckpt").stat().st_mtime_ns
    second = make_recipe("trainer.epochs=2", "seed=1")
    interrupt(monkeypatch, second, tmp_path / "cut/run-2", epoch=1, batch=1)
    interrupt(monkeypatch, make_recipe("trainer.epochs=2", "seed=2"), tmp_path / "cut/run-3", epoch=0, batch=1)
    with pytest.raises(TrainingError, match=r"run-1: holds a run already.*--resume"):
        train_repeatedly(recipe, output_dir=tmp_path / "cut", repeat=3, progress=False)
    resumed = train_repeatedly(recipe, output_dir=tmp_path / "cut", repeat=3, progress=False, resume=True)
    assert (tmp_path / "cut/run-1/checkpoints/last.ckpt").stat().st_mtime_ns == kept
    assert (tmp_path / "cut/repeat.json").read_bytes() == (tmp_path / "whole/repeat.json").read_bytes()
    for first, again in zip(whole.runs, resumed.runs, strict=True):
        assert_same(weights(first), weights(again))


@pytest.mark.parametrize("options", [{"overwrite": True}, {"resume": True}])
def test_a_summary_does_not_outlive_the_runs_that_it_sums_up(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, bool]
) -> None:
    """An interruption while the second run is replaced or goes on leaves no means of what is gone."""
    summary = tmp_path / "repeat.json"
    train_repeatedly(make_recipe("trainer.epochs=1"), output_dir=tmp_path, repeat=2, progress=False)
    before = summary.read_bytes()
    longer = make_recipe("trainer.epochs=2", "seed=7")
    with pytest.raises(TrainingError, match=r"other settings: seed"):
        train_repeatedly(longer, output_dir=tmp_path, repeat=2, progress=False, resume=True)
    assert summary.read_bytes() == before, "what is refused changes nothing"

    real = ReIDModule.training_step

    def cut(module: ReIDModule, data: Any, batch_idx: int) -> torch.Tensor:
        if module.recipe.seed == 1:
            raise PowerCut
        return real(module, data, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(ReIDModule, "training_step", cut)
        with pytest.raises(PowerCut):
            train_repeatedly(make_recipe("trainer.epochs=2"), output_dir=tmp_path, repeat=2, progress=False, **options)
    assert not summary.exists()
    train_repeatedly(make_recipe("trainer.epochs=2"), output_dir=tmp_path, repeat=2, progress=False, resume=True)
    assert summary.exists()
    done = summary.stat().st_mtime_ns
    train(make_recipe("trainer.epochs=2"), output_dir=tmp_path / "run-1", progress=False, resume=True)
    assert summary.stat().st_mtime_ns == done, "a finished run stays, and so does its summary"
    train(make_recipe("trainer.epochs=1"), output_dir=tmp_path / "run-1", progress=False, overwrite=True)
    assert not summary.exists()


def test_one_run_has_no_deviation(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    train_repeatedly(make_recipe("trainer.epochs=1"), output_dir=tmp_path, repeat=1, progress=False)
    assert json.loads((tmp_path / "repeat.json").read_text())["last"]["mAP"]["std"] is None


def test_wrong_numbers_are_named(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="repeat: got 0, expected at least 1"):
        train_repeatedly(make_recipe(), output_dir=tmp_path, repeat=0)
    with pytest.raises(ValueError, match="the last seed is above"):
        train_repeatedly(make_recipe("seed=4294967295"), output_dir=tmp_path, repeat=2)


def test_repeated_runs_do_not_go_into_the_folder_of_a_single_one(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("")
    for options in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(TrainingError, match="holds a single run already; choose another folder"):
            train_repeatedly(make_recipe(), output_dir=tmp_path, repeat=2, progress=False, **options)
