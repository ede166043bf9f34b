"""Checks of what a layer is given: one readable line in place of torch's error from deep inside."""

from __future__ import annotations

from torch import Tensor


def check_map(x: Tensor, channels: int, name: str = "x") -> None:
    """Raise ``ValueError`` unless ``x`` is a feature map (N, ``channels``, H, W).

    It looks at the shape alone, so it costs nothing beside a convolution and breaks no traced graph.
    """
    if x.dim() != 4 or x.shape[1] != channels:
        raise ValueError(f"{name}: got shape {tuple(x.shape)}, expected (N, {channels}, H, W)")


def check_rows(x: Tensor, width: int, name: str = "x") -> None:
    """Raise ``ValueError`` unless ``x`` is (N, ``width``)."""
    if x.dim() != 2 or x.shape[1] != width:
        raise ValueError(f"{name}: got shape {tuple(x.shape)}, expected (N, {width})")


def check_width(name: str, value: int) -> None:
    """Raise ``ValueError`` unless a number of channels is positive."""
    if value < 1:
        raise ValueError(f"{name}: got {value}, expected 1 or more")
