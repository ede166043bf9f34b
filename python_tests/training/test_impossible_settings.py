"""Settings that are each of the right type and together make no run: an error that names the key, before any data."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pyreid.errors import RecipeError
from pyreid.training import Recipe

MakeRecipe = Callable[..., Recipe]
CENTRES = "{type: center, distance: cosine, embedding: local}"
CYCLES = "cycles: {begin: 2, count: 1, length: 2, lr: 0.1"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            [f"losses=[{CENTRES}, {{type: glob_push, embedding: local, margin: 0.5, final_margin: 0.3}}]"],
            r"'losses\.1': final_margin is 0\.3, less than margin, 0\.5",
        ),
        (
            ["losses=[{type: push, smart: false, margin: 0.7}]"],
            r"'losses\.0': final_margin is 0\.6, less than margin, 0\.7",
        ),
        (["losses=[{type: arcface, margin: 3.5}]"], r"'losses\.0\.margin' is 3\.5; expected .* less than 3\.14"),
        (["losses.0.weight=0.0", "losses.1.weight=0.0"], "all weights of the losses are 0"),
        (
            ["sampler={num_ids: 1, num_instances: 1}", "losses=[{type: cross_entropy}]"],
            r"'sampler': num_ids x num_instances is 1, but batch norm needs at least 2 images in a batch",
        ),
        (
            [f"schedule={{warmup: {{epochs: 2}}, decay: {{type: cosine}}, {CYCLES}}}}}", "trainer.epochs=4"],
            r"schedule\.warmup\.epochs is 2, which leaves no epoch for the cosine: schedule\.cycles\.begin is 2",
        ),
        (
            ["schedule={warmup: {epochs: 4}, decay: {type: cosine}}", "trainer.epochs=4"],
            r"schedule\.warmup\.epochs is 4, which leaves no epoch for the cosine: trainer\.epochs is 4",
        ),
        (
            ["schedule.decay={type: cosine, min_lr: 0.01}", "schedule.warmup=null"],
            r"schedule\.decay\.min_lr is 0\.01, above optimizer\.lr, 0\.001",
        ),
        (
            [f"schedule={{{CYCLES}, min_lr: 0.2}}}}", "trainer.epochs=4"],
            r"'schedule\.cycles': min_lr is 0\.2, above the last cycle's first learning rate, 0\.1",
        ),
        (
            ["schedule={cycles: {begin: 0, count: 3, length: 1, lr: 0.1, min_lr: 0.05}}", "trainer.epochs=3"],
            r"min_lr is 0\.05, above the last cycle's first learning rate, 0\.049",
        ),
    ],
)
def test_they_are_refused(make_recipe: MakeRecipe, overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        make_recipe(*overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["losses=[{type: push, smart: false, margin: 0.7, final_margin: null}]"],
        ["losses=[{type: push, smart: false, margin: 0.7, final_margin: 0.7}]"],
        ["losses.0.weight=0.0"],
        [f"schedule={{warmup: {{epochs: 1}}, decay: {{type: cosine}}, {CYCLES}}}}}", "trainer.epochs=4"],
        # Cycles from the first epoch on leave neither warm-up nor decay an epoch.
        [
            "schedule={warmup: {epochs: 2}, decay: {type: cosine}, cycles: {begin: 0, count: 1, length: 4, lr: 0.1}}",
            "trainer.epochs=4",
        ],
        ["schedule={cycles: {begin: 0, count: 3, length: 1, lr: 0.1, min_lr: 0.04}}", "trainer.epochs=3"],
    ],
)
def test_what_is_just_possible_is_not(make_recipe: MakeRecipe, overrides: list[str]) -> None:
    make_recipe(*overrides)
