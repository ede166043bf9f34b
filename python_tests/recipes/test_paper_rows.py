"""What the papers fix in the recipes of SAFR, RMNet and DaRe, and what sets their rows apart."""

from __future__ import annotations

import re
from dataclasses import astuple
from itertools import pairwise
from typing import Any

import pytest
import torch

from pyreid.data.hard_samples import HardSampleSampler
from pyreid.models import resolve_config
from pyreid.models.figures import FIGURES
from pyreid.training import Recipe, list_recipes, load_recipe
from pyreid.training.optimizers import make_optimizer, set_beta1
from pyreid.training.resume import changed_keys
from pyreid.training.schedules import make_schedule

DATASETS = {
    "VeRi-776": "veri776",
    "VRIC": "vric",
    "VeRi-Wild": "veri_wild_small",
    "VehicleID": "vehicleid_2400",
    "Market-1501": "market1501",
    "MARS": "mars",
    "CUHK03-NP labeled": "cuhk03_np_labeled",
    "CUHK03-NP detected": "cuhk03_np_detected",
    "DukeMTMC-reID": "dukemtmc",
}
RMNET_ROWS = ("r1_am_softmax", "r2_mining", "r3_center", "r4_dropout_off", "r5_push", "r6_glob_push",
              "r7_smart_margins", "r8_weighted_mining", "r9_resolution")  # fmt: skip


def recipes(folder: str) -> list[Recipe]:
    return [load_recipe(name) for name in list_recipes() if name.startswith(f"{folder}/")]


def differences(first: Recipe, second: Recipe) -> set[str]:
    """The keys in which two recipes differ, lists as a whole."""
    lines = changed_keys(first.model_dump(mode="json"), second.model_dump(mode="json"))
    return {re.split(r"\.\d| ", line)[0] for line in lines}


def row_scores(source: str) -> set[tuple[Any, ...]]:
    """(model, random erasing, data set, mAP, rank-1, mAP and rank-1 after re-ranking) of the models' own figures."""
    found = set()
    for figure in FIGURES:
        if not figure.source.startswith(source):
            continue
        scores = {dataset: (mean_ap, rank1) for dataset, mean_ap, rank1 in map(astuple, figure.results)}
        for dataset, score in scores.items():
            if "re-ranked" not in dataset:
                ranked = scores.get(f"{dataset}, re-ranked", (None, None))
                found.add((figure.model, "erasing" in figure.row, DATASETS[dataset], *score, *ranked))
    return found


@pytest.mark.parametrize("folder", ["safr", "dare"])
def test_tables_are_those_of_the_models(folder: str) -> None:
    """The tables were entered twice, there for the models and here for the recipes."""
    title = {"safr": "SAFR", "dare": "DaRe"}[folder]
    ours = set()
    for recipe in recipes(folder):
        paper = recipe.paper
        assert paper is not None
        if not paper.source.startswith(f"{title}, Table") or recipe.data.dataset in ("vehicleid_800", "vehicleid_1600"):
            continue
        if recipe.name.endswith("trinet_re"):
            continue  # the authors' own implementation, which is no row of the models' figures
        ranked = (paper.reranked.mAP, paper.reranked.rank1) if paper.reranked is not None else (None, None)
        erasing = folder == "dare" and recipe.data.erasing is not None
        ours.add((recipe.model.name, erasing, recipe.data.dataset, paper.mAP, paper.rank1, *ranked))
    assert ours == row_scores(title)


def test_safr_trains_as_the_paper_says() -> None:
    for recipe in recipes("safr"):
        assert (recipe.sampler.num_ids, recipe.sampler.num_instances) == (18, 4)
        assert recipe.data.size == ((224, 224) if recipe.model.name == "safr_micro" else (350, 350))
        factor = make_schedule(recipe.schedule, lr=recipe.optimizer.lr, epochs=recipe.trainer.epochs)
        assert [factor(epoch) for epoch in (0, 5, 10)] == pytest.approx([0.1, 0.55, 1.0])


def test_safr_components_differ_in_the_model_alone() -> None:
    rows = [recipe for recipe in recipes("safr") if "figure5" in recipe.name]
    configs = [resolve_config(recipe.model.name, **recipe.model.overrides) for recipe in rows]
    told = {(c.neck, c.global_attention, c.where) for c in configs}  # type: ignore[attr-defined]
    assert told == {
        ("none", False, "none"), ("ln", False, "none"), ("bn", False, "none"), ("none", True, "none"),
        ("none", False, "all"), ("none", True, "all"), ("ln", True, "all"),
    }  # fmt: skip
    for row in rows:
        assert differences(load_recipe("safr/veri776_baseline"), row) <= {
            "model.overrides", "model.overrides.neck", "model.overrides.where", "model.overrides.global_attention",
        }  # fmt: skip


