"""Crops of a feature map at learned places, differentiable in the map and in the places: the sampling of HA-CNN's hard
attention ("Harmonious Attention Network for Person Re-Identification", Sect. 3.2).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pyreid.layers.embedding import without_autocast


def sample_regions(x: Tensor, centers: Tensor, *, size: tuple[int, int], scale: tuple[float, float]) -> Tensor:
    """Cut regions out of every map at its own size, then bring them to ``size``; both by bilinear interpolation.

    The two steps are HA-CNN's. One, straight to ``size``, would give the same for regions whose samples fall on pixels,
    as those of the start do along the width; elsewhere the first step smooths a little.

    Coordinates run from -1 at the center of the first pixel to 1 at the center of the last, so that four regions of
    height scale 1/4 at -0.75, -0.25, 0.25 and 0.75 are the four horizontal strips of the map. What lies outside the map
    is 0. The second step has the corners of both sizes in the same places.

    Computed in float32, or float64 if ``x`` is: in half precision a coordinate would be off by a good part of a pixel.

    On CUDA the gradients of both steps are summed in no fixed order, unless
    ``torch.use_deterministic_algorithms(True)`` asks for one: then two matrix products take their place. So they do in
    exported graphs, where some runtimes gather wrongly in batches.

    Args:
        x: maps (N, C, H, W).
        centers: (N, R, 2), the centers (x, y) of R regions in each map.
        size: (h, w) of a region in the result; 1 takes the middle.
        scale: (height, width) of a region relative to the map's, in (0, 1].

    Returns:
        (N * R, C, h, w) in the dtype of ``x``: the R regions of the first map, then those of the second, ...

    Raises:
        ValueError: a shape or an option does not fit.
    """
    _check_arguments(x, centers, size, scale)
    wide = x if x.dtype == torch.float64 else x.float()
    centers = centers.to(wide.dtype)
    rows = centers[..., 1:] + scale[0] * _positions(x.shape[2], wide)  # (N, R, H)
    columns = centers[..., :1] + scale[1] * _positions(x.shape[3], wide)  # (N, R, W)
    # Of a region of one row or column interpolate takes the first pixel, where the middle is meant.
    by_products = 1 in size or torch.compiler.is_exporting()
    by_products = by_products or (x.is_cuda and torch.are_deterministic_algorithms_enabled())
    sample = _by_products if by_products else _by_gather
    return sample(wide, rows, columns, size).to(x.dtype)


def _by_gather(x: Tensor, rows: Tensor, columns: Tensor, size: tuple[int, int]) -> Tensor:
    (maps, channels), (_, regions, height), width = x.shape[:2], rows.shape, columns.shape[2]
    grid = torch.stack(
        (columns[:, :, None, :].expand(-1, -1, height, -1), rows[:, :, :, None].expand(-1, -1, -1, width)), dim=-1
    )
    # The regions of a map lie below each other in one grid, which spares a copy of the map for each.
    found = F.grid_sample(x, grid.flatten(1, 2), mode="bilinear", padding_mode="zeros", align_corners=True)
    found = found.unflatten(2, (regions, height)).transpose(1, 2)
    found = found.reshape(maps * regions, channels, height, width)
    return F.interpolate(found, size=size, mode="bilinear", align_corners=True)


def _by_products(x: Tensor, rows: Tensor, columns: Tensor, size: tuple[int, int]) -> Tensor:
    """The same as matrix products: both steps are linear, and each is one along the rows and one along the columns."""
    with without_autocast(x):
        # Products of two and no einsum of three: OpenVINO 2026.4 computes that one wrongly for more than one map.
        along_rows = _two_steps(rows, size[0])  # (N, R, h, H)
        along_columns = _two_steps(columns, size[1])  # (N, R, w, W)
        found = along_rows[:, :, None] @ (x[:, None] @ along_columns.mT[:, :, None])
    return found.flatten(0, 1)


def _two_steps(positions: Tensor, size: int) -> Tensor:
    """Weights (..., size, P) of the pixels of an axis in a region, sampled at ``positions`` (..., P) and resized."""
    count = positions.shape[-1]
    return _weights(_positions(size, positions), count) @ _weights(positions, count)


def _weights(positions: Tensor, count: int) -> Tensor:
    """Weights (..., P, count) of the ``count`` pixels of an axis in the values at ``positions`` (..., P)."""
    pixels = torch.arange(count, dtype=positions.dtype, device=positions.device)
    return (1 - ((positions[..., None] + 1) * ((count - 1) / 2) - pixels).abs()).clamp(min=0)


def _positions(count: int, like: Tensor) -> Tensor:
    """``count`` positions from -1 to 1 with equal steps; the middle if it is only one."""
    steps = torch.arange(count, dtype=like.dtype, device=like.device)
    return steps * (2 / (count - 1)) - 1 if count > 1 else 0 * steps


def _check_arguments(x: Tensor, centers: Tensor, size: tuple[int, int], scale: tuple[float, float]) -> None:
    if x.dim() != 4 or 0 in x.shape[1:]:
        raise ValueError(f"x: got shape {tuple(x.shape)}, expected (N, C, H, W) with C, H, W >= 1")
    if centers.dim() != 3 or centers.shape[0] != x.shape[0] or centers.shape[2] != 2:
        raise ValueError(f"centers: got shape {tuple(centers.shape)}, expected ({x.shape[0]}, R, 2)")
    if min(size) < 1:
        raise ValueError(f"size: got {size}, expected two positive integers")
    if not all(0 < value <= 1 for value in scale):
        raise ValueError(f"scale: got {scale}, expected two values in (0, 1]")
