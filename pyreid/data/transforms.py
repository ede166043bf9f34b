"""Image transforms from a PIL image to the network's input, on torchvision's v2 transforms.

All randomness is drawn from torch's default CPU generator, so that :class:`pyreid.data.ImageDataset` can seed a draw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyreid.data.random_erasing import RandomErasing
from pyreid.errors import require

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Transform = Callable[["Image"], Tensor]


def train_transform(
    size: tuple[int, int],
    *,
    flip: float = 0.5,
    pad: int = 10,
    erasing: RandomErasing | None = None,
    translation: tuple[float, float] | None = None,
    center_crop: tuple[int, int] | None = None,
    jitter: tuple[float, float, float, float] | None = None,
    lighting: tuple[float, float] | None = None,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Transform:
    """Resize (or enlarge and crop), center crop, flip, pad and crop, jitter, lighting, normalise, random erasing.

    The order is that of the authors' code: geometry first, on the PIL image; then colours; lighting on pixels in
    [0, 1]; erasing on the normalised image, so that a rectangle of zeros is the mean pixel.

    Args:
        size: height and width of the result.
        flip: probability of a horizontal flip.
        pad: black pixels added on each side before a crop of ``size``; 0 switches both off.
        erasing: applied after the normalisation; None switches it off.
        translation: probability and scale of :class:`pyreid.data.resized_crop.RandomResizedShift`, in the place of the
            plain resize; None for the latter.
        center_crop: height and width that are cut out of the middle and resized to ``size``; None switches it off.
        jitter: strengths of random brightness, contrast, saturation and hue, as torchvision's ``ColorJitter`` takes
            them; None switches it off.
        lighting: probability and standard deviation of :class:`pyreid.data.lighting.RandomLighting`; None switches it
            off.
        mean: per channel, for pixels in [0, 1].
        std: per channel, for pixels in [0, 1].

    Returns:
        A picklable callable from an RGB PIL image to a float32 tensor (3, H, W).

    Raises:
        ValueError: an argument is out of range.
        MissingDependencyError: torchvision is not installed.
    """
    _check_size(size)
    if not 0 <= flip <= 1:
        raise ValueError(f"flip must be in [0, 1], got {flip}")
    if pad < 0:
        raise ValueError(f"pad must be at least 0, got {pad}")
    require("torchvision", extra="train")
    from torchvision.transforms import v2

    from pyreid.data.center_crop import CenterCropResize
    from pyreid.data.lighting import RandomLighting
    from pyreid.data.resized_crop import RandomResizedShift

    steps: list[Callable] = []
    if translation is None:
        steps.append(v2.Resize(list(size), antialias=True))
    else:
        steps.append(RandomResizedShift(size, p=translation[0], scale=translation[1]))
    if center_crop is not None:
        steps.append(CenterCropResize(size, center_crop))
    if flip > 0:
        steps.append(v2.RandomHorizontalFlip(flip))
    if pad > 0:
        steps += [v2.Pad(pad), v2.RandomCrop(list(size))]
    if jitter is not None:
        steps.append(v2.ColorJitter(*jitter))
    scaled, rest = _to_normalised(mean, std)[:2], _to_normalised(mean, std)[2:]
    steps += scaled
    if lighting is not None:
        steps.append(RandomLighting(p=lighting[0], std=lighting[1]))
    steps += rest
    if erasing is not None:
        steps.append(erasing)
    return v2.Compose(steps)


def eval_transform(
    size: tuple[int, int], *, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> Transform:
    """Resize and normalise; nothing random.

    Args:
        size: height and width of the result.
        mean: per channel, for pixels in [0, 1].
        std: per channel, for pixels in [0, 1].

    Returns:
        A picklable callable from an RGB PIL image to a float32 tensor (3, H, W).

    Raises:
        ValueError: an argument is out of range.
        MissingDependencyError: torchvision is not installed.
    """
    _check_size(size)
    require("torchvision", extra="train")
    from torchvision.transforms import v2

    return v2.Compose([v2.Resize(list(size), antialias=True), *_to_normalised(mean, std)])


def _to_normalised(mean: Sequence[float], std: Sequence[float]) -> list[Callable]:
    from torchvision.transforms import v2

    if len(mean) != 3 or len(std) != 3:
        raise ValueError(f"mean and std must have 3 values each, got {tuple(mean)} and {tuple(std)}")
    if min(std) <= 0:
        raise ValueError(f"std must be positive, got {tuple(std)}")
    return [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std)), v2.ToPureTensor()]


def _check_size(size: tuple[int, int]) -> None:
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size must be a positive (height, width), got {size}")
