"""All distances between the rows of two matrices."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from pyreid.ops._checks import (
    Metric,
    check_choice,
    check_device,
    check_float_tensor,
    upcast,
)
from pyreid.ops._register import (
    check_transforms,
    float32_under_autocast,
    forbid_double_backward,
    register_autograd,
)
from pyreid.ops.distance_tiles import full_float32


@torch.library.register_fake("pyreid::pairwise_distance")
def _fake(x: Tensor, y: Tensor, metric: str, same: bool) -> Tensor:
    return x.new_empty((x.shape[0], y.shape[0]))


@torch.library.register_fake("pyreid::pairwise_distance_backward")
def _fake_backward(grad: Tensor, distance: Tensor, x: Tensor, y: Tensor, metric: str) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), y.new_empty(y.shape)


@contextlib.contextmanager
def _exact_products() -> Iterator[None]:
    with torch.autocast("cuda", enabled=False), full_float32():
        yield


# The operators on CUDA are these functions, and not the kernels themselves: a compiled graph holds the operator and
# calls it at run time, so that there, too, products are exact.
def _on_cuda(x: Tensor, y: Tensor, metric: str, same: bool) -> Tensor:
    with _exact_products():
        out: Tensor = torch.ops.pyreid._pairwise_distance(x, y, metric, same)
    return out


def _backward_on_cuda(grad: Tensor, distance: Tensor, x: Tensor, y: Tensor, metric: str) -> tuple[Tensor, Tensor]:
    with _exact_products():
        gradients: tuple[Tensor, Tensor] = torch.ops.pyreid._pairwise_distance_backward(grad, distance, x, y, metric)
    return gradients


torch.library.impl("pyreid::pairwise_distance", "cuda", _on_cuda)
torch.library.impl("pyreid::pairwise_distance_backward", "cuda", _backward_on_cuda)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, str, bool], output: Tensor) -> None:
    x, y, ctx.metric, _ = inputs
    ctx.save_for_backward(output, x, y)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
    distance, x, y = ctx.saved_tensors
    dx, dy = torch.ops.pyreid.pairwise_distance_backward(grad, distance, x, y, ctx.metric)
    return dx, dy, None, None


_call = register_autograd("pyreid::pairwise_distance", _backward, setup_context=_setup_context)
forbid_double_backward("pyreid::pairwise_distance_backward")
# the backward too: autocast would convert the products inside
float32_under_autocast("pyreid::pairwise_distance")
float32_under_autocast("pyreid::pairwise_distance_backward")


def pairwise_distance(x: Tensor, y: Tensor | None = None, *, metric: Metric = "euclidean") -> Tensor:
    """Distances between all rows of ``x`` and all rows of ``y``.

    The matrix product is torch's; one fused pass turns it into distances. Euclidean distances of pairs that are close
    compared with their norms are summed again from the differences, so that near duplicates keep their digits, and the
    diagonal of ``pairwise_distance(x)`` is exactly 0 (NaN for a row that is not finite). The gradient at Euclidean
    distance 0 is 0.

    Limits: the gradient is a matrix product too, and loses digits for near duplicates far from the origin; subtract the
    mean of the rows first, which changes no Euclidean distance. Cosine distances of near duplicates have the absolute
    error of a float32 product, so they may come out a little below 0. Squared norms must lie in the range of the dtype.
    On CUDA all products are in full float32, forward and backward, whatever ``torch.backends`` allows (TF32) and
    autocast says; on the CPU they obey ``torch.backends.mkldnn.matmul``, whose default is full float32.

    Args:
        x: (N, D), float16, bfloat16, float32 or float64; half precision is computed and returned in float32.
        y: (M, D) of the same dtype and device; ``None`` stands for ``x``.
        metric: ``"euclidean"`` (L2), ``"sqeuclidean"`` (its square) or ``"cosine"`` (1 - cosine similarity; rows are
            normalised inside, and the similarity with a row of zeros is 0).

    Returns:
        (N, M) distances.

    Raises:
        TypeError: if x or y is not a floating-point tensor.
        ValueError: if shapes, dtypes or devices do not fit, or the metric is unknown.
    """
    check_choice("metric", metric, Metric)
    check_float_tensor("x", x, (2,))
    same = y is None
    if y is None:
        y = x
    check_float_tensor("y", y, (2,))
    check_device("x", x)
    check_transforms("pairwise_distance", x, y)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"y: expected {x.shape[1]} columns to match x, got shape {tuple(y.shape)}")
    if x.dtype != y.dtype or x.device != y.device:
        raise ValueError(f"y: expected {x.dtype} on {x.device} to match x, got {y.dtype} on {y.device}")
    return _call(upcast(x), upcast(y), metric, same)
