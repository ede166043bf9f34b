"""SAFR's channel mask (SAFR, Sect. 4.1, eq. 1): which channels of a block are local and which global."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyreid.layers.checks import check_rows, check_width

MaskMode = Literal["ste", "soft", "static_ste", "static_soft"]


def straight_through(logits: Tensor) -> Tensor:
    """0 or 1 forward (``sigmoid(logits) > 0.5``), the gradient of the sigmoid backward."""
    soft = torch.sigmoid(logits)
    hard = (soft > 0.5).to(soft.dtype)
    # hard + (soft - soft) is exactly 0 or 1; (hard + soft) - soft would be off by a rounding error.
    return hard + (soft - soft.detach())


class ChannelMask(nn.Module):
    """One value in [0, 1] per channel, from the pooled local features or learned as such.

    Args:
        channels: C.
        mode: ``"soft"``: the sigmoid of an MLP (C -> C/ratio -> C, shared by both pools, no bias) on the average and
            the maximum; ``"ste"``: 0 or 1 by the straight-through estimator, the paper's binary mask; ``"static_soft"``
            and ``"static_ste"``: of C free logits, the same for every image.
        ratio: reduction of the MLP.
    """

    def __init__(self, channels: int, *, mode: MaskMode = "ste", ratio: int = 8) -> None:
        super().__init__()
        check_width("channels", channels)
        if mode not in ("ste", "soft", "static_ste", "static_soft"):
            raise ValueError(f"mode: got {mode!r}, expected 'ste', 'soft', 'static_ste' or 'static_soft'")
        if not 1 <= ratio <= channels:
            raise ValueError(f"ratio: got {ratio}, expected 1 to {channels} (the channels)")
        self.mode = mode
        self.channels = channels
        self.is_static = mode.startswith("static")
        self.is_hard = mode.endswith("ste")
        if self.is_static:
            # Around 0: a static hard mask then starts with about half of the channels on either side.
            self.logits = nn.Parameter(0.01 * torch.randn(channels))
        else:
            self.reduce = nn.Linear(channels, channels // ratio, bias=False)
            self.expand = nn.Linear(channels // ratio, channels, bias=False)

    def forward(self, avg: Tensor, maximum: Tensor) -> Tensor:
        """Mask (N, C), or (C,) if static, from the average and maximum pools (N, C) of the local features."""
        check_rows(avg, self.channels, "avg")
        check_rows(maximum, self.channels, "maximum")
        if self.is_static:
            logits = self.logits
        else:
            logits = self.expand(F.relu(self.reduce(avg))) + self.expand(F.relu(self.reduce(maximum)))
        return straight_through(logits) if self.is_hard else torch.sigmoid(logits)

    def extra_repr(self) -> str:
        return f"mode={self.mode!r}"
