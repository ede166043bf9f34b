"""Embeddings of files: order, batches, flips, and a model that is left as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pyreid.data import ImageRecord, ReIDDataset, eval_transform, load_dataset
from pyreid.data.image_dataset import read_rgb
from pyreid.errors import DatasetError
from pyreid.models import ReIDModel, create_model
from pyreid.training import evaluate_model, extract_features
from pyreid.training.datamodule import ImageInput
from pyreid.training.features import extract_test_features, num_test_images

pytestmark = pytest.mark.filterwarnings("ignore::pyreid.data.DatasetWarning")

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
LOOK = ImageInput(size=(32, 16), mean=MEAN, std=STD)


@pytest.fixture
def model() -> ReIDModel:
    torch.manual_seed(3)
    return create_model("rmnet", num_classes=5)


@pytest.fixture(scope="module")
def dataset(market: Path) -> ReIDDataset:
    return load_dataset("market1501", market)


def embed_one_by_one(model: ReIDModel, records: tuple[ImageRecord, ...]) -> np.ndarray:
    transform = eval_transform(LOOK.size, mean=MEAN, std=STD)
    model.eval()
    with torch.no_grad():
        return np.stack([model(transform(read_rgb(record))[None])[0].numpy() for record in records])


def test_features_are_those_of_the_single_images_in_order(model: ReIDModel, dataset: ReIDDataset) -> None:
    features, pids, camids = extract_features(model, dataset.gallery, images=LOOK, batch_size=5)
    assert (features.dtype, pids.dtype, camids.dtype) == (np.float32, np.int64, np.int64)
    assert features.shape == (len(dataset.gallery), model.embedding_dim)
    np.testing.assert_allclose(features, embed_one_by_one(model, dataset.gallery), atol=1e-5)
    assert pids.tolist() == [record.pid for record in dataset.gallery]
    assert camids.tolist() == [record.camid for record in dataset.gallery]


def test_batch_size_and_workers_do_not_matter(model: ReIDModel, dataset: ReIDDataset) -> None:
    whole, _, _ = extract_features(model, dataset.gallery, images=LOOK, batch_size=64)
    parts, _, _ = extract_features(model, dataset.gallery, images=LOOK, batch_size=1, workers=1)
    np.testing.assert_allclose(whole, parts, atol=1e-5)


def test_modes_gradients_and_random_state_are_as_before(model: ReIDModel, dataset: ReIDDataset) -> None:
    model.train()
    model.stem.eval()  # a frozen part
    modes = [module.training for module in model.modules()]
    buffers = [buffer.clone() for buffer in model.buffers()]
    state = torch.get_rng_state()
    extract_features(model, dataset.query, images=LOOK)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(a, b) for a, b in zip(buffers, model.buffers(), strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()


def test_modes_are_restored_after_an_error(model: ReIDModel, tmp_path: Path) -> None:
    model.train()
    (tmp_path / "broken.jpg").write_bytes(b"not an image")
    with pytest.raises(DatasetError, match=r"broken\.jpg"):
        extract_features(model, [ImageRecord(tmp_path / "broken.jpg", 1, 0)], images=LOOK)
    assert all(module.training for module in model.modules())


def test_flips_add_or_concatenate_the_mirror_image(model: ReIDModel, dataset: ReIDDataset) -> None:
    transform = eval_transform(LOOK.size, mean=MEAN, std=STD)
    image = transform(read_rgb(dataset.query[0]))[None]
    model.eval()
    with torch.no_grad():
        plain, mirrored = model(image)[0].numpy(), model(image.flip(3))[0].numpy()
    assert np.abs(plain - mirrored).max() > 1e-3, "the test would see nothing on a symmetric image"
    both, joined = plain + mirrored, np.concatenate([plain, mirrored])
    mean, _, _ = extract_features(model, dataset.query[:1], images=LOOK, flip="mean")
    concat, _, _ = extract_features(model, dataset.query[:1], images=LOOK, flip="concat")
    np.testing.assert_allclose(mean[0], both / np.linalg.norm(both), atol=1e-5)
    np.testing.assert_allclose(concat[0], joined / np.linalg.norm(joined), atol=1e-5)


def test_junk_is_left_out_of_the_gallery(model: ReIDModel, dataset: ReIDDataset) -> None:
    junk = ImageRecord(dataset.gallery[0].path, -1, 0)
    noisy = ReIDDataset("market1501", dataset.root, dataset.train, dataset.query, (junk, *dataset.gallery))
    counted: list[int] = []
    features = extract_test_features(model, noisy, images=LOOK, batch_size=4, on_batch=counted.append)
    assert features.gallery_ids.tolist() == [record.pid for record in dataset.gallery]
    assert sum(counted) == num_test_images(noisy) == len(dataset.query) + len(dataset.gallery)


def test_evaluate_model_is_evaluate_on_its_features(model: ReIDModel, dataset: ReIDDataset) -> None:
    import pyreid

    features = extract_test_features(model, dataset, images=LOOK)
    expected = pyreid.evaluate(
        features.query,
        features.gallery,
        features.query_ids,
        features.gallery_ids,
        features.query_cams,
        features.gallery_cams,
        **pyreid.evaluation.preset("market1501-official"),
    )
    result = evaluate_model(model, dataset, images=LOOK)
    assert result.map == expected.map
    assert 0 < result.map <= 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, r: extract_features(m, []), "records: got no image"),
        (lambda m, r: extract_features(m, r, batch_size=0), "batch_size: got 0"),
        (lambda m, r: extract_features(m, r, flip="both"), "flip: got 'both'"),
    ],
)
def test_wrong_arguments_are_named(
    model: ReIDModel, dataset: ReIDDataset, call: Callable[..., object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call(model, dataset.query)
