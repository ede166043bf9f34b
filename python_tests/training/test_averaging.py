"""Runs that average their weights over cycles: scores, the written model, and exact resume within the cycles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyreid.errors import RecipeError
from pyreid.models import create_model
from pyreid.training import Recipe, evaluate_model, load_recipe
from pyreid.training.averaging import CycleAverager
from pyreid.training.datamodule import image_input
from pyreid.training.engine import open_dataset
from pyreid.training.features import TestFeatures
from pyreid.training.run_folder import RunFolder
from pyreid.training.swag import SWAG
from python_tests.training.test_resume import assert_same, interrupt, run

pytestmark = pytest.mark.filterwarnings("ignore::pyreid.data.DatasetWarning")

MakeRecipe = Callable[..., Recipe]
CYCLES = [
    "trainer.epochs=4",
    "trainer.evaluate_every=4",
    "schedule={cycles: {begin: 0, count: 2, length: 2, lr: 1e-3}}",
    "swag={samples: 2, max_rank: 2}",
]


def test_the_mean_model_is_evaluated_and_written(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(*CYCLES)
    result = run(recipe, tmp_path / "run")
    last = result.history[-1]
    assert {"swa_mAP", "swa_rank1", "bma_mAP", "bma_mINP"} <= set(last)
    assert all("swa_mAP" not in row for row in result.history[:-1])
    assert "bma_mAP,bma_mINP" in result.metrics_csv.read_text().splitlines()[0]

    model = create_model("rmnet", num_classes=6, weights=tmp_path / "run/checkpoints/swa.ckpt")
    look = image_input(model, recipe.data)
    again = evaluate_model(model, open_dataset(recipe), settings=recipe.evaluation, images=look)
    assert again.map == last["swa_mAP"]
    ends = [torch.load(result.last_checkpoint, weights_only=True)["state_dict"]]
    swag = SWAG()
    state = torch.load(result.last_checkpoint, weights_only=True)["callbacks"]
    swag.load_state_dict(next(value for key, value in state.items() if key.startswith("CycleAverager")))
    assert swag.count == 2
    name = "head.0.conv.weight"
    torch.testing.assert_close(model.state_dict()[name].double(), swag.mean[name], rtol=1e-6, atol=1e-7)
    assert not torch.equal(model.state_dict()[name], ends[0][f"model.{name}"])


def test_embeddings_of_sampled_models_are_averaged_at_unit_length(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean of unit vectors, of unit length again; each model with statistics of its own."""
    rng = np.random.default_rng(3)
    drawn = [(10.0**k * rng.normal(size=(2, 3)), 10.0**k * rng.normal(size=(4, 3))) for k in range(3)]
    calls: list[str] = []

    class Gaussian:
        def load_sample(self, model: Any, generator: torch.Generator, *, scale: float) -> None:
            assert (model, scale, generator.initial_seed()) == (network, 0.5, 9)
            calls.append("sample")

    def features(self: CycleAverager, model: Any) -> TestFeatures:
        calls.append("features")
        query, gallery = (part.astype(np.float32) for part in drawn[calls.count("features") - 1])
        ids = np.arange(4)
        return TestFeatures(query, gallery, ids[:2], ids, None, None)

    monkeypatch.setattr(CycleAverager, "_features", features)
    monkeypatch.setattr(CycleAverager, "_estimate_batch_norm", lambda *args: calls.append("statistics"))
    recipe = make_recipe(*CYCLES, "swag={samples: 3, scale: 0.5}", "seed=9")
    averager = CycleAverager(RunFolder(tmp_path), recipe, None, None, None)  # type: ignore[arg-type]
    averager.swag = Gaussian()  # type: ignore[assignment]
    network = torch.nn.Identity()
    found = averager._sampled_features(network, torch.device("cpu"))
    assert calls == ["sample", "statistics", "features"] * 3
    for name, parts in (("query", [q for q, _ in drawn]), ("gallery", [g for _, g in drawn])):
        mean = np.mean([part / np.linalg.norm(part, axis=1, keepdims=True) for part in parts], axis=0)
        expected = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-5, atol=1e-6)
    assert found.gallery_ids.tolist() == [0, 1, 2, 3]


def test_averaging_does_not_change_the_run(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    averaged = run(make_recipe(*CYCLES), tmp_path / "averaged")
    plain = run(make_recipe(*CYCLES, "swag=null"), tmp_path / "plain")
    first, second = (torch.load(r.last_checkpoint, weights_only=True) for r in (averaged, plain))
    assert_same(first["state_dict"], second["state_dict"])
    assert_same(first["pyreid"]["random_states"], second["pyreid"]["random_states"])


def test_resume_within_the_cycles_is_bit_exact(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(*CYCLES)
    straight = run(recipe, tmp_path / "straight")
    interrupt(monkeypatch, recipe, tmp_path / "cut", epoch=3, batch=1)  # after the first collection
    resumed = run(recipe, tmp_path / "cut", resume=True)
    assert straight.history == resumed.history
    first, second = (torch.load(r.last_checkpoint, weights_only=True) for r in (straight, resumed))
    assert_same(first["callbacks"], second["callbacks"])
    swa = [torch.load(tmp_path / name / "checkpoints/swa.ckpt", weights_only=True) for name in ("straight", "cut")]
    assert_same(*swa)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["swag={}"], "swag averages over the cycles of a schedule, but schedule.cycles is null"),
        (
            ["swag={max_rank: 2}", "trainer.epochs=3", "schedule.cycles={begin: 1, count: 1, length: 2, lr: 0.1}"],
            "swag.max_rank needs at least 2 cycles, but schedule.cycles.count is 1",
        ),
        (["swag={max_rank: 1}"], r"max_rank must be 0 \(diagonal\) or at least 2"),
    ],
)
def test_settings_that_do_not_fit(overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe("safr/veri776_small", overrides)
