"""A crop at a random place of an image that has been resized to a little more than its size."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torchvision.transforms.v2 import functional as F


def enlarged(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """``size`` times ``scale``, in whole pixels."""
    return round(size[0] * scale), round(size[1] * scale)


class RandomResizedShift(nn.Module):
    """Resize to ``scale`` times ``size`` and crop ``size`` at a uniform place; else only resize to ``size``.

    With ``p=0.5`` this is the random 2D translation of the VeRi-776 study (its augmentations); with ``p=1`` the crop
    with which DaRe trains (Sect. 5, 288 x 144 to 256 x 128). It takes the place of the plain resize.

    Args:
        size: height and width of the result.
        p: probability of enlarging and cropping.
        scale: factor on both sides, at least 1.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, size: tuple[int, int], *, p: float = 0.5, scale: float = 1.125) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"p must be in [0, 1], got {p}")
        if not 1 <= scale < float("inf"):
            raise ValueError(f"scale must be a finite number of at least 1, got {scale}")
        self.size = (int(size[0]), int(size[1]))
        self.p = p
        self.scale = scale

    def forward(self, image: Any) -> Any:
        """``image``, a PIL image or a tensor (C, H, W), as one of ``size``."""
        if torch.rand(()).item() >= self.p:
            return F.resize(image, list(self.size), antialias=True)
        height, width = enlarged(self.size, self.scale)
        top = int(torch.randint(0, height - self.size[0] + 1, ()).item())
        left = int(torch.randint(0, width - self.size[1] + 1, ()).item())
        return F.crop(F.resize(image, [height, width], antialias=True), top, left, *self.size)

    def extra_repr(self) -> str:
        return f"size={self.size}, p={self.p}, scale={self.scale}"
