"""Batch norm folded into the convolution or linear layer before it: fewer parameters, the same embeddings."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from pyreid.errors import ExportError
from pyreid.models.complexity import CLASSIFIER_PREFIX

_WEIGHTED = ("conv1d", "conv2d", "conv3d", "linear")
_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
# Of the check in float64, where only rounding is left between the two orders of the same products.
_TOLERANCE = 1e-6


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FoldReport:
    """What folding has changed.

    Attributes:
        params_before: learnable parameters without the identity classifier, as :func:`pyreid.models.complexity` counts.
        params_after: the same of the folded model.
        folded: names of the batch norms that are gone.
        kept: names of those that stay: what they normalise is not the output of one layer alone.
    """

    params_before: int
    params_after: int
    folded: tuple[str, ...]
    kept: tuple[str, ...]


def fold_batch_norm(model: nn.Module, *, input_size: tuple[int, int] | None = None) -> nn.Module:
    """A copy of the model in evaluation mode, with every batch norm folded that follows a layer directly.

    Which batch norm follows which layer is read from a traced graph, not from names: the layer's output goes into the
    batch norm and nowhere else, and both are used once. A batch norm behind a linear layer on sequences or maps, whose
    features it would not normalise but their places, stays. The copy's arithmetic is then compared with the model's in
    float64. Training the copy makes no sense: it no longer normalises.

    RMNet without its calibration has 828,790 parameters before and 819,766 after, 0.82 million as the paper's deployed
    networks (RMNet, Table 1).

    Args:
        model: maps (N, 3, H, W) to (N, D) in evaluation mode; left as it is.
        input_size: (H, W) to trace with; by default ``model.default_input_size``.

    Returns:
        The copy, of the same class, on the same device and in the same dtype.

    Raises:
        ValueError: no input size is given, and the model has none.
        pyreid.errors.ExportError: the model cannot be traced, or the folded copy computes something else.
    """
    from pyreid.inference.images import resolve_input

    size = resolve_input(model, size=input_size).size
    original = copy.deepcopy(model).cpu().double().eval()
    pairs = _find_pairs(original, size)
    exact = _folded_copy(original, pairs)
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        expected, found = original(images), exact(images)
    difference = float((found - expected).abs().max())
    if not difference <= _TOLERANCE * max(1.0, float(expected.abs().max())):
        raise ExportError(f"model: folding its batch norms changes the embedding by {difference:.3g}")
    return _folded_copy(model, pairs)


def fold_report(model: nn.Module, folded: nn.Module) -> FoldReport:
    """Compare a model with what :func:`fold_batch_norm` made of it."""
    before, after = _norm_names(model), set(_norm_names(folded))
    return FoldReport(
        params_before=_count(model),
        params_after=_count(folded),
        folded=tuple(name for name in before if name not in after),
        kept=tuple(name for name in before if name in after),
    )


def _norm_names(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, _NORMS)]


def _count(model: nn.Module) -> int:
    return sum(value.numel() for name, value in model.named_parameters() if not name.startswith(CLASSIFIER_PREFIX))


def _find_pairs(model: nn.Module, size: tuple[int, int]) -> list[tuple[str, str]]:
    """Names of (layer, batch norm) where the one's output is the other's input and has no other use."""
    try:
        with torch.no_grad():
            program = torch.export.export(model, (torch.zeros(2, 3, *size, dtype=torch.float64),))
    except Exception as error:  # whatever a traced model raises
        raise ExportError(f"model: {type(model).__name__} cannot be traced: {_first_line(error)}") from error
    signature = program.graph_signature
    names = signature.inputs_to_parameters | signature.inputs_to_buffers
    pairs = []
    for norm in program.graph.nodes:
        if _operator(norm) != "batch_norm" or norm.args[5]:  # which normalises by the batch
            continue
        layer = norm.args[0]
        if _operator(layer) not in _WEIGHTED or len(layer.users) != 1:
            continue
        layer_name = _owner(layer.args[1:3], names)
        norm_name = _owner(norm.args[1:5], names)
        if layer_name is None or norm_name is None:
            continue
        if _operator(layer) == "linear" and layer.meta["val"].dim() != 2:
            continue  # its features are in the last dimension, and a batch norm's channels in the second
        if isinstance(model.get_submodule(layer_name), _LAYERS) and isinstance(model.get_submodule(norm_name), _NORMS):
            pairs.append((layer_name, norm_name))
    return pairs


def _operator(node: Any) -> str:
    """The name of the operator that a node calls: ``"conv2d"`` of ``aten.conv2d.default``; empty for other nodes."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return ""
    return node.target.name().removeprefix("aten::").partition(".")[0]


def _owner(tensors: tuple[Any, ...], names: dict[str, str]) -> str | None:
    """The module whose tensors these are, if they are all of one module and used here alone."""
    owners = set()
    for node in tensors:
        if node is None:
            continue
        if node.op != "placeholder" or node.name not in names or len(node.users) != 1:
            return None
        owners.add(names[node.name].rpartition(".")[0])
    return owners.pop() if len(owners) == 1 else None


def _folded_copy(model: nn.Module, pairs: list[tuple[str, str]]) -> nn.Module:
    folded = copy.deepcopy(model)
    for layer_name, norm_name in pairs:
        layer, norm = folded.get_submodule(layer_name), folded.get_submodule(norm_name)
        _fold_into(layer, norm)
        # timm's batch norms carry an activation
        rest = [part for part in (getattr(norm, "drop", None), getattr(norm, "act", None)) if part is not None]
        folded.set_submodule(norm_name, nn.Sequential(*rest) if rest else nn.Identity())
    return folded.eval()


def _fold_into(layer: Any, norm: Any) -> None:
    """Scale the filters and set the bias so that the layer alone gives what both gave; computed in float64."""
    with torch.no_grad():
        scale = (norm.running_var.double() + norm.eps).rsqrt()
        if norm.weight is not None:
            scale = scale * norm.weight.double()
        shift = -norm.running_mean.double() if layer.bias is None else layer.bias.double() - norm.running_mean.double()
        bias = shift * scale if norm.bias is None else shift * scale + norm.bias.double()
        weight = layer.weight.double() * scale.view(-1, *(1,) * (layer.weight.dim() - 1))
    layer.weight = _parameter(weight, like=layer.weight)
    layer.bias = _parameter(bias, like=layer.weight)


def _parameter(value: Tensor, *, like: Tensor) -> nn.Parameter:
    return nn.Parameter(value.to(like.dtype), requires_grad=like.requires_grad)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
