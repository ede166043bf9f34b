from __future__ import annotations

import math

import pytest
import torch

from pyreid.data import RandomErasing


def erased_box(image: torch.Tensor, result: torch.Tensor) -> tuple[int, int, int, int] | None:
    changed = (image != result).any(0)
    if not changed.any():
        return None
    rows, columns = changed.any(1).nonzero().flatten(), changed.any(0).nonzero().flatten()
    top, bottom, left, right = int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])
    assert changed[top : bottom + 1, left : right + 1].all(), "the erased pixels must fill one rectangle"
    return top, left, bottom - top + 1, right - left + 1


@pytest.mark.parametrize("area", [(0.02, 0.4), (0.02, 0.2)])
def test_area_and_aspect_stay_in_their_bounds(area: tuple[float, float]) -> None:
    height, width, r1 = 128, 64, 0.3
    image = torch.rand(3, height, width) + 1
    erase = RandomErasing(p=1.0, area=area, r1=r1)
    areas = []
    for _ in range(400):
        box = erased_box(image, erase(image))
        assert box is not None
        _, _, h, w = box
        assert h < height
        assert w < width
        # Rounding moves each side by at most half a pixel.
        assert (h + 0.5) * (w + 0.5) >= area[0] * height * width
        assert (h - 0.5) * (w - 0.5) <= area[1] * height * width
        assert (h + 0.5) / (w - 0.5) >= r1
        assert (h - 0.5) / (w + 0.5) <= 1 / r1
        areas.append(h * w / (height * width))
    assert min(areas) < area[0] + 0.05
    assert max(areas) > 0.75 * area[1]


def test_aspect_is_uniform_not_log_uniform() -> None:
    image = torch.zeros(1, 200, 200)
    erase = RandomErasing(p=1.0, area=(0.01, 0.02), r1=0.3, fill=(1.0,))
    ratios = []
    for _ in range(600):
        box = erased_box(image, erase(image))
        assert box is not None
        ratios.append(box[2] / box[3])
    # The mean of U(0.3, 1 / 0.3) is 1.817; of the log-uniform, 1.26. The standard error here is 0.036.
    assert abs(sum(ratios) / len(ratios) - (0.3 + 1 / 0.3) / 2) < 0.15


def test_probability() -> None:
    image = torch.ones(3, 32, 16)
    erase = RandomErasing(p=0.3)
    share = sum(not torch.equal(erase(image), image) for _ in range(1000)) / 1000
    assert abs(share - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 1000)
    assert torch.equal(RandomErasing(p=0.0)(image), image)


def test_place_reaches_all_edges() -> None:
    image = torch.ones(1, 12, 12)
    erase = RandomErasing(p=1.0, area=(0.05, 0.3))
    boxes = [erased_box(image, erase(image)) for _ in range(500)]
    assert {0} <= {box[0] for box in boxes if box}
    assert 12 in {box[0] + box[2] for box in boxes if box}
    assert 0 in {box[1] for box in boxes if box}
    assert 12 in {box[1] + box[3] for box in boxes if box}


def test_fills_and_input_is_left_alone() -> None:
    image = torch.full((3, 64, 32), 7.0)
    copy = image.clone()
    values = RandomErasing(p=1.0)(image)
    assert set(values.unique().tolist()) == {0.0, 7.0}
    result = RandomErasing(p=1.0, fill=(1.0, 2.0, 3.0))(image)
    assert [sorted(set(result[c].unique().tolist())) for c in range(3)] == [[1.0, 7.0], [2.0, 7.0], [3.0, 7.0]]
    noise = RandomErasing(p=1.0, area=(0.3, 0.4), fill="noise")(image)
    drawn = noise[noise != 7.0]
    assert abs(drawn.mean()) < 0.2
    assert abs(drawn.std() - 1) < 0.2
    assert torch.equal(image, copy)


def test_an_image_that_no_rectangle_fits_stays_as_it_is() -> None:
    image = torch.ones(3, 1, 40)
    assert torch.equal(RandomErasing(p=1.0)(image), image)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"p": 1.5}, "p must be in"),
        ({"area": (0.4, 0.2)}, "area must be two increasing fractions"),
        ({"area": (0.0, 0.2)}, "area must be two increasing fractions"),
        ({"r1": 0.0}, "r1 must be in"),
        ({"fill": "black"}, "fill must be 'mean', 'noise'"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RandomErasing(**arguments)


def test_fill_with_a_wrong_number_of_channels() -> None:
    with pytest.raises(ValueError, match="fill has 2 values, but the image has 3 channels"):
        RandomErasing(p=1.0, fill=(1.0, 2.0))(torch.ones(3, 8, 8))
