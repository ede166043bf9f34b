"""Necks: the normalisation between the pooled features and the identity classifier (SAFR, Sect. 4.2 and Fig. 5).

The triplet loss sees the features before the neck, the classifier and retrieval those after it.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from pyreid.layers.embedding import unit_length

Neck = Literal["none", "bn", "ln", "gn", "in", "l2"]

GROUP_SIZE = 16


class UnitLength(nn.Module):
    """Rows divided by their L2 norm."""

    def forward(self, x: Tensor) -> Tensor:
        """Scale the rows of ``x`` (N, D)."""
        return unit_length(x)


class Standardize(nn.Module):
    """Each row to mean 0 and variance 1 over its own entries: instance norm of a vector, without learned factors."""

    def forward(self, x: Tensor) -> Tensor:
        """Shift and scale the rows of ``x`` (N, D)."""
        return F.layer_norm(x, x.shape[1:])


def make_neck(kind: Neck, dim: int) -> nn.Module:
    """A fresh neck on (N, dim).

    The learned biases are frozen at zero (the authors of SAFR, and the strong baseline before them), so that the
    classes stay separated by direction. The optimiser should therefore skip parameters that need no gradient.

    Args:
        kind: ``"none"``, ``"bn"`` batch norm, ``"ln"`` layer norm, ``"gn"`` group norm with groups of 16 channels,
            ``"in"`` instance norm, ``"l2"`` unit length.
        dim: D, width of the features; a multiple of 16 for ``"gn"``.

    Raises:
        ValueError: unknown kind, or a width that does not fit.
    """
    if kind not in get_args(Neck):
        raise ValueError(f"neck: got {kind!r}, expected one of {', '.join(map(repr, get_args(Neck)))}")
    if kind == "none":
        return nn.Identity()
    if kind == "in":
        return Standardize()
    if kind == "l2":
        return UnitLength()
    if kind == "gn" and dim % GROUP_SIZE:
        raise ValueError(f"neck: 'gn' needs a width that is a multiple of {GROUP_SIZE}, got {dim}")
    norm: nn.BatchNorm1d | nn.LayerNorm | nn.GroupNorm
    if kind == "bn":
        norm = nn.BatchNorm1d(dim)
    elif kind == "ln":
        norm = nn.LayerNorm(dim)
    else:
        norm = nn.GroupNorm(dim // GROUP_SIZE, dim)
    norm.bias.requires_grad_(False)
    return norm
