"""Runs that end when mAP has stopped rising, also when they are interrupted and resumed."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyreid.errors import RecipeError
from pyreid.training import Recipe, callbacks, train
from pyreid.training.early_stopping import has_stalled
from pyreid.training.settings.trainer import EarlyStoppingSettings
from python_tests.training.test_resume import assert_same, interrupt, weights

pytestmark = pytest.mark.filterwarnings("ignore::pyreid.data.DatasetWarning")

MakeRecipe = Callable[..., Recipe]
MAPS = (0.2, 0.5, 0.55, 0.4, 0.56, 0.9)


def rows(*maps: float) -> list[dict[str, Any]]:
    return [{"epoch": 1 + i} if math.isnan(value) else {"epoch": 1 + i, "mAP": value} for i, value in enumerate(maps)]


@pytest.mark.parametrize(
    ("maps", "patience", "min_delta", "stalled"),
    [
        ((), 1, 0.0, False),
        ((0.5,), 1, 0.0, False),
        ((0.5, 0.5), 1, 0.0, True),
        ((0.5, 0.4, 0.6), 2, 0.0, False),
        ((0.5, 0.4, 0.45), 2, 0.0, True),
        ((0.5, math.nan, 0.45), 2, 0.0, False),
        ((0.5, 0.55, 0.58), 2, 0.1, True),
        ((0.5, 0.55, 0.61), 2, 0.1, False),
    ],
)
def test_the_rule(maps: tuple[float, ...], patience: int, min_delta: float, stalled: bool) -> None:
    assert has_stalled(rows(*maps), EarlyStoppingSettings(patience=patience, min_delta=min_delta)) is stalled
    assert has_stalled(rows(*maps), None) is False


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations that give the mAP of their epoch in the list."""
    real = callbacks.EpochRecorder._features
    found = callbacks.scores

    def features(self: Any, module: Any) -> Any:
        epoch[0] = module.trainer.current_epoch
        return real(self, module)

    epoch = [0]
    monkeypatch.setattr(callbacks.EpochRecorder, "_features", features)
    monkeypatch.setattr(callbacks, "scores", lambda result: found(result) | {"mAP": MAPS[epoch[0]]})


@pytest.mark.usefixtures("scripted")
def test_a_run_stops_and_a_resumed_one_stops_there_too(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe("trainer.epochs=6", "trainer.early_stopping={patience: 2, min_delta: 0.1}")
    straight = train(recipe, output_dir=tmp_path / "straight", progress=False)
    assert [row["mAP"] for row in straight.history] == [0.2, 0.5, 0.55, 0.4]
    assert straight.stopped_early
    assert straight.best_epoch == 3, "the best is the best, by however little"

    interrupt(monkeypatch, recipe, tmp_path / "cut", epoch=3, batch=1)
    resumed = train(recipe, output_dir=tmp_path / "cut", progress=False, resume=True)
    assert resumed.history == straight.history
    assert_same(weights(straight), weights(resumed))

    again = train(recipe, output_dir=tmp_path / "cut", progress=False, resume=True)
    assert again.history == straight.history, "a run that was stopped is finished"
    free = make_recipe("trainer.epochs=6")
    longer = train(free, output_dir=tmp_path / "cut", progress=False, resume=True)
    whole = train(free, output_dir=tmp_path / "whole", progress=False)
    assert len(longer.history) == 6
    assert not longer.stopped_early
    assert_same(weights(longer), weights(whole))


def test_averages_need_their_cycles(make_recipe: MakeRecipe) -> None:
    with pytest.raises(RecipeError, match=r"trainer\.early_stopping may never reach"):
        make_recipe(
            "trainer.epochs=4",
            "trainer.early_stopping.patience=1",
            "schedule={cycles: {begin: 2, length: 1, count: 2, lr: 0.01}}",
            "swag={}",
        )
