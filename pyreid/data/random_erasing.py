"""Random erasing (Zhong et al., AAAI 2020) with the sampling of the re-identification papers."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

Fill = Literal["mean", "noise"] | tuple[float, ...]

_TRIES = 100


class RandomErasing(nn.Module):
    """Fill a random rectangle of a normalised image.

    With probability ``p``, up to 100 times: area fraction s ~ U(area), aspect r ~ U(r1, 1 / r1),
    h = round(sqrt(s H W r)), w = round(sqrt(s H W / r)); the first rectangle with h < H and w < W is placed uniformly
    and filled. (torchvision's class draws the logarithm of the aspect uniformly, and tries ten times.)

    Compact-ReID uses area (0.02, 0.4) with the mean; DaRe's released code (0.02, 0.2) with noise.

    Args:
        p: probability that an image is erased.
        area: bounds of the erased fraction of the image.
        r1: least aspect ratio height / width; the greatest is ``1 / r1``.
        fill: ``"mean"`` writes 0, which after normalisation is the mean pixel; ``"noise"`` draws N(0, 1) for every
            value; a tuple gives one (normalised) value per channel.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self, *, p: float = 0.5, area: tuple[float, float] = (0.02, 0.4), r1: float = 0.3, fill: Fill = "mean"
    ) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"p must be in [0, 1], got {p}")
        if len(area) != 2 or not 0 < area[0] <= area[1] < 1:
            raise ValueError(f"area must be two increasing fractions in (0, 1), got {area}")
        if not 0 < r1 <= 1:
            raise ValueError(f"r1 must be in (0, 1], got {r1}")
        if isinstance(fill, str) and fill not in ("mean", "noise"):
            raise ValueError(f"fill must be 'mean', 'noise' or one value per channel, got {fill!r}")
        self.p = p
        self.area = (float(area[0]), float(area[1]))
        self.r1 = r1
        self.fill: Fill = fill if isinstance(fill, str) else tuple(float(value) for value in fill)

    def forward(self, image: Tensor) -> Tensor:
        """Erase a rectangle of ``image`` (C, H, W); the input is left as it is."""
        if torch.rand(()).item() >= self.p:
            return image
        channels, height, width = image.shape
        if not isinstance(self.fill, str) and len(self.fill) != channels:
            raise ValueError(f"fill has {len(self.fill)} values, but the image has {channels} channels")
        for _ in range(_TRIES):
            box = self._draw_box(height, width)
            if box is not None:
                top, left, h, w = box
                image = image.clone()
                image[:, top : top + h, left : left + w] = self._patch(channels, h, w, image)
                return image
        return image

    def _draw_box(self, height: int, width: int) -> tuple[int, int, int, int] | None:
        low, high = self.area
        area = torch.empty(()).uniform_(low, high).item() * height * width
        aspect = torch.empty(()).uniform_(self.r1, 1 / self.r1).item()
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if not (0 < h < height and 0 < w < width):
            return None
        top = int(torch.randint(0, height - h + 1, ()).item())
        left = int(torch.randint(0, width - w + 1, ()).item())
        return top, left, h, w

    def _patch(self, channels: int, h: int, w: int, image: Tensor) -> Tensor:
        if self.fill == "noise":
            return torch.randn(channels, h, w, dtype=image.dtype)
        if self.fill == "mean":
            return torch.zeros((), dtype=image.dtype)
        return torch.tensor(self.fill, dtype=image.dtype)[:, None, None]

    def extra_repr(self) -> str:
        return f"p={self.p}, area={self.area}, r1={self.r1}, fill={self.fill!r}"
