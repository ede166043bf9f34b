"""Channel shuffles: how grouped and split branches exchange information without arithmetic (Zhang et al., "ShuffleNet",
Sect. 3.1; Ma et al., "ShuffleNet V2", Sect. 4).
"""

from __future__ import annotations

import torch
from torch import Tensor


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave the channels of equal groups: the first channel of every group, then the second of every group, ...

    Channel ``g * (C / groups) + i`` goes to ``i * groups + g``; shuffling again with ``C / groups`` groups restores the
    order.

    Args:
        x: (N, C, H, W).
        groups: number of groups, a divisor of C.

    Returns:
        A new tensor (N, C, H, W), channels-last if ``x`` is.

    Raises:
        ValueError: ``x`` has another shape, or ``groups`` does not divide C.
    """
    channels = _check_map(x)
    if groups < 1 or channels % groups:
        raise ValueError(f"groups: got {groups}, expected a divisor of the {channels} channels")
    if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        # Shuffled as NHWC, so that the one copy is also the only one.
        last = x.permute(0, 2, 3, 1).unflatten(3, (groups, channels // groups))
        return last.transpose(3, 4).flatten(3).permute(0, 3, 1, 2)
    return x.unflatten(1, (groups, channels // groups)).transpose(1, 2).flatten(1, 2)


def split_even_odd(x: Tensor) -> tuple[Tensor, Tensor]:
    """The channels with even and those with odd numbers: a shuffle and a split in one, without a copy.

    ShuffleNetV2+ begins its stride-1 units so. After ``torch.cat`` of the two branches of the unit before, each half
    takes every other channel of both.

    Args:
        x: (N, C, H, W), C even.

    Returns:
        Two views (N, C / 2, H, W) of ``x``.

    Raises:
        ValueError: ``x`` has another shape or an odd number of channels.
    """
    channels = _check_map(x)
    if channels % 2:
        raise ValueError(f"x: got {channels} channels, expected an even number")
    return x[:, 0::2], x[:, 1::2]


def _check_map(x: Tensor) -> int:
    if x.dim() != 4 or x.shape[1] < 1:
        raise ValueError(f"x: got shape {tuple(x.shape)}, expected (N, C, H, W) with C >= 1")
    return x.shape[1]
