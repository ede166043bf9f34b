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
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Transform:
    """Resize, horizontal flip, pad and random crop, normalise, random erasing.

    Args:
        size: height and width of the result.
        flip: probability of a horizontal flip.
        pad: black pixels added on each side before a crop of ``size``; 0 switches both off.
        erasing: applied after the normalisation; None switches it off.
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

    steps: list[Callable] = [v2.Resize(list(size), antialias=True)]
    if flip > 0:
        steps.append(v2.RandomHorizontalFlip(flip))
    if pad > 0:
        steps += [v2.Pad(pad), v2.RandomCrop(list(size))]
    steps += _to_normalised(mean, std)
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
