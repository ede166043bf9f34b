"""Checks of the operators' arguments, shared by the operators and their twins in plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from pyreid._extension import load_cuda_library
from pyreid.errors import ExtensionError

Metric = Literal["euclidean", "sqeuclidean", "cosine"]
Reduction = Literal["mean", "sum", "none"]

# Why there are no CUDA kernels; None where there are.
CUDA_PROBLEM = load_cuda_library()

HALF_TYPES = (torch.float16, torch.bfloat16)
FLOAT_TYPES = (*HALF_TYPES, torch.float32, torch.float64)
_NUMBERS = (int, float, np.integer, np.floating)
_LARGEST = torch.finfo(torch.float32).max  # of numbers that become float32; larger ones would be infinite there


def check_choice(name: str, value: object, choices: Any) -> None:
    """Raise ValueError unless ``value`` is one of the strings of the Literal ``choices``."""
    allowed = get_args(choices)
    if value not in allowed:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, allowed))}, got {value!r}")


def check_float_tensor(name: str, value: object, dims: Sequence[int]) -> None:
    """Raise TypeError or ValueError unless ``value`` is a floating-point tensor with ``dims`` dimensions."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
    if value.dtype not in FLOAT_TYPES:
        raise TypeError(f"{name}: expected float16, bfloat16, float32 or float64, got {value.dtype}")
    if value.dim() not in dims:
        expected = " or ".join(f"{d}-D" for d in dims)
        raise ValueError(f"{name}: expected a {expected} tensor, got shape {tuple(value.shape)}")


def check_device(name: str, value: Tensor) -> None:
    """Raise unless there are kernels for the device of ``value``.

    Raises:
        ValueError: if it is on neither the CPU nor a CUDA device.
        ExtensionError: if it is on a CUDA device and the CUDA library is not loaded.
    """
    if value.is_cpu:
        return
    if value.is_cuda:
        if CUDA_PROBLEM is not None:
            raise ExtensionError(f"{name}: on {value.device}, but the CUDA library is not loaded: {CUDA_PROBLEM}")
    elif not value.is_meta:
        raise ValueError(f"{name}: on {value.device}, but kernels exist for cpu and cuda; use pyreid.ops.reference")


def check_labels(labels: object, embeddings: Tensor) -> None:
    """Raise TypeError or ValueError unless ``labels`` are integers, one for each row of ``embeddings``."""
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels: expected a torch.Tensor, got {type(labels).__name__}")
    if labels.dtype.is_floating_point or labels.dtype.is_complex or labels.dtype == torch.bool:
        raise TypeError(f"labels: expected integers, got {labels.dtype}")
    if labels.shape != embeddings.shape[:1]:
        raise ValueError(
            f"labels: expected shape ({embeddings.shape[0]},) to match embeddings, got {tuple(labels.shape)}"
        )
    if labels.device != embeddings.device:
        raise ValueError(f"labels: on {labels.device}, but embeddings are on {embeddings.device}")


def check_margin(margin: object) -> None:
    """Raise TypeError or ValueError unless ``margin`` is None or a finite number."""
    if margin is None:
        return
    if isinstance(margin, bool) or not isinstance(margin, _NUMBERS):
        raise TypeError(f"margin: expected a number, or None for the soft margin, got {type(margin).__name__}")
    if not (-_LARGEST <= margin <= _LARGEST):
        raise ValueError(f"margin: expected a finite number, or None for the soft margin, got {margin}")


def check_k(k: object, gallery: Tensor) -> None:
    """Raise TypeError or ValueError unless ``k`` neighbors can be taken from ``gallery``."""
    if isinstance(k, bool) or not isinstance(k, int | torch.SymInt | np.integer):
        raise TypeError(f"k: expected an integer, got {type(k).__name__}")
    if not (0 <= k <= gallery.shape[0]):
        raise ValueError(f"k: expected 0 to {gallery.shape[0]}, the rows of gallery, got {k}")


def upcast(x: Tensor) -> Tensor:
    """float16 and bfloat16 to float32, the rest unchanged."""
    return x.float() if x.dtype in HALF_TYPES else x


def check_gem_arguments(x: object, p: object, eps: object) -> None:
    """Raise TypeError or ValueError unless the arguments are those of ``gem_pool``."""
    check_float_tensor("x", x, (3, 4))
    assert isinstance(x, Tensor)
    if 0 in x.shape[2:]:
        raise ValueError(f"x: expected at least one position to pool over, got shape {tuple(x.shape)}")
    limits = torch.finfo(computing_dtype(x))
    tiny = limits.tiny
    if isinstance(eps, bool) or not isinstance(eps, _NUMBERS):
        raise TypeError(f"eps: expected a number, got {type(eps).__name__}")
    if not (tiny <= eps <= limits.max):
        raise ValueError(f"eps: expected a finite number of at least {tiny:.3g}, got {eps!r}")
    if not isinstance(p, Tensor):
        if isinstance(p, bool) or not isinstance(p, _NUMBERS):
            raise TypeError(f"p: expected a number or a torch.Tensor, got {type(p).__name__}")
        if not (tiny <= p <= limits.max):
            raise ValueError(f"p: expected a finite number above 0, got {p!r}")
        return
    if p.dtype not in FLOAT_TYPES:
        raise TypeError(f"p: expected float16, bfloat16, float32 or float64, got {p.dtype}")
    if p.shape not in ((), (1,), (x.shape[1],)):
        raise ValueError(f"p: expected shape (), (1,) or ({x.shape[1]},) to match x, got {tuple(p.shape)}")
    if p.device != x.device:
        raise ValueError(f"p: on {p.device}, but x is on {x.device}")


