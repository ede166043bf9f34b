"""The keys of ``sampler`` that choose how batches are composed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest

from pyreid.data import load_dataset
from pyreid.errors import RecipeError
from pyreid.inference.images import ImageInput
from pyreid.training import Recipe
from pyreid.training.datamodule import ReIDDataModule
from pyreid.training.preflight import check_training_data

MakeRecipe = Callable[..., Recipe]
pytestmark = pytest.mark.filterwarnings("ignore::pyreid.data.DatasetWarning")

CLASSIFIED = "losses=[{type: cross_entropy}]"
SHUFFLED = "sampler={batches: shuffled, num_ids: 2, num_instances: 3}"  # of 4 images, batches of identities leave one


def batches(recipe: Recipe, market: Path, epoch: int) -> list[list[int]]:
    """The images of each batch of an epoch; the tiny data set has 6 identities with 4 images each."""
    images = ImageInput(size=(32, 16), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    sampler = ReIDDataModule(load_dataset("market1501", market), recipe, images).sampler
    sampler.set_epoch(epoch)
    return [[key.index for key in batch] for batch in sampler]


def ordered(groups: Iterable[list[int]]) -> list[int]:
    return sorted(chain.from_iterable(groups))


def test_shuffled_batches_have_every_image_once(make_recipe: MakeRecipe, market: Path) -> None:
    recipe = make_recipe(CLASSIFIED, SHUFFLED)
    first, second = (batches(recipe, market, epoch) for epoch in (0, 1))
    assert [len(batch) for batch in first] == [6] * 4
    assert ordered(first) == list(range(24))
    assert first != second
    assert batches(recipe, market, 0) == first


def test_shuffled_batches_fill_epochs_of_a_fixed_length(make_recipe: MakeRecipe, market: Path) -> None:
    recipe = make_recipe(CLASSIFIED, SHUFFLED, "trainer.iterations_per_epoch=10")
    drawn = batches(recipe, market, 0)
    assert len(drawn) == 10
    assert ordered(drawn[:4]) == ordered(drawn[4:8]) == list(range(24))


def test_an_epoch_of_identities_has_each_once(make_recipe: MakeRecipe, market: Path) -> None:
    dataset = load_dataset("market1501", market)
    labels = [dataset.train_labels[record.pid] for record in dataset.train]
    drawn = batches(make_recipe("sampler.epoch_of=identities"), market, 0)
    assert len(drawn) == 2
    assert sorted(labels[index] for index in ordered(drawn)) == sorted(list(range(6)) * 2)
    assert len(batches(make_recipe("sampler.epoch_of=images"), market, 0)) > 2, "there are two groups of each identity"


def test_images_of_an_identity_from_all_cameras(make_recipe: MakeRecipe, market: Path) -> None:
    dataset = load_dataset("market1501", market)

    def cameras(*overrides: str) -> list[set[int]]:
        drawn = [batch for epoch in range(4) for batch in batches(make_recipe(*overrides), market, epoch)]
        pairs = [batch[i : i + 2] for batch in drawn for i in range(0, len(batch), 2)]
        return [{dataset.train[index].camid for index in pair} for pair in pairs]

    assert all(pair == {0, 1} for pair in cameras("sampler.across_cameras=true"))
    assert not all(pair == {0, 1} for pair in cameras())


def test_cameras_must_be_known(make_recipe: MakeRecipe, market: Path) -> None:
    dataset = load_dataset("market1501", market)
    blind = replace(dataset, train=tuple(replace(record, camid=-1) for record in dataset.train))
    with pytest.raises(RecipeError, match=r"'sampler\.across_cameras' is true, but training images of .* no cameras"):
        check_training_data(blind, make_recipe("sampler.across_cameras=true"))
    check_training_data(blind, make_recipe())


def test_too_few_images_for_a_shuffled_batch(make_recipe: MakeRecipe, market: Path) -> None:
    dataset = load_dataset("market1501", market)
    recipe = make_recipe(CLASSIFIED, "sampler={batches: shuffled, num_ids: 13, num_instances: 2}")
    with pytest.raises(RecipeError, match=r"'sampler' makes batches of 26 images \(13 x 2\), but .* has only 24"):
        check_training_data(dataset, recipe)
    # More places than identities are no mistake here.
    check_training_data(dataset, make_recipe(CLASSIFIED, "sampler={batches: shuffled, num_ids: 8, num_instances: 3}"))


@pytest.mark.parametrize(
    ("overrides", "match"),
    [
        (("sampler.batches=random",), r"'sampler\.batches' is 'random'; expected 'identities' or 'shuffled'"),
        (("sampler.batches=shuffled",), "sampler.batches is 'shuffled', but a triplet loss needs 'identities'"),
        (
            (CLASSIFIED, "sampler.batches=shuffled", "sampler.epoch_of=identities"),
            "'sampler': epoch_of is 'identities', but batches is 'shuffled'",
        ),
        (
            (CLASSIFIED, "sampler.batches=shuffled", "sampler.across_cameras=true"),
            "'sampler': across_cameras is true, but batches is 'shuffled'",
        ),
        (
            ("losses=[{type: am_softmax}]", "mining={}", "sampler.across_cameras=true"),
            "without regard to cameras; leave sampler.across_cameras out",
        ),
        (
            ("losses=[{type: am_softmax}]", "mining={}", "sampler.epoch_of=identities"),
            "mining composes its batches itself",
        ),
    ],
)
def test_wrong_settings_name_the_key(make_recipe: MakeRecipe, overrides: tuple[str, ...], match: str) -> None:
    with pytest.raises(RecipeError, match=match):
        make_recipe(*overrides)
