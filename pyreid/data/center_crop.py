"""The middle of an image, brought back to the image's size."""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision.transforms.v2 import functional as F


class CenterCropResize(nn.Module):
    """Cut ``crop`` out of the middle of an image of ``size`` and resize it to ``size`` (VeRi-776 study: 200 x 200).

    Args:
        size: height and width of the image and of the result.
        crop: height and width of the cut, at most ``size``.

    Raises:
        ValueError: ``crop`` is not positive or larger than ``size``.
    """

    def __init__(self, size: tuple[int, int], crop: tuple[int, int]) -> None:
        super().__init__()
        if min(crop) < 1 or crop[0] > size[0] or crop[1] > size[1]:
            raise ValueError(f"crop must be a positive (height, width) of at most {tuple(size)}, got {tuple(crop)}")
        self.size = (int(size[0]), int(size[1]))
        self.crop = (int(crop[0]), int(crop[1]))

    def forward(self, image: Any) -> Any:
        """``image``, a PIL image or a tensor (C, H, W) of ``size``, enlarged from its middle."""
        return F.resize(F.center_crop(image, list(self.crop)), list(self.size), antialias=True)

    def extra_repr(self) -> str:
        return f"size={self.size}, crop={self.crop}"
