"""The augmentation keys of a recipe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pyreid.data import load_dataset
from pyreid.errors import RecipeError
from pyreid.inference.images import ImageInput
from pyreid.training import Recipe
from pyreid.training.datamodule import make_train_images

LOOK = ImageInput((32, 16), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


@pytest.mark.filterwarnings("ignore::pyreid.data.DatasetWarning")
def test_keys_reach_the_transforms(make_recipe: Callable[..., Recipe], market: Path) -> None:
    recipe = make_recipe(
        "data.pad=0",
        "data.flip=0.0",
        "data.translation={probability: 0.25, scale: 1.5}",
        "data.center_crop=[24, 12]",
        "data.jitter={hue: 0.1}",
        "data.lighting={probability: 0.75, std: 0.2}",
        "data.erasing={fill: [1.0, 2.0, 3.0], area: [0.02, 0.2]}",
    )
    images = make_train_images(load_dataset("market1501", market), recipe.data, LOOK)
    shift, crop, jitter, *_ = steps = images.transform.transforms  # type: ignore[attr-defined]
    assert (shift.p, shift.scale, shift.size) == (0.25, 1.5, (32, 16))
    assert crop.crop == (24, 12)
    assert (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue) == (
        (0.8, 1.2), (0.85, 1.15), None, (-0.1, 0.1),
    )  # fmt: skip
    assert (steps[5].p, steps[5].std) == (0.75, 0.2)
    assert (steps[-1].fill, steps[-1].area) == ((1.0, 2.0, 3.0), (0.02, 0.2))
    assert images[0].image.shape == (3, 32, 16)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("data.translation={scale: 0.5}", r"data\.translation\.scale"),
        ("data.jitter={hue: 0.7}", r"data\.jitter\.hue"),
        ("data.lighting={std: -1.0}", r"data\.lighting\.std"),
        ("data.erasing={fill: black}", r"data\.erasing\.fill"),
        ("data.erasing={area: [0.2, 1.0]}", r"data\.erasing"),
        ("data.translation={}", "pad is 2, but translation crops already"),
        ("data.center_crop=[0, 4]", r"data\.center_crop"),
    ],
)
def test_wrong_values_name_the_key(make_recipe: Callable[..., Recipe], override: str, key: str) -> None:
    with pytest.raises(RecipeError, match=key):
        make_recipe(override)


@pytest.mark.filterwarnings("ignore::pyreid.data.DatasetWarning")
def test_a_crop_larger_than_the_images(make_recipe: Callable[..., Recipe], market: Path) -> None:
    recipe = make_recipe("data.center_crop=[40, 8]")
    with pytest.raises(RecipeError, match=r"'data\.center_crop' is \[40, 8\], more than the images' size \[32, 16\]"):
        make_train_images(load_dataset("market1501", market), recipe.data, LOOK)
