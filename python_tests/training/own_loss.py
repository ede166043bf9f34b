"""A loss of the user's own, with a parameter and a buffer."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Spread(nn.Module):
    """Mean square of scaled values; counts its calls."""

    def __init__(self, *, scale: float = 2.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, values: Tensor, labels: Tensor) -> Tensor:
        self.calls += 1
        return (self.scale * values).square().mean() + 0 * labels.sum()
