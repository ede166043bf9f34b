"""Ten crops: which they are, and their mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

import pyreid
from pyreid.inference.crops import ten_crops
from pyreid.training.settings.trainer import EvaluationSettings


class Linear(nn.Module):
    """Every pixel has a weight of its own."""

    default_input_size = (16, 8)
    pixel_mean = (0.4, 0.5, 0.6)
    pixel_std = (0.2, 0.25, 0.3)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3 * 16 * 8, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(images.flatten(1)).square()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{index}.png" for index in range(5)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (20, 11, 3), dtype=np.uint8)).save(path)
    return paths


def test_the_crops_are_torchvisions() -> None:
    images = torch.rand(2, 3, 18, 9)
    for mine, theirs in zip(ten_crops(images, (16, 8)), v2.TenCrop((16, 8))(images), strict=True):
        assert torch.equal(mine, theirs)


def test_ten_crop_is_the_plain_mean_of_the_crops_embedded_by_hand(files: list[Path]) -> None:
    model = Linear().eval()
    features = pyreid.FeatureExtractor(model, crops="ten", batch_size=2)(files)
    look = v2.Compose([
        v2.Resize([18, 9], antialias=True), v2.ToImage(), v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(list(Linear.pixel_mean), list(Linear.pixel_std)),
    ])  # fmt: skip
    for path, row in zip(files, features, strict=True):
        image = look(Image.open(path))
        total = torch.zeros(5)
        for top, left in ((0, 0), (0, 1), (2, 0), (2, 1), (1, 0)):
            for view in (image, image.flip(2)):
                with torch.no_grad():
                    total += model(view[None, :, top : top + 16, left : left + 8])[0]
        np.testing.assert_allclose(row, (total / 10).numpy(), rtol=1e-5)
    assert np.abs(np.linalg.norm(features, axis=1) - 1).min() > 1e-3, "not normalised"


def test_a_mirrored_image_has_the_same_feature() -> None:
    images = torch.rand(2, 3, 18, 9)
    model = Linear().eval()
    extract = pyreid.FeatureExtractor(model, crops="ten")
    np.testing.assert_allclose(extract(images), extract(images.flip(3)), rtol=1e-5)


def test_wrong_values() -> None:
    with pytest.raises(ValueError, match="crops: got 'five', expected 'none' or 'ten'"):
        pyreid.FeatureExtractor(Linear(), crops="five")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="flip: got 'mean' with crops='ten'"):
        pyreid.FeatureExtractor(Linear(), crops="ten", flip="mean")
    with pytest.raises(ValueError, match="expected at least the crops' size 16 x 8"):
        pyreid.FeatureExtractor(Linear(), crops="ten")(torch.rand(1, 3, 15, 9))
    with pytest.raises(ValueError, match="has mirror images already"):
        EvaluationSettings(crops="ten", flip="concat")