def computing_dtype(*tensors: Tensor) -> torch.dtype:
    """float64 if one of them is, else float32."""
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def promoted_type(*tensors: Tensor) -> torch.dtype:
    """The dtype of torch's arithmetic between these tensors of one dimension or more."""
    dtype = tensors[0].dtype
    for other in tensors[1:]:
        dtype = torch.promote_types(dtype, other.dtype)
    return dtype


def _check_like(name: str, value: object, x: Tensor) -> None:
    """Raise TypeError or ValueError unless ``value`` is a floating-point tensor of the shape and device of ``x``."""
    check_float_tensor(name, value, (x.dim(),))
    assert isinstance(value, Tensor)
    if value.shape != x.shape:
        raise ValueError(f"{name}: expected shape {tuple(x.shape)} to match x, got {tuple(value.shape)}")
    if value.device != x.device:
        raise ValueError(f"{name}: on {value.device}, but x is on {x.device}")


def check_mix_arguments(local: object, x: object, identity: object, mask: object) -> None:
    """Raise TypeError or ValueError unless the arguments are those of ``masked_mix``."""
    check_float_tensor("x", x, (3, 4))
    assert isinstance(x, Tensor)
    _check_like("local", local, x)
    _check_like("identity", identity, x)
    check_float_tensor("mask", mask, (1, 2))
    assert isinstance(mask, Tensor)
    # By the dimensions: to look for the shape among both would guard exported graphs against a batch of C images.
    if mask.shape != (x.shape[1:2] if mask.dim() == 1 else x.shape[:2]):
        expected = f"({x.shape[1]},) or {tuple(x.shape[:2])}"
        raise ValueError(f"mask: expected shape {expected} to match x, got {tuple(mask.shape)}")
    if mask.device != x.device:
        raise ValueError(f"mask: on {mask.device}, but x is on {x.device}")


def check_gate_arguments(x: object, gate: object) -> None:
    """Raise TypeError or ValueError unless the arguments are those of ``gate_and_pool``."""
    check_float_tensor("x", x, (3, 4))
    assert isinstance(x, Tensor)
    if 0 in x.shape[2:]:
        raise ValueError(f"x: expected at least one position to pool over, got shape {tuple(x.shape)}")
    _check_like("gate", gate, x)


def check_spatial_gate_arguments(x: object, weight1: object, weight2: object, negative_slope: object) -> None:
    """Raise TypeError or ValueError unless the arguments are those of ``spatial_gate``."""
    check_float_tensor("x", x, (4,))
    assert isinstance(x, Tensor)
    if 0 in x.shape[2:]:
        raise ValueError(f"x: expected at least one pixel, got shape {tuple(x.shape)}")
    if x.shape[2] * x.shape[3] >= 2**31:
        raise ValueError(f"x: expected less than 2^31 pixels in a plane, got shape {tuple(x.shape)}")
    channels = x.shape[1]
    for name, weight in (("weight1", weight1), ("weight2", weight2)):
        check_float_tensor(name, weight, (4,))
        assert isinstance(weight, Tensor)
        if weight.shape not in ((channels, 1, 3, 3), (channels, channels, 3, 3)):
            raise ValueError(
                f"{name}: expected shape ({channels}, 1, 3, 3), a 3x3 filter for each channel of x, or "
                f"({channels}, {channels}, 3, 3) for full convolutions, got {tuple(weight.shape)}"
            )
        if weight.device != x.device:
            raise ValueError(f"{name}: on {weight.device}, but x is on {x.device}")
    assert isinstance(weight1, Tensor)
    assert isinstance(weight2, Tensor)
    if weight1.shape != weight2.shape:
        raise ValueError(f"weight2: expected shape {tuple(weight1.shape)}, as weight1 has, got {tuple(weight2.shape)}")
    if isinstance(negative_slope, bool) or not isinstance(negative_slope, _NUMBERS):
        raise TypeError(f"negative_slope: expected a number, got {type(negative_slope).__name__}")
    if not (-_LARGEST <= negative_slope <= _LARGEST):
        raise ValueError(f"negative_slope: expected a finite number, got {negative_slope}")


def under_autocast(x: Tensor) -> bool:
    """Whether autocast is on for the device of ``x``."""
    # torch.amp.is_autocast_available cannot be traced by the compiler of torch 2.11
    return x.device.type in ("cpu", "cuda") and torch.is_autocast_enabled(x.device.type)
