"""Training with ``trainer.precision=16-mixed``, whose scaler here works on the CPU."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pyreid.errors import TrainingError
from pyreid.training import Recipe
from pyreid.training.module import ReIDModule
from python_tests.training.test_resume import assert_same, interrupt, run

pytestmark = pytest.mark.filterwarnings("ignore::pyreid.data.DatasetWarning")

MakeRecipe = Callable[..., Recipe]
CENTRES = (
    "losses=[{type: cross_entropy}, {type: center, embedding: local, distance: cosine, weight: 0.5}, "
    "{type: glob_push, embedding: local, margin_steps: 9}]"
)


@pytest.fixture
def scales(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Runs are of fp16 and begin with the scale in this list, which a test may change."""
    import lightning as L
    from lightning.pytorch.plugins.precision import MixedPrecision

    real, chosen = L.Trainer, [2.0**16]

    def make(**options: Any) -> L.Trainer:
        scaler = torch.amp.GradScaler("cpu", init_scale=chosen[0])
        plugin: Any = MixedPrecision("16-mixed", "cpu", scaler=scaler)
        return real(**{**options, "precision": None}, plugins=[plugin])

    monkeypatch.setattr(L, "Trainer", make)
    return chosen


def test_an_epoch_in_which_every_gradient_overflows_is_recorded(
    make_recipe: MakeRecipe, tmp_path: Path, scales: list[float]
) -> None:
    scales[0] = 2.0**40
    result = run(make_recipe("trainer.epochs=2"), tmp_path / "run")
    assert [len(result.history), "grad_norm" in result.history[0]] == [2, False]
    assert all(math.isfinite(row["loss"]) for row in result.history)
    with result.metrics_csv.open() as rows:
        assert [row["grad_norm"] for row in csv.DictReader(rows)] == ["", ""]
    assert json.loads((tmp_path / "run/metrics.json").read_text())["epochs"] == 2
    state = torch.load(result.last_checkpoint, weights_only=True)
    assert state["MixedPrecision"]["scale"] == 2.0**32, "halved at each of the 8 steps"


def test_steps_and_norms_do_not_depend_on_the_scale(
    make_recipe: MakeRecipe, tmp_path: Path, scales: list[float]
) -> None:
    recipe = make_recipe("trainer.epochs=1", "trainer.grad_clip=1.0", CENTRES)
    found = []
    for scale in (1.0, 32.0):
        scales[0] = scale
        found.append(run(recipe, tmp_path / str(scale)))
    first, second = (result.history[0] for result in found)
    assert first["grad_norm"] == pytest.approx(second["grad_norm"], rel=0.02)
    centers = [
        torch.load(result.last_checkpoint, weights_only=True)["state_dict"]["objective.terms.1.centers.weight"]
        for result in found
    ]
    torch.testing.assert_close(*centers, rtol=0.02, atol=0.02)


def test_resume_is_bit_exact(
    make_recipe: MakeRecipe, tmp_path: Path, scales: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe("trainer.epochs=3", "loss_weighting.mode=balanced", CENTRES)
    straight = run(recipe, tmp_path / "straight")
    interrupt(monkeypatch, recipe, tmp_path / "cut", epoch=2, batch=1)
    scales[0] = 4.0  # the scale comes from the checkpoint
    resumed = run(recipe, tmp_path / "cut", resume=True)
    first, second = (torch.load(result.last_checkpoint, weights_only=True) for result in (straight, resumed))
    for part in ("state_dict", "optimizer_states", "MixedPrecision", "pyreid"):
        assert_same(first[part], second[part], part)


def test_a_gradient_that_no_scale_makes_finite_stops_the_run(
    make_recipe: MakeRecipe, tmp_path: Path, scales: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ReIDModule.training_step

    def poisoned(module: ReIDModule, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = real(module, batch, batch_idx)
        loss.register_hook(lambda grad: grad * torch.inf)
        return loss

    monkeypatch.setattr(ReIDModule, "training_step", poisoned)
    scales[0] = 2.0
    with pytest.raises(TrainingError, match=r"the gradient of 'model\.\S+' is not finite at epoch 1, step 3 "):
        run(make_recipe(), tmp_path / "run")
