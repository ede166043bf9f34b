from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pyreid.layers.regions import _by_gather, _by_products, sample_regions

STRIPS = torch.tensor([[[0.0, -0.75], [0.0, -0.25], [0.0, 0.25], [0.0, 0.75]]])
QUARTER = (0.25, 1.0)


def test_the_four_strips_of_a_map() -> None:
    """17 rows: the quarters begin and end at rows 0, 4, 8, 12 and 16."""
    x = torch.randn(2, 3, 17, 6)
    regions = sample_regions(x, STRIPS.expand(2, -1, -1), size=(5, 6), scale=QUARTER)
    assert regions.shape == (8, 3, 5, 6)
    for image in range(2):
        for strip in range(4):
            expected = x[image, :, 4 * strip : 4 * strip + 5]
            torch.testing.assert_close(regions[4 * image + strip], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("height", "size"), [(80, 24), (40, 12), (20, 6), (7, 3)])
def test_strips_cover_the_height_evenly(height: int, size: int) -> None:
    ramp = torch.arange(height, dtype=torch.float32).view(1, 1, height, 1).expand(1, 1, height, 5)
    regions = sample_regions(ramp, STRIPS, size=(size, 4), scale=QUARTER)
    for strip in range(4):
        ends = torch.tensor([strip, strip + 1]) * (height - 1) / 4
        expected = torch.linspace(float(ends[0]), float(ends[1]), size).view(1, size, 1).expand(1, size, 4)
        torch.testing.assert_close(regions[strip], expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("shape", "size"), [((80, 32), (24, 28)), ((40, 16), (12, 14)), ((20, 8), (6, 7))])
def test_the_two_steps_of_hacnn(shape: tuple[int, int], size: tuple[int, int]) -> None:
    """A region is sampled at the map's size by an affine grid, then resized, with corners aligned in both."""
    x = torch.randn(2, 3, *shape, dtype=torch.float64)
    centers = torch.tanh(torch.randn(2, 4, 2, dtype=torch.float64))
    regions = sample_regions(x, centers, size=size, scale=QUARTER)
    for region in range(4):
        theta = torch.tensor([[1, 0, 0], [0, 0.25, 0]], dtype=torch.float64).repeat(2, 1, 1)
        theta[:, :, 2] = centers[:, region]
        grid = F.affine_grid(theta, list(x.shape), align_corners=True)
        full = F.grid_sample(x, grid, align_corners=True)
        resized = F.interpolate(full, size=size, mode="bilinear", align_corners=True)
        torch.testing.assert_close(regions[region::4], resized, rtol=1e-9, atol=1e-9)


def test_what_the_first_step_smooths() -> None:
    """Half a pixel to the right, the first step leaves half of a single bright column on either side of its place."""
    x = torch.zeros(1, 1, 3, 5)
    x[..., 2] = 1.0
    region = sample_regions(x, torch.tensor([[[0.25, 0.0]]]), size=(3, 9), scale=(1.0, 1.0))
    # in one step the fourth value, 1/2 + 1/2 between the samples, would be the pixel itself, 1
    torch.testing.assert_close(region[0, 0, 1], torch.tensor([0, 0.25, 0.5, 0.5, 0.5, 0.25, 0, 0, 0]))


def by_loops(image: Tensor, center: Tensor, size: tuple[int, int], scale: tuple[float, float]) -> Tensor:
    """A region of one map (H, W), pixel by pixel: sampled at the map's size, then resized."""
    own: tuple[int, int] = (image.shape[0], image.shape[1])
    return one_step(one_step(image, center, own, scale), torch.zeros(2), size, (1.0, 1.0))


def one_step(image: Tensor, center: Tensor, size: tuple[int, int], scale: tuple[float, float]) -> Tensor:
    """Bilinear interpolation of one map (H, W)."""
    height, width = image.shape
    out = torch.zeros(size, dtype=image.dtype)
    for i in range(size[0]):
        for j in range(size[1]):
            row = float(center[1]) + scale[0] * (2 * i / (size[0] - 1) - 1 if size[0] > 1 else 0)
            column = float(center[0]) + scale[1] * (2 * j / (size[1] - 1) - 1 if size[1] > 1 else 0)
            row, column = (row + 1) * (height - 1) / 2, (column + 1) * (width - 1) / 2
            for r in (math.floor(row), math.floor(row) + 1):
                for c in (math.floor(column), math.floor(column) + 1):
                    if 0 <= r < height and 0 <= c < width:
                        out[i, j] += (1 - abs(row - r)) * (1 - abs(column - c)) * image[r, c]
    return out


