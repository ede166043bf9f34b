"""Images at the model's door: files, arrays and tensors become one kind of batch."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from pyreid.data.image_dataset import read_rgb
from pyreid.data.records import ImageRecord
from pyreid.data.transforms import IMAGENET_MEAN, IMAGENET_STD, Transform
from pyreid.errors import DatasetError


@dataclass(frozen=True, slots=True)
class ImageInput:
    """What images look like at the model's door.

    Attributes:
        size: (height, width).
        mean: of RGB in 0..1, subtracted.
        std: of RGB in 0..1, divided by.
    """

    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def resolve_input(
    model: nn.Module,
    *,
    size: tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> ImageInput:
    """What is given, or else the model's own; ImageNet's mean and deviation for a model that has none.

    Raises:
        ValueError: no size is given, and the model has none; or a value is out of range, NaN or infinite.
    """
    height_width = size if size is not None else getattr(model, "default_input_size", None)
    if height_width is None:
        raise ValueError(f"size: expected (height, width) for {type(model).__name__}, which has no default, got None")
    pair = tuple(height_width)
    if len(pair) != 2 or not all(side >= 1 and side % 1 == 0 for side in pair):
        raise ValueError(f"size: expected a positive (height, width) in pixels, got {pair}")
    means = _three("mean", mean if mean is not None else getattr(model, "pixel_mean", IMAGENET_MEAN))
    deviations = _three("std", std if std is not None else getattr(model, "pixel_std", IMAGENET_STD))
    if not all(0 <= value <= 1 for value in means):
        raise ValueError(f"mean: expected values from 0 to 1, as RGB is divided by 255 before, got {means}")
    if not all(0 < value < math.inf for value in deviations):
        raise ValueError(f"std: expected positive values, got {deviations}")
    return ImageInput((int(pair[0]), int(pair[1])), means, deviations)


def _three(name: str, values: Sequence[float]) -> tuple[float, float, float]:
    """Plain floats, which a file's metadata and a recipe can hold, of numbers of any kind."""
    plain = tuple(float(value) for value in values)
    if len(plain) != 3:
        raise ValueError(f"{name}: expected 3 values, got {plain}")
    return plain


def as_items(images: Any) -> list[Any]:
    """A single path, array or tensor, a batch, or a sequence of them, as a list of single items.

    Raises:
        TypeError: if it is neither of those.
    """
    if isinstance(images, str | os.PathLike | Image.Image):
        return [images]
    if isinstance(images, np.ndarray | Tensor):
        if images.ndim == 4:
            return list(images)
        return [images]  # ImageItems says what is wrong with other shapes
    if isinstance(images, Sequence):
        return list(images)
    raise TypeError(f"images: expected a path, an array, a tensor or a sequence of them, got {type(images).__name__}")


class ImageItems(Dataset[Tensor]):
    """Items of any kind as normalised float32 (3, H, W).

    A floating-point tensor is taken as what the model sees, normalised already; all others are resized and normalised.

    Raises:
        TypeError, ValueError: on reading, for an item of another kind or shape; the message says which.
        DatasetError: on reading, for a file that is no image; the message names it.
    """

    def __init__(self, items: Sequence[Any], transform: Transform) -> None:
        self.items = items
        self.transform = transform

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Tensor:
        item = self.items[index]
        if isinstance(item, str | os.PathLike):
            return self.transform(read_rgb(ImageRecord(Path(item), 0, 0)))
        if isinstance(item, Image.Image):
            return self.transform(item.convert("RGB"))
        if isinstance(item, Tensor):
            if item.dim() != 3 or item.shape[0] != 3 or item.numel() == 0:
                raise ValueError(f"images: item {index}: expected a tensor (3, H, W), got shape {tuple(item.shape)}")
            if item.is_floating_point():
                return item.detach().float().cpu()
            if item.dtype != torch.uint8:
                raise TypeError(f"images: item {index}: expected a uint8 or floating-point tensor, got {item.dtype!s}")
            item = item.permute(1, 2, 0).cpu().numpy()
        if not isinstance(item, np.ndarray):
            raise TypeError(f"images: item {index}: expected a path, an array or a tensor, got {type(item).__name__}")
        if item.dtype != np.uint8:
            raise TypeError(f"images: item {index}: expected uint8 RGB, got {item.dtype}")
        if item.ndim != 3 or item.shape[2] != 3 or item.size == 0:
            raise ValueError(f"images: item {index}: expected an array (H, W, 3), got shape {item.shape}")
        return self.transform(Image.fromarray(np.ascontiguousarray(item)))


class ReadableItems(Dataset[Tensor | str]):
    """``ImageItems``, but what is said of a file that is no image in place of the error."""

    def __init__(self, items: ImageItems) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Tensor | str:
        try:
            return self.items[index]
        except DatasetError as error:
            return str(error)


def name_of(item: Any, index: int) -> str:
    """How messages call an item: by its path, or by its number."""
    return str(item) if isinstance(item, str | os.PathLike) else f"item {index}"
