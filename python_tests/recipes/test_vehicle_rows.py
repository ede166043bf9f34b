"""The rows of the vehicle re-ID coursework's tables: what each changes, and the reported numbers."""

from __future__ import annotations

import pytest

from pyreid.training import list_recipes
from pyreid.training.schedules import make_schedule
from python_tests.recipes.differences import changes, loaded

# Name: the row that it changes, how, and mAP and rank-1 of the report.
ROWS: dict[str, tuple[str, set[str], float, float]] = {
    "c0_baseline": ("c0_baseline", set(), 49.5, 79.1),
    "c1_batch_64": ("c0_baseline", {"sampler.num_ids"}, 54.2, 84.2),
    "c2_rmsprop": ("c1_batch_64", {"optimizer"}, 56.9, 86.9),
    "c3_size_512": ("c2_rmsprop", {"data.size"}, 59.5, 88.3),
    "c4_embedding_1024": ("c3_size_512", {"model.overrides"}, 61.6, 90.8),
    "c5_warmup": ("c4_embedding_1024", {"schedule.warmup"}, 63.2, 91.5),
    "c6_head": ("c5_warmup", {"model.overrides"}, 67.2, 91.7),
    "c7_erasing": ("c6_head", {"data.erasing"}, 66.7, 92.4),
    "table2_resnet18": ("c1_batch_64", {"data.erasing", "model.name", "model.overrides"}, 63.0, 90.5),
    "table2_se_resnet18": ("table2_resnet18", {"model.name"}, 63.5, 90.3),
    "table2_se_resnet18_concat": ("table2_resnet18", {"model.name"}, 64.3, 90.9),
    "table2_se_resnet18_add": ("table2_resnet18", {"model.name"}, 62.4, 89.6),
    "table2_resnet18_cbam": ("table2_resnet18", {"model.name"}, 62.8, 89.9),
    "table2_resnet18_cbam_concat": ("table2_resnet18", {"model.name"}, 63.3, 89.5),
    "table2_se_resnet18_gconcat": ("table2_resnet18", {"model.name"}, 63.2, 89.9),
    "table2_se_resnext50": ("table2_resnet18", {"model.name"}, 68.9, 93.6),
    "table3_color": ("c7_erasing", {"data.jitter", "data.lighting"}, 66.5, 91.6),
    "table3_all": ("table3_color", {"data.center_crop", "data.translation"}, 65.7, 90.4),
    "table4_embedding_128": ("c4_embedding_1024", {"model.overrides"}, 60.1, 89.8),
    "table4_embedding_256": ("c4_embedding_1024", {"model.overrides"}, 59.0, 89.5),
    "table4_embedding_512": ("c4_embedding_1024", {"model.overrides"}, 60.7, 89.0),
    "table5_batch_16": ("c0_baseline", {"sampler.num_ids"}, 53.1, 86.5),
    "table5_batch_32": ("c0_baseline", {"sampler.num_ids"}, 54.6, 85.6),
    "table5_batch_128": ("c0_baseline", {"sampler.num_ids"}, 53.2, 82.8),
    "table6_warmup_cosine": ("c5_warmup", {"schedule.decay"}, 62.7, 91.1),
    "table7_size_128": ("c2_rmsprop", {"data.size"}, 53.5, 82.8),
    "table7_size_224": ("c2_rmsprop", set(), 57.9, 86.3),
    "table7_size_512x288": ("c2_rmsprop", {"data.size"}, 60.5, 88.2),
    "table8_adam": ("c1_batch_64", set(), 54.2, 85.2),
    "table8_adamw": ("c1_batch_64", {"optimizer"}, 52.9, 84.0),
    "table8_amsgrad": ("c1_batch_64", {"optimizer"}, 53.6, 83.9),
    "table8_sgd": ("c1_batch_64", {"optimizer"}, 48.9, 80.5),
    "table9_vanilla": ("c5_warmup", {"model.overrides"}, 63.3, 89.9),
    "table9_fc_relu_dropout_bn_fc": ("c6_head", {"model.overrides"}, 63.4, 89.9),
    "table9_fc_relu_bn_fc": ("c6_head", {"model.overrides"}, 63.4, 90.0),
    "table9_fc_bn_relu_fc": ("c6_head", {"model.overrides"}, 63.2, 90.9),
    "table9_fc_bn_fc": ("c6_head", {"model.overrides"}, 62.6, 89.9),
}


def test_every_recipe_is_a_row() -> None:
    assert {f"vehicle/{name}" for name in ROWS} == {name for name in list_recipes() if name.startswith("vehicle/")}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_changes_what_it_says(name: str) -> None:
    reference, expected, mean_ap, rank1 = ROWS[name]
    assert changes(f"vehicle/{name}", f"vehicle/{reference}") == expected
    paper = loaded(f"vehicle/{name}").paper
    assert paper is not None
    assert (paper.mAP, paper.rank1) == (mean_ap, rank1)


BATCHES = {"c0_baseline": 384, "c1_batch_64": 64, "table2_resnet18": 64} | {
    f"table5_batch_{size}": size for size in (16, 32, 128)
}


@pytest.mark.parametrize("name", BATCHES)
def test_batch_sizes(name: str) -> None:
    sampler = loaded(f"vehicle/{name}").sampler
    assert sampler.num_instances == 4
    assert sampler.num_ids * sampler.num_instances == BATCHES[name]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("c0_baseline", {0: 1e-4, 19: 1e-4, 20: 1e-5, 39: 1e-5, 40: 1e-6, 59: 1e-6}),
        ("c5_warmup", {0: 1e-6, 5: 5.05e-5, 10: 1e-4, 19: 1e-4, 20: 1e-5, 59: 1e-6}),
        ("table6_warmup_cosine", {0: 1e-6, 5: 5.05e-5, 10: 1e-4, 35: 5e-5, 60: 0.0}),
        ("table8_sgd", {0: 1e-3, 20: 1e-4, 40: 1e-5}),
    ],
)
def test_learning_rates(name: str, expected: dict[int, float]) -> None:
    recipe = loaded(f"vehicle/{name}")
    lr = recipe.optimizer.lr
    factor = make_schedule(recipe.schedule, lr=lr, epochs=recipe.trainer.epochs)
    assert {epoch: lr * factor(epoch) for epoch in expected} == pytest.approx(expected, abs=1e-12)