@pytest.mark.parametrize("size", [(5, 3), (1, 1), (1, 4)])
def test_against_loops(size: tuple[int, int]) -> None:
    """Regions anywhere, partly outside of the map too."""
    x, centers = torch.randn(2, 2, 6, 5, dtype=torch.float64), 2 * torch.rand(2, 3, 2, dtype=torch.float64) - 1
    regions = sample_regions(x, centers, size=size, scale=(0.4, 0.8))
    for image in range(2):
        for region in range(3):
            for channel in range(2):
                expected = by_loops(x[image, channel], centers[image, region], size, (0.4, 0.8))
                torch.testing.assert_close(regions[3 * image + region, channel], expected)


def test_products_equal_the_gather_with_their_gradients() -> None:
    x = torch.randn(2, 3, 6, 5, dtype=torch.float64, requires_grad=True)
    rows = (2.4 * torch.rand(2, 4, 6, dtype=torch.float64) - 1.2).requires_grad_()
    columns = (2.4 * torch.rand(2, 4, 5, dtype=torch.float64) - 1.2).requires_grad_()
    found, expected = _by_products(x, rows, columns, (5, 3)), _by_gather(x, rows, columns, (5, 3))
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(found)
    inputs = (x, rows, columns)
    for ours, theirs in zip(
        torch.autograd.grad((found * weight).sum(), inputs),
        torch.autograd.grad((expected * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_gradients_of_map_and_places() -> None:
    x = torch.randn(1, 2, 6, 5, dtype=torch.float64, requires_grad=True)
    centers = (torch.rand(1, 2, 2, dtype=torch.float64) - 0.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, c: sample_regions(x, c, size=(3, 4), scale=(0.3, 0.7)), (x, centers))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_maps_are_sampled_in_float32(dtype: torch.dtype) -> None:
    x = torch.randn(1, 2, 80, 32).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = sample_regions(x, STRIPS, size=(24, 28), scale=QUARTER)
    assert low.dtype == dtype
    expected = sample_regions(x.float(), STRIPS, size=(24, 28), scale=QUARTER)
    assert torch.equal(low, expected.to(dtype))


def test_no_maps() -> None:
    assert sample_regions(torch.empty(0, 2, 6, 5), torch.empty(0, 4, 2), size=(3, 2), scale=QUARTER).shape == (
        0,
        2,
        3,
        2,
    )


@pytest.mark.gpu
def test_deterministic_algorithms_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    x = torch.randn(2, 3, 20, 8, device="cuda", requires_grad=True)
    centers = (0.5 * torch.randn(2, 4, 2, device="cuda")).requires_grad_()
    expected = sample_regions(x, centers, size=(6, 7), scale=QUARTER)
    wanted = torch.autograd.grad(expected.square().sum(), (x, centers))
    torch.use_deterministic_algorithms(True)
    try:
        found = sample_regions(x, centers, size=(6, 7), scale=QUARTER)
        gradients = torch.autograd.grad(found.square().sum(), (x, centers))
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    for ours, theirs in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("shape", "places", "options", "message"),
    [
        ((2, 3, 4), (2, 4, 2), {}, r"x: got shape \(2, 3, 4\), expected \(N, C, H, W\)"),
        ((2, 3, 0, 4), (2, 4, 2), {}, r"x: got shape \(2, 3, 0, 4\)"),
        ((2, 3, 4, 4), (3, 4, 2), {}, r"centers: got shape \(3, 4, 2\), expected \(2, R, 2\)"),
        ((2, 3, 4, 4), (2, 4, 3), {}, r"centers: got shape \(2, 4, 3\), expected \(2, R, 2\)"),
        ((2, 3, 4, 4), (2, 4, 2), {"size": (0, 2)}, r"size: got \(0, 2\), expected two positive integers"),
        ((2, 3, 4, 4), (2, 4, 2), {"scale": (1.5, 1.0)}, r"scale: got \(1.5, 1.0\), expected two values in \(0, 1\]"),
    ],
)
def test_wrong_arguments(
    shape: tuple[int, ...], places: tuple[int, ...], options: dict[str, tuple[float, float]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        sample_regions(torch.zeros(shape), torch.zeros(places), **{"size": (2, 2), "scale": QUARTER, **options})  # type: ignore[arg-type]
