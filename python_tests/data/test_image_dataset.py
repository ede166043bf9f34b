from __future__ import annotations

import pickle
import random
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from pyreid.data import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ImageDataset,
    ImageRecord,
    RandomErasing,
    RandomIdentitySampler,
    Sample,
    SampleKey,
    eval_transform,
    train_transform,
)
from pyreid.data.image_dataset import read_rgb
from pyreid.errors import DatasetError
from python_tests.data.layout_files import write_image

pytest.importorskip("torchvision")


@pytest.fixture
def records(tmp_path: Path) -> list[ImageRecord]:
    made = []
    for number in range(12):
        path = tmp_path / f"{number}.jpg"
        write_image(path, size=(40, 20), seed=number)
        made.append(ImageRecord(path=path, pid=10 * (number // 4 + 1), camid=number % 3))
    return made


def augmented(records: list[ImageRecord]) -> ImageDataset:
    transform = train_transform((32, 16), pad=4, erasing=RandomErasing(p=0.5))
    return ImageDataset(records, transform, {10: 0, 20: 1, 30: 2})


def test_sample_fields_and_normalisation(records: list[ImageRecord]) -> None:
    dataset = ImageDataset(records, eval_transform((40, 20)), {10: 0, 20: 1, 30: 2})
    sample = dataset[5]
    assert isinstance(sample, Sample)
    assert (sample.label, sample.camera, sample.index) == (1, 2, 5)
    assert sample.image.dtype == torch.float32
    assert sample.image.shape == (3, 40, 20)
    assert type(sample.image) is torch.Tensor
    pixels = torch.from_numpy(np.asarray(Image.open(records[5].path), dtype=np.float32) / 255).permute(2, 0, 1)
    expected = (pixels - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[:, None, None]
    torch.testing.assert_close(sample.image, expected, rtol=0, atol=1e-5)
    assert len(dataset) == 12
    assert dataset.labels == (0,) * 4 + (1,) * 4 + (2,) * 4


def test_without_labels_the_identity_is_the_label(records: list[ImageRecord]) -> None:
    dataset = ImageDataset(records, eval_transform((8, 8)))
    assert dataset[11].label == 30
    with pytest.raises(ValueError, match="no label for 1 identities, the first is 30"):
        ImageDataset(records, eval_transform((8, 8)), {10: 0, 20: 1})


def test_a_key_alone_decides_the_augmentation(records: list[ImageRecord]) -> None:
    dataset = augmented(records)
    torch.manual_seed(1)
    first = dataset[SampleKey(3, 77)].image
    torch.manual_seed(2)
    dataset[SampleKey(4, 5)]
    assert torch.equal(dataset[SampleKey(3, 77)].image, first)
    others = [dataset[SampleKey(3, seed)].image for seed in range(10)]
    assert not any(torch.equal(other, first) for other in others)
    assert len({other.numpy().tobytes() for other in others}) == 10


def test_a_key_leaves_the_global_random_states_as_they_are(records: list[ImageRecord]) -> None:
    dataset = augmented(records)
    torch.manual_seed(5)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    dataset[SampleKey(0, 123)]
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])  # noqa: NPY002


def test_random_state_is_restored_after_an_error(records: list[ImageRecord]) -> None:
    dataset = augmented(records)
    records[2].path.write_bytes(b"no image")
    state = torch.get_rng_state()
    with pytest.raises(DatasetError, match=r"2\.jpg: cannot be read as an image"):
        dataset[SampleKey(2, 9)]
    assert torch.equal(torch.get_rng_state(), state)


def test_truncated_and_missing_files_are_named(records: list[ImageRecord]) -> None:
    dataset = ImageDataset(records, eval_transform((8, 8)))
    records[0].path.write_bytes(records[0].path.read_bytes()[:-300])
    with pytest.raises(DatasetError, match=r"0\.jpg: cannot be read as an image .*truncated"):
        dataset[0]
    records[1].path.unlink()
    with pytest.raises(DatasetError, match=r"1\.jpg: cannot be read as an image"):
        dataset[1]


def test_damage_that_pillow_meets_with_a_type_error_is_named(tmp_path: Path) -> None:
    path = tmp_path / "0.tif"
    Image.new("RGB", (4, 4)).save(path)
    content = path.read_bytes()
    tag = content.index(struct.pack("<HH", 273, 4))  # where the pixels lie, an integer; now of type float
    path.write_bytes(content[: tag + 2] + struct.pack("<H", 11) + content[tag + 4 :])
    with pytest.raises(DatasetError, match=r"0\.tif: cannot be read as an image"):
        read_rgb(ImageRecord(path, 0, 0))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (8, 8)).save(tmp_path / "odd.jpg")
    modes: list[str] = []

    def transform(image: Image.Image) -> torch.Tensor:
        modes.append(image.mode)
        return eval_transform((8, 8))(image)

    assert ImageDataset([ImageRecord(tmp_path / "odd.jpg", 1, 0)], transform)[0].image.shape == (3, 8, 8)
    assert modes == ["RGB"]


def test_batches_do_not_depend_on_the_number_of_workers(records: list[ImageRecord]) -> None:
    dataset = augmented(records)
    sampler = RandomIdentitySampler(dataset.labels, num_ids=2, num_instances=2, seed=4)
    alone = list(DataLoader(dataset, batch_sampler=sampler))
    helped = list(DataLoader(dataset, batch_sampler=sampler, num_workers=2))
    assert len(alone) == len(helped) == len(sampler)
    for one, two in zip(alone, helped, strict=True):
        assert isinstance(one, Sample)
        assert one.image.shape == (4, 3, 32, 16)
        for mine, other in zip(one, two, strict=True):
            assert torch.equal(mine, other)


def test_flip_and_crop(tmp_path: Path) -> None:
    # Left half black, right half white: a flip swaps them, and a padded crop shows black borders.
    pixels = np.zeros((32, 16, 3), dtype=np.uint8)
    pixels[:, 8:] = 255
    image = Image.fromarray(pixels)
    plain = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    flipped = train_transform((32, 16), flip=1.0, pad=0, **plain)(image)
    assert flipped[:, :, :8].min() == 1
    assert flipped[:, :, 8:].max() == 0
    crop = train_transform((32, 16), flip=0.0, pad=6, **plain)
    white = [int((crop(image)[0] > 0.5).sum()) for _ in range(60)]
    assert min(white) < 32 * 8
    assert len(set(white)) > 10


def test_transforms_can_be_pickled() -> None:
    pickle.loads(pickle.dumps(train_transform((8, 4), erasing=RandomErasing())))
    pickle.loads(pickle.dumps(eval_transform((8, 4))))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"flip": 2.0}, "flip must be in"),
        ({"pad": -1}, "pad must be at least 0"),
        ({"mean": (0.5,)}, "mean and std must have 3 values"),
        ({"std": (1.0, 0.0, 1.0)}, "std must be positive"),
    ],
)
def test_bad_transform_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train_transform((8, 8), **arguments)
    with pytest.raises(ValueError, match="size must be a positive"):
        eval_transform((0, 8))
