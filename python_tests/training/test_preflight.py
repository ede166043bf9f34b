"""Checks before the first step leave everything as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pyreid.data import ReIDDataset, load_dataset
from pyreid.errors import TrainingError
from pyreid.models import create_model
from pyreid.training import Recipe
from pyreid.training.datamodule import ReIDDataModule, image_input
from pyreid.training.preflight import check_losses, fingerprint

pytestmark = pytest.mark.filterwarnings("ignore::pyreid.data.DatasetWarning")


def test_looking_up_the_losses_changes_neither_the_model_nor_the_random_state(
    make_recipe: Callable[..., Recipe], market: Path
) -> None:
    recipe = make_recipe()
    model = create_model("rmnet", num_classes=6)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    data = ReIDDataModule(load_dataset("market1501", market), recipe, image_input(model, recipe.data))
    state = torch.get_rng_state()
    check_losses(model, data, recipe, num_classes=6)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_damaged_weights_are_found(make_recipe: Callable[..., Recipe], market: Path) -> None:
    recipe = make_recipe()
    model = create_model("rmnet", num_classes=6)
    with torch.no_grad():
        model.stem.conv.weight[0] = float("nan")  # type: ignore[union-attr,operator,index]
    data = ReIDDataModule(load_dataset("market1501", market), recipe, image_input(model, recipe.data))
    with pytest.raises(TrainingError, match="is not finite before the first step"):
        check_losses(model, data, recipe, num_classes=6)


def test_the_fingerprint_sees_names_identities_and_cameras_but_not_the_folder(market: Path) -> None:
    dataset = load_dataset("market1501", market)
    first, *rest = dataset.train

    def variant(**changes: object) -> str:
        import dataclasses

        train = (dataclasses.replace(first, **changes), *rest)  # type: ignore[arg-type]
        return fingerprint(ReIDDataset("x", Path("y"), train, dataset.query, dataset.gallery))

    assert variant() == fingerprint(dataset)
    assert variant(path=Path("/elsewhere") / first.path.name) == fingerprint(dataset)
    assert len({variant(pid=99), variant(camid=5), variant(path=Path("other.jpg")), variant()}) == 4