@pytest.mark.parametrize("name", ["safr_large", "safr_medium", "safr_small", "safr_micro"])
def test_the_authors_reading_of_safr_is_a_preset(name: str) -> None:
    config: Any = resolve_config(
        name, **load_recipe(f"safr/veri776_{name[5:]}", ["model.overrides.preset=author"]).model.overrides
    )
    assert (config.where, config.conv, config.mask, config.ratio, config.neck) == ("first", "full", "soft", 16, "ln")


def test_a_round_of_rmnet_has_a_hundred_batches() -> None:
    recipe = load_recipe("rmnet/r2_mining")
    assert recipe.mining is not None
    labels = (list(range(751)) * 18)[:12936]
    sampler = HardSampleSampler(
        labels,
        per_identity=recipe.mining.per_identity,
        num_ids=recipe.sampler.num_ids,
        num_instances=recipe.sampler.num_instances,
        share=recipe.mining.share,
    )
    factor = make_schedule(recipe.schedule, lr=0.01, epochs=recipe.trainer.epochs)
    falls = [epoch * len(sampler) for epoch in range(1, 1500) if factor(epoch) != factor(epoch - 1)]
    assert falls == [50_000, 100_000]
    assert factor(1499) == pytest.approx(0.01)


def test_each_row_of_rmnets_ablation_adds_one_thing() -> None:
    rows = [load_recipe(f"rmnet/{name}") for name in RMNET_ROWS]
    changes = [differences(first, second) for first, second in pairwise(rows)]
    assert changes[1:] == [
        {"losses"}, {"model.dropout_until"}, {"losses"}, {"losses"}, {"losses"}, {"mining.terms"}, {"data.size"},
    ]  # fmt: skip
    assert {key.split(".")[0] for key in changes[0]} == {"sampler", "mining", "trainer"}
    assert (rows[0].mining, rows[0].sampler.batches) == (None, "shuffled")
    assert differences(rows[7], load_recipe("rmnet/market1501_light")) == set()
    assert differences(rows[8], load_recipe("rmnet/market1501_strong")) == set()
    assert [loss.type for loss in rows[5].losses] == ["am_softmax", "center", "glob_push", "push"]
    smart = [[loss.smart for loss in row.losses if loss.type in ("push", "glob_push")] for row in rows]
    assert smart == [[], [], [], [], [False], [False] * 2, [True] * 2, [True] * 2, [True] * 2]


def test_rmnets_ablation_is_in_the_order_of_the_table() -> None:
    scores = [recipe.paper for recipe in map(load_recipe, [f"rmnet/{name}" for name in RMNET_ROWS])]
    assert [(paper.rank1, paper.mAP) for paper in scores if paper is not None] == [
        (78.00, 60.74), (79.07, 57.88), (81.53, 60.42), (85.24, 65.94), (87.11, 70.95), (88.69, 73.40),
        (90.20, 78.80), (91.66, 81.63), (92.37, 82.53),
    ]  # fmt: skip


def test_dares_learning_rate_and_beta1() -> None:
    for recipe in recipes("dare"):
        if recipe.name in ("dare/market1501_trinet", "dare/mars_trinet"):
            continue
        length, epochs = recipe.trainer.iterations_per_epoch, recipe.trainer.epochs
        assert length is not None
        assert length * epochs == 60_000
        factor = make_schedule(recipe.schedule, lr=3e-4, epochs=epochs)
        rates = [3e-4 * factor(iteration / length) for iteration in (0, 30_000, 45_000, 60_000)]
        assert rates == pytest.approx([3e-4, 3e-4, 9.4868e-6, 3e-7], rel=1e-4)
        optimizer = make_optimizer([torch.nn.Parameter(torch.zeros(1))], recipe.optimizer)
        betas = []
        for iteration in (29_999, 30_000):
            set_beta1(optimizer, recipe.optimizer, iteration / length)
            betas.append(optimizer.param_groups[0]["betas"][0])
        assert betas == [0.9, 0.5]
        assert recipe.evaluation.crops == "ten"
        assert recipe.data.translation is not None
        assert (recipe.data.translation.probability, recipe.data.translation.scale) == (1.0, 1.125)


def test_dares_fusion_alone_has_one_loss() -> None:
    deep, fusion = load_recipe("dare/market1501_r_re"), load_recipe("dare/figure4_fusion_only")
    assert differences(deep, fusion) == {"losses", "model.overrides", "model.overrides.deep_supervision"}
    assert [loss.model_dump()["embedding"] for loss in deep.losses] == [
        "stage1", "stage2", "stage3", "stage4", "embedding",
    ]  # fmt: skip
    assert [loss.model_dump()["embedding"] for loss in fusion.losses] == ["embedding"]
    assert load_recipe("dare/figure3_stages").evaluation.stages
