"""The rows of Compact-ReID's tables: what each changes, its learning rates, and the reported numbers."""

from __future__ import annotations

import pytest

from pyreid.training import list_recipes
from pyreid.training.schedules import make_schedule
from python_tests.recipes.differences import changes, loaded

FULL = "i_2x"
CYCLES = {"schedule.cycles", "trainer.epochs"}
SWAG = CYCLES | {"swag"}

# Name: the row that it changes, how, and mAP and rank-1 of the paper.
ROWS: dict[str, tuple[str, set[str], float | None, float | None]] = {
    "i_2x": (FULL, set(), 88.1, 95.7),
    "a_bag_of_tricks": (FULL, {"model.name", "model.overrides", "losses"}, 82.0, 93.2),
    "b_no_soft_triplet": (FULL, {"losses"}, 85.3, 94.1),
    "c_no_l2": (FULL, {"model.overrides"}, 85.7, 94.5),
    "d_no_shuffle": (FULL, {"model.overrides"}, 86.6, 94.9),
    "e_no_soft_margin": (FULL, {"losses"}, 87.1, 95.1),
    "f_no_gem": (FULL, {"model.overrides"}, 87.9, 95.3),
    "g_1x": (FULL, {"model.name"}, 87.3, 95.4),
    "market1501_1x": ("g_1x", SWAG, 88.7, 95.8),
    "market1501_2x": (FULL, SWAG, 89.7, 96.2),
    "dukemtmc_1x": ("market1501_1x", {"data.dataset"}, 78.9, 88.8),
    "dukemtmc_2x": ("market1501_2x", {"data.dataset"}, 80.3, 89.8),
    "setup1": (FULL, {"model.name", "model.overrides"}, 83.6, 93.8),
    "setup1_cycles": ("setup1", CYCLES, 84.8, 94.3),
    "setup1_swag": ("setup1", SWAG, 85.3, 94.5),
    "setup2_cycles": ("g_1x", CYCLES, 88.2, 95.8),
    "setup3_cycles": (FULL, CYCLES, 88.9, 95.7),
    "hacnn": (
        "a_bag_of_tricks",
        {"data.erasing", "data.flip", "sampler.batches", "model.overrides", "losses", "optimizer", "schedule.warmup"}
        | {"schedule.decay", "trainer.epochs", "trainer.evaluate_every"},
        75.7,
        91.2,
    ),
    "hacnn_dukemtmc": ("hacnn", {"data.dataset"}, 63.8, 80.5),
    "max_pooling": (FULL, {"model.overrides"}, None, None),
    "avg_max_pooling": (FULL, {"model.overrides"}, None, None),
    "bn_neck": (FULL, {"model.overrides"}, None, None),
    "hard_triplet": (FULL, {"losses"}, None, None),
    "shuffle_alone": (FULL, {"model.overrides", "losses"}, None, None),
    "more_epochs": (FULL, {"trainer.epochs"}, None, None),
    "cycles_from_scratch": (FULL, CYCLES | {"schedule.warmup", "schedule.decay"}, None, None),
}

# Learning rate of epoch t, from 1 (equation 5); then the peaks of the cycles, 0.03 * 0.7^c.
PLATEAUS = {1: 0.003, 5: 0.015, 10: 0.03, 11: 0.03, 150: 0.03, 151: 0.003, 225: 0.003, 226: 0.0003, 350: 0.0003}
PEAKS = {0: 0.03, 1: 0.021, 5: 0.005042, 10: 0.000847, 14: 0.000203}


def learning_rate(name: str, t: int) -> float:
    """Of an epoch, counted from 1 as in the paper."""
    recipe = loaded(f"compact_reid/{name}")
    lr = recipe.optimizer.lr
    return lr * make_schedule(recipe.schedule, lr=lr, epochs=recipe.trainer.epochs)(t - 1)


def test_every_recipe_is_a_row() -> None:
    assert {f"compact_reid/{name}" for name in ROWS} == {
        name for name in list_recipes() if name.startswith("compact_reid/")
    }


@pytest.mark.parametrize("name", ROWS)
def test_a_row_changes_what_it_says(name: str) -> None:
    reference, expected, mean_ap, rank1 = ROWS[name]
    assert changes(f"compact_reid/{name}", f"compact_reid/{reference}") == expected
    paper = loaded(f"compact_reid/{name}").paper
    assert paper is not None
    assert (paper.mAP, paper.rank1) == (mean_ap, rank1)


@pytest.mark.parametrize("name", ["i_2x", "setup1", "market1501_2x", "dukemtmc_1x"])
def test_equation_5(name: str) -> None:
    assert {t: learning_rate(name, t) for t in PLATEAUS} == pytest.approx(PLATEAUS)


def test_the_last_plateau_goes_on_with_more_epochs() -> None:
    assert learning_rate("more_epochs", 875) == pytest.approx(0.0003)


@pytest.mark.parametrize(
    ("name", "begin"), [("market1501_1x", 350), ("setup3_cycles", 350), ("cycles_from_scratch", 0)]
)
def test_cycles(name: str, begin: int) -> None:
    peaks = {cycle: learning_rate(name, begin + 35 * cycle + 1) for cycle in PEAKS}
    assert peaks == pytest.approx(PEAKS, abs=5e-7)
    assert 0 < learning_rate(name, begin + 525) < 1e-6
    assert loaded(f"compact_reid/{name}").trainer.epochs == begin + 525


@pytest.mark.parametrize(
    ("name", "kind", "margin"),
    [
        ("i_2x", "batch_soft_triplet", None),
        ("b_no_soft_triplet", "triplet", 0.3),
        ("e_no_soft_margin", "batch_soft_triplet", 0.3),
        ("hard_triplet", "batch_hard_triplet", None),
    ],
)
def test_both_branches_have_both_losses(name: str, kind: str, margin: float | None) -> None:
    losses = [loss.model_dump() for loss in loaded(f"compact_reid/{name}").losses]
    found = [(loss["type"], loss.get("logits", loss.get("embedding"))) for loss in losses]
    assert found == [("cross_entropy", "global"), ("cross_entropy", "local"), (kind, "global"), (kind, "local")]
    assert [loss["margin"] for loss in losses[2:]] == [margin, margin]
