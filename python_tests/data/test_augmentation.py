"""The augmentations one by one, and in their order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from pyreid.data import RandomErasing, train_transform
from pyreid.data.center_crop import CenterCropResize
from pyreid.data.lighting import RandomLighting
from pyreid.data.resized_crop import RandomResizedShift

SIZE = (32, 16)


def picture(seed: int = 0, size: tuple[int, int] = (40, 20)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def test_shift_is_a_crop_of_the_enlarged_image_and_reaches_every_place() -> None:
    image = picture()
    enlarged = F.pil_to_tensor(F.resize(image, [36, 18], antialias=True))
    views = enlarged.unfold(1, 32, 1).unfold(2, 16, 1)  # (3, 5, 3, 32, 16)
    shift = RandomResizedShift(SIZE, p=1.0)
    places = set()
    for _ in range(200):
        result = F.pil_to_tensor(shift(image))
        same = (views == result[:, None, None]).all(dim=(0, 3, 4)).nonzero().tolist()
        assert len(same) == 1
        places.add(tuple(same[0]))
    assert len(places) == 15


def test_shift_happens_with_its_probability() -> None:
    image = picture()
    plain = F.pil_to_tensor(F.resize(image, list(SIZE), antialias=True))
    shift = RandomResizedShift(SIZE, p=0.3)
    torch.manual_seed(0)
    share = sum(not torch.equal(F.pil_to_tensor(shift(image)), plain) for _ in range(400)) / 400
    assert abs(share - 0.3) < 0.1
    assert torch.equal(F.pil_to_tensor(RandomResizedShift(SIZE, p=0.0)(image)), plain)


def test_lighting_adds_one_colour_of_the_right_covariance() -> None:
    image = torch.rand(3, 4, 4)
    light = RandomLighting(p=1.0, std=0.1)
    torch.manual_seed(1)
    shifts = []
    for _ in range(4000):
        difference = light(image) - image
        torch.testing.assert_close(difference, difference[:, :1, :1].expand_as(difference), atol=1e-6, rtol=0)
        shifts.append(difference[:, 0, 0])
    found = torch.cov(torch.stack(shifts).double().T)
    vectors = torch.tensor([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
    wanted = (vectors * (0.1 * torch.tensor([0.2175, 0.0188, 0.0045])) ** 2) @ vectors.T
    assert (found - wanted).abs().max() < 0.1 * wanted.abs().max()
    grey = torch.ones(3).double() / 3**0.5
    assert grey @ found @ grey > 0.97 * found.trace()  # most of the light is brightness, and no green cast
    assert torch.equal(RandomLighting(p=0.0)(image), image)


def test_center_crop_enlarges_the_middle() -> None:
    image = torch.rand(3, *SIZE)
    result = CenterCropResize(SIZE, (24, 12))(image)
    torch.testing.assert_close(result, F.resize(image[:, 4:28, 2:14], list(SIZE), antialias=True))


def test_all_together_in_the_order_of_the_authors() -> None:
    transform = train_transform(
        SIZE,
        pad=1,
        translation=(1.0, 1.125),
        center_crop=(24, 12),
        jitter=(0.2, 0.15, 0.1, 0.05),
        lighting=(1.0, 0.1),
        erasing=RandomErasing(p=1.0),
    )
    assert [type(step).__name__ for step in transform.transforms] == [  # type: ignore[attr-defined]
        "RandomResizedShift", "CenterCropResize", "RandomHorizontalFlip", "Pad", "RandomCrop", "ColorJitter",
        "ToImage", "ToDtype", "RandomLighting", "Normalize", "ToPureTensor", "RandomErasing",
    ]  # fmt: skip
    torch.manual_seed(5)
    first = transform(picture())
    np.random.seed(9)  # noqa: NPY002 - no other generator may have a say
    torch.manual_seed(5)
    assert torch.equal(first, transform(picture()))
    assert not torch.equal(first, transform(picture()))
    assert first.shape == (3, *SIZE)
    assert first.dtype == torch.float32


def test_jitter_keeps_to_its_strength() -> None:
    grey = Image.new("RGB", (16, 32), (100, 100, 100))
    transform = train_transform(SIZE, flip=0, pad=0, jitter=(0.2, 0, 0, 0), mean=(0, 0, 0), std=(1, 1, 1))
    values = torch.stack([transform(grey)[0, 0, 0] * 255 for _ in range(300)])
    assert 79 <= values.min() < 85
    assert 115 < values.max() <= 120
    assert isinstance(transform.transforms[1], v2.ColorJitter)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: RandomResizedShift(SIZE, p=1.5), "p must be in"),
        (lambda: RandomResizedShift(SIZE, scale=0.9), "scale must be"),
        (lambda: RandomLighting(p=-1), "p must be in"),
        (lambda: RandomLighting(std=float("nan")), "std must be"),
        (lambda: CenterCropResize(SIZE, (33, 8)), "crop must be"),
        (lambda: CenterCropResize(SIZE, (0, 8)), "crop must be"),
        (lambda: RandomLighting()(torch.zeros(3, 4, 4, dtype=torch.uint8)), "expected floating point"),
    ],
)
def test_wrong_values_are_named(make: object, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make()  # type: ignore[operator]
