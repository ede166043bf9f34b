"""``FeatureExtractor``: what it takes, what comes out, and what it says about wrong input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import pyreid
from pyreid.errors import DatasetError


class Tiny(nn.Module):
    """Keeps where in the image a value was, so that sizes, order, channels and flips show."""

    default_input_size = (8, 4)
    pixel_mean = (0.4, 0.5, 0.6)
    pixel_std = (0.2, 0.25, 0.3)

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 8 * 4, 5)
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.batches.append(len(images))
        return self.linear(images.flatten(1))


@pytest.fixture
def arrays() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (8, 4, 3), dtype=np.uint8) for _ in range(7)]


def expected_of(model: Tiny, arrays: list[np.ndarray]) -> np.ndarray:
    pixels = np.stack(arrays).astype(np.float64) / 255
    normal = (pixels - np.array(Tiny.pixel_mean)) / np.array(Tiny.pixel_std)
    flat = normal.transpose(0, 3, 1, 2).reshape(len(arrays), -1)
    weight, bias = (tensor.detach().double().numpy() for tensor in (model.linear.weight, model.linear.bias))
    return flat @ weight.T + bias


def save(folder: Path, arrays: list[np.ndarray]) -> list[Path]:
    paths = [folder / f"{index}.png" for index in range(len(arrays))]
    for path, array in zip(paths, arrays, strict=True):
        Image.fromarray(array).save(path)
    return paths


def test_paths_arrays_tensors_and_images_give_the_same(arrays: list[np.ndarray], tmp_path: Path) -> None:
    model = Tiny()
    extract = pyreid.FeatureExtractor(model, batch_size=3)
    paths = save(tmp_path, arrays)
    features = extract(paths)
    assert isinstance(features, np.ndarray)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected_of(model, arrays), atol=1e-5)
    assert model.batches == [3, 3, 1]
    stacked = np.stack(arrays)
    tensors = torch.from_numpy(stacked).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (Tiny.pixel_mean, Tiny.pixel_std))
    for same in ([str(path) for path in paths], arrays, stacked, tensors, [Image.fromarray(one) for one in arrays]):
        np.testing.assert_array_equal(extract(same), features)
    np.testing.assert_allclose(extract((tensors / 255 - mean) / std), features, atol=1e-5)
    for single in (paths[2], arrays[2], tensors[2]):
        np.testing.assert_allclose(extract(single), features[2:3], atol=1e-6)
    assert torch.equal(extract(paths, return_torch=True), torch.from_numpy(features))


def test_images_are_resized_to_the_models_size_or_the_one_given(arrays: list[np.ndarray]) -> None:
    large = [np.kron(array, np.ones((2, 2, 1), dtype=np.uint8)) for array in arrays]
    assert pyreid.FeatureExtractor(Tiny())(large).shape == (7, 5)
    plain = nn.Flatten()
    with pytest.raises(ValueError, match=r"size: expected \(height, width\) for Flatten"):
        pyreid.FeatureExtractor(plain)
    flat = pyreid.FeatureExtractor(plain, size=(2, 3), mean=(0, 0, 0), std=(1, 1, 1))(np.full((4, 4, 3), 255, np.uint8))
    np.testing.assert_allclose(flat, np.ones((1, 18)))


def test_flips(arrays: list[np.ndarray]) -> None:
    model = Tiny()
    mirrored = [array[:, ::-1] for array in arrays]
    one, other = expected_of(model, arrays), expected_of(model, mirrored)
    for flip, both in (("mean", one + other), ("concat", np.concatenate([one, other], axis=1))):
        features = pyreid.FeatureExtractor(model, flip=flip)(arrays)
        np.testing.assert_allclose(features, both / np.linalg.norm(both, axis=1, keepdims=True), atol=1e-5)


def test_stream_continues_with_the_same_bits(arrays: list[np.ndarray]) -> None:
    extract = pyreid.FeatureExtractor(Tiny(), batch_size=2)
    whole = list(extract.stream(arrays))
    assert [len(batch) for batch in whole] == [2, 2, 2, 1]
    for batch, again in zip(whole[2:], extract.stream(arrays, start=4), strict=True):
        np.testing.assert_array_equal(batch, again)
    with pytest.raises(ValueError, match="start: expected a multiple of batch_size=2, got 3"):
        next(extract.stream(arrays, start=3))


def test_the_model_is_left_as_it_was(arrays: list[np.ndarray]) -> None:
    model = Tiny().train()
    state = torch.get_rng_state()
    for _ in pyreid.FeatureExtractor(model).stream(arrays):
        assert torch.is_grad_enabled(), "the caller's code runs as without the generator"
        assert not model.training
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)


def test_a_name_needs_weights_or_warns(tmp_path: Path, arrays: list[np.ndarray]) -> None:
    torch.manual_seed(1)
    model = pyreid.create_model("rmnet")
    torch.save(model.state_dict(), tmp_path / "w.pt")
    expected = pyreid.FeatureExtractor(model, size=(32, 16))(arrays[:2])
    by_name = pyreid.FeatureExtractor("rmnet", weights=tmp_path / "w.pt", size=(32, 16), device="cpu")
    np.testing.assert_array_equal(by_name(arrays[:2]), expected)
    with pytest.warns(UserWarning, match="rmnet has fresh weights"):
        pyreid.FeatureExtractor("rmnet")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_is_no_image_is_named(arrays: list[np.ndarray], tmp_path: Path, workers: int) -> None:
    paths = save(tmp_path, arrays)
    paths[4].write_bytes(paths[4].read_bytes()[:60])
    with pytest.raises(DatasetError, match=r"^\S*4\.png: cannot be read as an image"):
        pyreid.FeatureExtractor(Tiny(), workers=workers, batch_size=2)(paths)


def test_features_that_are_not_finite_name_the_image(arrays: list[np.ndarray], tmp_path: Path) -> None:
    model = Tiny()
    paths = save(tmp_path, [np.zeros((8, 4, 3), np.uint8)] * 3 + [np.full((8, 4, 3), 255, np.uint8)])
    model.forward = lambda images: torch.where(images.mean((1, 2, 3)) > 0, torch.nan, 0.0)[:, None]  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"model: NaN or infinite features for \S*3\.png"):
        pyreid.FeatureExtractor(model, batch_size=2)(paths)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        ([], ValueError, "images: expected at least one, got none"),
        (7, TypeError, "images: expected a path, an array, a tensor or a sequence of them, got int"),
        ([b"x"], TypeError, "images: item 0: expected a path, an array or a tensor, got bytes"),
        (np.zeros((4, 4), np.uint8), ValueError, r"item 0: expected an array \(H, W, 3\), got shape \(4, 4\)"),
        (np.zeros((4, 4, 3), np.float32), TypeError, "item 0: expected uint8 RGB, got float32"),
        (torch.zeros(4, 4, 3), ValueError, r"item 0: expected a tensor \(3, H, W\), got shape \(4, 4, 3\)"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), TypeError, "expected a uint8 or floating-point tensor"),
    ],
)
def test_wrong_images(images: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pyreid.FeatureExtractor(Tiny())(images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"batch_size": 2.5}, r"batch_size: got 2\.5, expected a whole number"),
        ({"flip": "both"}, "flip: got 'both'"),
        ({"workers": -1}, "workers: expected 0 or more, got -1"),
        ({"workers": "2"}, "workers: expected 0 or more, got '2'"),
        ({"device": "gpu"}, "device: got 'gpu', expected a torch.device, or a name such as cpu or cuda:0"),
        ({"device": "cuda:99"}, "device: got cuda:99, but there are [0-9]+ CUDA devices here"),
        ({"size": (0, 4)}, "size: expected a positive"),
        ({"std": (1, 1)}, "std: expected 3 values"),
        ({"std": (1, 0, 1)}, "std: expected positive values"),
        ({"std": (1, np.nan, 1)}, "std: expected positive values, got"),
        ({"std": (1, np.inf, 1)}, "std: expected positive values, got"),
        ({"std": (1, -1, 1)}, "std: expected positive values, got"),
        ({"mean": (0, np.nan, 0)}, "mean: expected values from 0 to 1"),
        ({"mean": (0, 0, -np.inf)}, "mean: expected values from 0 to 1"),
        ({"mean": (123.7, 116.3, 103.5)}, "mean: expected values from 0 to 1, as RGB is divided by 255 before"),
        ({"size": (8.5, 4)}, "size: expected a positive"),
        ({"size": (float("nan"), 4)}, "size: expected a positive"),
        ({"size": ()}, "size: expected a positive"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pyreid.FeatureExtractor(Tiny(), **options)


@pytest.mark.parametrize("workers", [0, 1])
def test_normalised_tensors_of_several_sizes(workers: int) -> None:
    with pytest.raises(ValueError, match=r"of the model's size, got \(8, 4\), \(8, 5\)"):
        pyreid.FeatureExtractor(Tiny(), workers=workers)([torch.zeros(3, 8, 4), torch.zeros(3, 8, 5)])


def test_mean_and_std_of_numpy_and_torch_are_plain_numbers() -> None:
    look = pyreid.FeatureExtractor(Tiny(), mean=np.float32([0, 0.5, 1]), std=torch.tensor([1.0, 2.0, 3.0])).images
    assert (look.mean, look.std) == ((0.0, 0.5, 1.0), (1.0, 2.0, 3.0))
    assert all(type(value) is float for value in (*look.mean, *look.std))


def test_models_of_another_kind(arrays: list[np.ndarray]) -> None:
    with pytest.raises(TypeError, match="model: got int, expected a name, the folder of a run, a torch"):
        pyreid.FeatureExtractor(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"model: expected embeddings \(7, D\), got shape \(7, 3, 8, 4\)"):
        pyreid.FeatureExtractor(nn.Identity(), size=(8, 4))(arrays)
