"""Random lighting along the principal components of ImageNet's colours (Krizhevsky et al. 2012)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_VALUES = (0.2175, 0.0188, 0.0045)
# In columns; the largest variance is that of brightness, along grey.
_VECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


class RandomLighting(nn.Module):
    """Add ``V (alpha * lambda)`` to every pixel, with alpha ~ N(0, std) for each of the three components.

    V and lambda are eigenvectors (in columns) and eigenvalues of the covariance of ImageNet's RGB values in [0, 1].
    The colour augmentation of the VeRi-776 study, whose code however pairs the values with the vectors in reverse order
    and multiplies by the transpose. It comes before the normalisation.

    Args:
        p: probability that an image is changed.
        std: standard deviation of alpha.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, *, p: float = 0.5, std: float = 0.1) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"p must be in [0, 1], got {p}")
        if not 0 <= std < float("inf"):
            raise ValueError(f"std must be a finite number of at least 0, got {std}")
        self.p = p
        self.std = std

    def forward(self, image: Tensor) -> Tensor:
        """``image`` (3, H, W), floating point in [0, 1], with other light; values may leave [0, 1]."""
        if not image.is_floating_point() or image.dim() != 3 or image.shape[0] != 3:
            raise ValueError(f"image: got {image.dtype} {tuple(image.shape)}, expected floating point (3, H, W)")
        if torch.rand(()).item() >= self.p:
            return image
        alpha = torch.randn(3) * self.std
        shift = torch.tensor(_VECTORS) @ (alpha * torch.tensor(_VALUES))
        return image + shift.to(image.dtype)[:, None, None]

    def extra_repr(self) -> str:
        return f"p={self.p}, std={self.std}"
