"""Parameters and multiply-accumulates of a model, counted the way the papers count."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import pyreid.ops  # noqa: F401  # makes torch.ops.pyreid

CLASSIFIER_PREFIX = "classifier."
_Module = TypeVar("_Module", bound=nn.Module)
_WEIGHTED_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclasses.dataclass(frozen=True, slots=True)
class Complexity:
    """Size and cost of one forward pass.

    Attributes:
        params: learnable parameters, frozen or not; buffers such as running statistics do not count.
        weight_params: the part of ``params`` in weights of convolution and linear layers, without biases and norms.
        macs: multiply-accumulates of convolutions and matrix products, for one image in evaluation mode.
        flops: ``2 * macs``. Papers differ: SAFR, Compact-ReID and DaRe print MACs as "FLOPs", RMNet prints this.
    """

    params: int
    weight_params: int
    macs: int
    flops: int


def complexity(
    model: nn.Module, input_size: tuple[int, int] | None = None, *, include_classifier: bool = False
) -> Complexity:
    """Count a model's parameters and the cost of embedding one image.

    The model is copied to the meta device and run once there, so nothing is computed and ``model`` stays as it is.
    Every convolution and matrix product that PyTorch executes is counted, from layers and functional calls alike; batch
    norm, activations, pooling and element-wise products are not, as in the papers.

    Args:
        model: maps (1, 3, H, W) to anything in evaluation mode.
        input_size: (H, W); by default ``model.default_input_size``.
        include_classifier: count the parameters of the submodule ``classifier`` too; it takes no part in embedding an
            image, so the MACs never include it.

    Returns:
        The counts.

    Raises:
        ValueError: the input size is missing or not two positive integers.
    """
    height, width = check_input_size(model, input_size)
    skeleton = _meta_copy(model).eval()
    params = sum(p.numel() for name, p in skeleton.named_parameters() if include_classifier or not _in_classifier(name))
    weights = {id(weight): weight for weight in _layer_weights(skeleton, include_classifier=include_classifier)}
    counter = _flop_counter()
    with torch.no_grad(), counter:
        skeleton(_image(skeleton, height, width))
    flops = int(counter.get_total_flops())
    return Complexity(
        params=params, weight_params=sum(w.numel() for w in weights.values()), macs=flops // 2, flops=flops
    )


def macs_of_steps(
    model: _Module, run: Callable[[_Module, torch.Tensor], Iterator[object]], input_size: tuple[int, int]
) -> tuple[int, ...]:
    """Multiply-accumulates of a computation that comes in steps, counted as :func:`complexity` counts.

    Args:
        model: a copy without data is what ``run`` gets, in evaluation mode.
        run: starts the computation for the copy and one image (1, 3, H, W); each step ends with an item.
        input_size: (H, W).

    Returns:
        For each item what all steps so far have cost.

    Raises:
        ValueError: the input size is not two positive integers.
    """
    height, width = check_input_size(model, input_size)
    skeleton = _meta_copy(model).eval()
    counter = _flop_counter()
    totals = []
    with torch.no_grad(), counter:
        for _ in run(skeleton, _image(skeleton, height, width)):
            totals.append(int(counter.get_total_flops()) // 2)
    return tuple(totals)


def _flop_counter() -> FlopCounterMode:
    return FlopCounterMode(display=False, custom_mapping={torch.ops.pyreid.spatial_gate: _spatial_gate_flops})


def _image(skeleton: nn.Module, height: int, width: int) -> torch.Tensor:
    dtype = next((p.dtype for p in skeleton.parameters()), torch.float32)
    return torch.empty(1, 3, height, width, device="meta", dtype=dtype)


def _spatial_gate_flops(x_shape: torch.Size, *_: object, **__: object) -> int:
    """Of the two depthwise 3x3 convolutions inside the operator."""
    return 2 * 2 * 9 * math.prod(x_shape)


def check_input_size(model: nn.Module, input_size: tuple[int, int] | None) -> tuple[int, int]:
    """The input size, or the model's default for None; raises ``ValueError`` unless it is two positive integers."""
    size = getattr(model, "default_input_size", None) if input_size is None else input_size
    valid = isinstance(size, tuple | list) and len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size)
    if not valid:
        raise ValueError(f"input_size: got {size!r}, expected (height, width), two positive integers")
    height, width = size  # type: ignore[misc]
    return height, width


def _meta_copy(model: _Module) -> _Module:
    """A copy without data: tensors are replaced while copying, so a large model is not held twice."""
    memo: dict[int, object] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
    for buffer in model.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(model, memo)


def _in_classifier(name: str) -> bool:
    return name.startswith(CLASSIFIER_PREFIX)


def _layer_weights(model: nn.Module, *, include_classifier: bool) -> Iterator[torch.Tensor]:
    for name, module in model.named_modules():
        if isinstance(module, _WEIGHTED_LAYERS) and (include_classifier or not _in_classifier(name + ".")):
            yield module.weight
