"""The course of a recipe over its epochs, by values."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from pyreid.report.schedule_curves import plot_schedule, schedule_curves, steps_per_epoch
from pyreid.training import Recipe, load_recipe, train
from python_tests.training.tiny import RECIPE, write_market


def recipe_of(*overrides: str) -> Recipe:
    return load_recipe("safr/veri776_small", overrides)


def test_warm_up_and_steps_of_safr() -> None:
    curves = schedule_curves(load_recipe("safr/veri776_baseline", ["optimizer.lr=1e-4", "trainer.epochs=60"]))
    assert curves.epochs == tuple(range(60))
    wanted = {0: 1e-5, 5: 5.5e-5, 10: 1e-4, 24: 1e-4, 25: 8e-5, 40: 6.4e-5, 59: 5.12e-5}
    assert {epoch: curves.lr[epoch] for epoch in wanted} == pytest.approx(wanted)
    assert (curves.beta1, curves.dropout, curves.margins, curves.mining, curves.averaged) == (None, None, {}, None, ())


def test_the_curve_is_what_a_run_writes(tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(RECIPE)
    recipe = load_recipe(file, [f"data.root={write_market(tmp_path / 'market')}", "trainer.epochs=4"])
    train(recipe, output_dir=tmp_path / "run", progress=False)
    with (tmp_path / "run" / "metrics.csv").open() as rows:
        written = [float(row["lr"]) for row in csv.DictReader(rows)]
    assert schedule_curves(recipe).lr == pytest.approx(written, rel=1e-12)
    assert len(set(written)) == 4  # a warm-up of two epochs, and a milestone


def test_cycles_by_iteration_and_where_weights_are_averaged() -> None:
    recipe = recipe_of(
        "schedule={decay: {type: constant}, interval: iteration, "
        "cycles: {begin: 2, count: 3, length: 4, lr: 0.02, decay: 0.5}}",
        "swag={}",
        "optimizer={type: sgd, lr: 0.1}",
        "trainer={epochs: 14, iterations_per_epoch: 10, accumulate: 2}",
    )
    curves = schedule_curves(recipe)
    assert curves.averaged == (6, 10, 14)
    assert curves.epochs[:6] == (0, 0.2, 0.4, 0.6, 0.8, 1)
    assert len(curves.epochs) == 14 * 5
    at = dict(zip(curves.epochs, curves.lr, strict=True))
    assert (at[0], at[1.8], at[2], at[4], at[6], at[10]) == pytest.approx((0.1, 0.1, 0.02, 0.01, 0.01, 0.005))
    assert at[2.2] == pytest.approx(0.01 * (1 + math.cos(math.pi * 0.05)))


def test_beta1_and_dropout_switch() -> None:
    curves = schedule_curves(
        recipe_of(
            "optimizer={type: adam, lr: 0.1, late_beta1: {epoch: 3}}", "model.dropout_until=2", "trainer.epochs=12"
        )
    )
    assert curves.beta1 == (*(0.9,) * 3, *(0.5,) * 9)
    assert curves.dropout == (1, 1, *(0,) * 10)


LOSSES = (
    "losses=[{type: am_softmax}, {type: center, distance: cosine}, {type: push, margin_steps: 300}, "
    "{type: glob_push, margin: 0.1, final_margin: null}]"
)


def test_margins_grow_with_the_steps() -> None:
    curves = schedule_curves(recipe_of(LOSSES, "trainer={epochs: 12, iterations_per_epoch: 100}"))
    assert list(curves.margins) == ["push"], "the other does not grow"
    assert curves.margins["push"] == pytest.approx((0.15, 0.3, 0.45, *(0.6,) * 9))
    # With the images' own number of batches, nobody knows.
    assert schedule_curves(recipe_of(LOSSES, "trainer.epochs=12")).margins == {}


def test_rounds_of_mining() -> None:
    recipe = recipe_of(
        LOSSES,
        "mining={per_identity: 8, full_after: 4}",
        "sampler={num_ids: 8, num_instances: 4}",
        "trainer={epochs: 12, accumulate: 2}",
    )
    curves = schedule_curves(recipe)
    assert curves.mining == (0, 0.25, 0.5, 0.75, *(1,) * 8)
    # VeRi-776 has 576 identities: half of 576 x 8 images in batches of 32 are 72 batches, two of which make a step.
    assert steps_per_epoch(recipe) == 36
    assert curves.margins["push"][1] == pytest.approx(0.15 + 0.45 * 36 / 300)


@pytest.mark.parametrize(
    ("share_of", "devices", "steps"), [("pool", 1, 27), ("identities", 1, 36), ("identities", 5, 7)]
)
def test_steps_of_a_round_are_those_of_its_batches(share_of: str, devices: int, steps: int) -> None:
    # VeRi-776 has 576 identities: half of 3 images, of all together 864, are 2 of each identity, and 1152.
    recipe = recipe_of(
        LOSSES,
        f"mining={{per_identity: 3, share_of: {share_of}}}",
        "sampler={num_ids: 8, num_instances: 4}",
        f"trainer={{epochs: 12, devices: {devices}}}",
    )
    assert steps_per_epoch(recipe) == steps


def test_what_is_drawn_are_these_values() -> None:
    curves = schedule_curves(
        recipe_of(LOSSES, "trainer={epochs: 12, iterations_per_epoch: 100}", "model.dropout_until=2")
    )
    figure = plot_schedule(curves, title="name")
    top, *others = figure.axes
    (line,) = top.lines
    assert list(line.get_xdata()) == list(range(13))
    assert list(line.get_ydata()) == [*curves.lr, curves.lr[-1]]
    assert [axes.get_ylabel() for axes in others] == ["dropout", "margin"]
    assert list(others[1].lines[0].get_ydata())[:12] == list(curves.margins["push"])
    assert figure.get_suptitle() == "name"
