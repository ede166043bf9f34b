"""Checks of the losses' arguments."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyreid.ops._checks import check_float_tensor, check_labels


def check_number(name: str, value: object, *, low: float = 0.0, above: bool = False) -> None:
    """Raise TypeError or ValueError unless ``value`` is finite and at least, or with ``above`` more than, ``low``."""
    expected = f"a finite number {'above' if above else 'of at least'} {low:g}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: got {value!r}, expected {expected}")
    if not math.isfinite(value) or value < low or (above and value == low):
        raise ValueError(f"{name}: got {value}, expected {expected}")


def check_count(name: str, value: object) -> None:
    """Raise TypeError or ValueError unless ``value`` is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: got {value!r}, expected a positive integer")
    if value < 1:
        raise ValueError(f"{name}: got {value}, expected a positive integer")


def check_class_range(labels: Tensor, num_classes: int) -> None:
    """Raise ValueError if a label is outside [0, num_classes).

    Only for labels on the CPU and outside of compiled code: on a GPU the check would wait for the device, where the
    kernels that index by the labels report them.
    """
    if not labels.is_cpu or torch.compiler.is_compiling() or labels.numel() == 0:
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise ValueError(f"labels: got values from {low} to {high}, expected 0 to {num_classes - 1}")


def check_logits(logits: Tensor, labels: Tensor) -> None:
    """Raise unless ``logits`` are (N, C) with N, C >= 1 and ``labels`` (N,) integers in [0, C)."""
    if logits.dim() != 2 or logits.shape[0] == 0 or logits.shape[1] == 0:
        raise ValueError(f"logits: got shape {tuple(logits.shape)}, expected (N, C) with N, C >= 1")
    if labels.shape != logits.shape[:1]:
        raise ValueError(f"labels: got shape {tuple(labels.shape)}, expected ({logits.shape[0]},) as the logits have")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"labels: got {labels.dtype}, expected integers")
    check_class_range(labels, logits.shape[1])


def check_embeddings(embeddings: object, labels: object) -> None:
    """Raise unless ``embeddings`` are (N, D) of a floating-point type and ``labels`` (N,) integers beside them."""
    check_float_tensor("embeddings", embeddings, (2,))
    assert isinstance(embeddings, Tensor)
    check_labels(labels, embeddings)
