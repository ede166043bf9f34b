"""Ten crops of an image that is a little larger than the model's input (DaRe, Sect. 5)."""

from __future__ import annotations

import typing
from typing import Literal

from torch import Tensor

Crops = Literal["none", "ten"]
CROP_SCALE = 1.125  # of the image that the crops are taken from, in both directions


def check_crops(crops: object, flip: object) -> None:
    """Raise ``ValueError`` unless ``crops`` is one of :data:`Crops`, and goes with ``flip``."""
    if crops not in typing.get_args(Crops):
        raise ValueError(f"crops: got {crops!r}, expected 'none' or 'ten'")
    if crops == "ten" and flip != "none":
        raise ValueError(f"flip: got {flip!r} with crops='ten', which has mirror images already; expected 'none'")


def image_size(size: tuple[int, int], crops: Crops) -> tuple[int, int]:
    """Height and width that images are resized to for a model's input of ``size``."""
    return size if crops == "none" else (round(size[0] * CROP_SCALE), round(size[1] * CROP_SCALE))


def ten_crops(images: Tensor, size: tuple[int, int]) -> list[Tensor]:
    """The four corners and the middle of images, and of the mirror images.

    Args:
        images: (N, C, H, W).
        size: (h, w) of the crops.

    Returns:
        Ten tensors (N, C, h, w): top left, top right, bottom left, bottom right, middle; then of the
        mirror images likewise.

    Raises:
        ValueError: the images are smaller than the crops.
    """
    (height, width), (h, w) = images.shape[2:], size
    if height < h or width < w:
        raise ValueError(f"images: got {height} x {width}, expected at least the crops' size {h} x {w}")
    bottom, right = height - h, width - w
    places = [(0, 0), (0, right), (bottom, 0), (bottom, right), (round(bottom / 2), round(right / 2))]
    return [view[:, :, top : top + h, left : left + w] for view in (images, images.flip(3)) for top, left in places]
