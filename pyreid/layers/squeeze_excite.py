"""Squeeze-and-excitation: a gate per channel from the averages of all channels (Hu et al., "Squeeze-and-Excitation
Networks", Sect. 3).
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from pyreid.layers.checks import check_map

ExciteGate = Literal["sigmoid", "hard_sigmoid"]

DEFAULT_RATIO = 16


class SqueezeExcite(nn.Module):
    """``x * gate(expand(relu(norm(reduce(average of x)))))``, one factor in [0, 1] per image and channel.

    ShuffleNetV2+ has ratio 4, no bias, a batch norm inside and the hard sigmoid; an SE-ResNet has the defaults. With
    the batch norm, training needs two images at least.

    Args:
        channels: C.
        ratio: the hidden layer has ``C // ratio`` units; 16 if neither this nor ``hidden`` is given.
        hidden: width of the hidden layer, in place of ``ratio``.
        bias: whether the two linear layers have biases.
        norm: whether a batch norm follows the first linear layer.
        gate: ``"sigmoid"`` or ``"hard_sigmoid"``, ``clip(x / 6 + 1 / 2, 0, 1)``.

    Raises:
        ValueError: unknown gate, both ``ratio`` and ``hidden``, or a hidden layer without units.
    """

    def __init__(
        self,
        channels: int,
        *,
        ratio: int | None = None,
        hidden: int | None = None,
        bias: bool = True,
        norm: bool = False,
        gate: ExciteGate = "sigmoid",
    ) -> None:
        super().__init__()
        if gate not in ("sigmoid", "hard_sigmoid"):
            raise ValueError(f"gate: got {gate!r}, expected 'sigmoid' or 'hard_sigmoid'")
        width = _hidden_width(channels, ratio, hidden)
        self.gate = gate
        self.reduce = nn.Linear(channels, width, bias=bias)
        self.norm = nn.BatchNorm1d(width) if norm else nn.Identity()
        self.expand = nn.Linear(width, channels, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Scale the channels of ``x`` (N, C, H, W); the shape stays."""
        check_map(x, self.reduce.in_features)
        hidden = F.relu(self.norm(self.reduce(x.mean(dim=(2, 3)))))
        logits = self.expand(hidden)
        scale = logits.sigmoid() if self.gate == "sigmoid" else F.hardsigmoid(logits)
        return x * scale[:, :, None, None]

    def extra_repr(self) -> str:
        return f"gate={self.gate!r}"


def _hidden_width(channels: int, ratio: int | None, hidden: int | None) -> int:
    if channels < 1:
        raise ValueError(f"channels: got {channels}, expected 1 or more")
    if hidden is not None:
        if ratio is not None:
            raise ValueError(f"ratio: got {ratio} beside hidden={hidden}, expected one of the two")
        if hidden < 1:
            raise ValueError(f"hidden: got {hidden}, expected 1 or more")
        return hidden
    ratio = DEFAULT_RATIO if ratio is None else ratio
    if not 1 <= ratio <= channels:
        raise ValueError(f"ratio: got {ratio}, expected 1 to {channels} (the channels)")
    return channels // ratio
