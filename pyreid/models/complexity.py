"""Parameters and multiply-accumulates of a model, counted the way the papers count."""

from __future__ import annotations

import copy
import dataclasses
import math
import weakref
from collections.abc import Callable, Hashable, Iterator
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import pyreid.ops  # noqa: F401  # makes torch.ops.pyreid

CLASSIFIER_PREFIX = "classifier."
_Module = TypeVar("_Module", bound=nn.Module)
_WEIGHTED_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)

# In evaluation a norm is a factor and a summand for each element.
_OPS_OF_NORM = 2
_NORMS = frozenset(
    ("batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit",
     "cudnn_batch_norm", "miopen_batch_norm", "native_layer_norm", "native_group_norm")
)  # fmt: skip
# An activation is one operation for each element, whatever the function, as the usual counters have it.
_ACTIVATIONS = {
    **dict.fromkeys(
        ("relu", "leaky_relu", "elu", "prelu", "_prelu_kernel", "gelu", "silu", "hardswish", "hardtanh", "sigmoid",
         "hardsigmoid", "tanh", "softplus", "_softmax"), 1),
    "spatial_gate": 3,  # leaky ReLU, sigmoid and ReLU inside the operator
    "masked_mix": 1,
}  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Complexity:
    """Size and cost of one forward pass.

    Attributes:
        params: learnable parameters, frozen or not; buffers such as running statistics do not count.
        weight_params: the part of ``params`` in weights of convolution and linear layers, without biases and norms.
        macs: multiply-accumulates of convolutions and matrix products, for one image in evaluation mode.
        flops: ``2 * macs``. Papers differ: SAFR, Compact-ReID and DaRe print MACs as "FLOPs", RMNet prints this.
        folded_params: ``weight_params`` and a bias for each filter: what a network of convolutions with batch norms
            keeps once those are folded, as deployed networks are counted.
        norm_ops: operations of batch, layer and group norms, two for each element; in no other count.
        activation_ops: operations of activations and gates, one for each element; in no other count.
    """

    params: int
    weight_params: int
    macs: int
    flops: int
    folded_params: int
    norm_ops: int
    activation_ops: int

    @property
    def macs_and_norms(self) -> int:
        """``macs + norm_ops``: with them Compact-ReID's networks come nearest to its Table 1."""
        return self.macs + self.norm_ops


def complexity(
    model: nn.Module, input_size: tuple[int, int] | None = None, *, include_classifier: bool = False
) -> Complexity:
    """Count a model's parameters and the cost of embedding one image.

    The model is copied to the meta device and run once there, so nothing is computed and ``model`` stays as it is.
    Every convolution and matrix product that PyTorch executes is counted, from layers and functional calls alike. Norms
    and activations are counted apart; pooling, additions and element-wise products are not, as in the papers.

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
    counter, elementwise = _flop_counter(), _ElementwiseCounter()
    with torch.no_grad(), elementwise, counter:
        skeleton(_image(skeleton, height, width))
    flops = int(counter.get_total_flops())
    weight_params = sum(weight.numel() for weight in weights.values())
    return Complexity(
        params=params,
        weight_params=weight_params,
        macs=flops // 2,
        flops=flops,
        folded_params=weight_params + sum(len(weight) for weight in weights.values()),
        norm_ops=elementwise.norm_ops,
        activation_ops=elementwise.activation_ops,
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


class CostCache:
    """Costs of one model, measured once and forgotten when a module of it is replaced, added or taken away.

    What changes inside a module, such as the stride of a convolution, goes unseen. A copy starts empty.
    """

    def __init__(self) -> None:
        self._modules: tuple[weakref.ref[nn.Module], ...] = ()
        self._costs: dict[Hashable, tuple[int, ...]] = {}

    def get(self, model: nn.Module, key: Hashable, measure: Callable[[], tuple[int, ...]]) -> tuple[int, ...]:
        """The costs under ``key``, from ``measure`` unless they are known for the modules that ``model`` has now."""
        modules = tuple(model.modules())
        # By reference, because a new module may get the address of one that is gone.
        known = len(modules) == len(self._modules) and all(
            reference() is module for reference, module in zip(self._modules, modules, strict=True)
        )
        if not known:
            self._costs = {}
            self._modules = tuple(map(weakref.ref, modules))
        if key not in self._costs:
            self._costs[key] = measure()
        return self._costs[key]

    def __reduce__(self) -> tuple[type[CostCache], tuple[()]]:
        return CostCache, ()


class _ElementwiseCounter(TorchDispatchMode):
    """Counts the operations of norms and activations that run inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_ops = 0
        self.activation_ops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._overloadpacket.__name__
        if name in _NORMS:
            self.norm_ops += _OPS_OF_NORM * result[0].numel()
        elif (count := _ACTIVATIONS.get(name.removesuffix("_"))) is not None:
            self.activation_ops += count * (result[0] if isinstance(result, tuple) else result).numel()
        return result


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
