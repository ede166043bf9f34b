"""What becomes int8 in an exported graph, and where its numbers are rounded; what costs accuracy and no time stays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

# Layers with weights.
LAYERS = ("Conv", "Gemm", "MatMul")
_CLIP_SUFFIX = "_saturated"
# Gates, and places in the image, end in one of these. Squeeze-and-excitation of edge networks ends in a hard sigmoid,
# bears int8, and holds a third of their weights.
_GATES = ("Sigmoid", "Tanh")
_POOLS = ("ReduceMean", "ReduceMax", "GlobalAveragePool", "GlobalMaxPool")
# Below such an input the activation is constant, ELU within a hundredth.
_SATURATED_BELOW = {"HardSwish": -3.0, "HardSigmoid": -3.0, "Elu": -4.6}


def float_nodes(model: Any, *, for_openvino: bool) -> list[str]:
    """Names of the layers that stay in float32, and of the activations that no range of a layer may take in.

    A binary mask decides by the sign of a logit, so that the least rounding turns it over, and with it a whole channel:
    all layers before it stay, and the mask is that of float32. Of a gate those stay that make it from its map or from
    pooled features; they are few, and small: depthwise, or on vectors.

    Args:
        model: an ONNX model.
        for_openvino: OpenVINO will run it.
    """
    nodes = model.graph.node
    made_by = {output: node for node in nodes for output in node.output}
    uses = Counter(name for node in nodes for name in node.input)
    names = set()
    for node in nodes:
        if node.op_type == "Greater":  # a binary mask
            names |= _layers_before(node, made_by, stop=lambda _, __: False)
        elif node.op_type in _GATES:
            names |= _layers_before(node, made_by, stop=lambda tensor, kind: uses[tensor] > 1 or kind in _POOLS)
    if for_openvino:
        # OpenVINO 2026.4 computes something else for an int8 layer whose input is a global maximum.
        names |= {n.name for n in nodes if n.input and _kind(made_by.get(n.input[0])) == "ReduceMax"}
    for node in nodes:
        # Of the network's own activations only a ReLU behind its layer ends the layer's range.
        behind_layer = node.op_type == "Relu" and _kind(made_by.get(node.input[0])) in LAYERS
        if node.op_type in ("Relu", "Clip") and not behind_layer:
            names.add(node.name)
    return sorted(names)


def _layers_before(last: Any, made_by: dict[str, Any], stop: Callable[[str, str], bool]) -> set[str]:
    """Names of the layers on the way to a node; not beyond a tensor where ``stop(its name, what makes it)``."""
    names, seen, tensors = set(), set(), [last.input[0]]
    while tensors:
        tensor = tensors.pop()
        node = made_by.get(tensor)
        if node is None or tensor in seen or stop(tensor, node.op_type):
            continue
        seen.add(tensor)
        if node.op_type in LAYERS:
            names.add(node.name)
        tensors.extend(node.input)
    return names


def _kind(node: Any) -> str:
    return "" if node is None else str(node.op_type)


def clip_saturated(model: Any, *, leave: Collection[str] = ()) -> None:
    """Clip what layers give to activations that are constant further down: only the layers' ranges change.

    A range that ends where the activation does is half as wide, and the steps half as large. For runtimes that round
    between a layer and its activation. Layers of the names ``leave`` are left as they are.
    """
    import numpy as np
    from onnx import helper, numpy_helper

    graph = model.graph
    users: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    nodes, bounds = [], set()
    for node in graph.node:
        nodes.append(node)
        output = node.output[0] if node.op_type in LAYERS and node.name not in leave else ""
        found = users.get(output, [])
        if not found or any(user.op_type not in _SATURATED_BELOW for user in found):
            continue
        lowest = min(_SATURATED_BELOW[user.op_type] for user in found)
        bounds.add(lowest)
        nodes.append(
            helper.make_node(
                "Clip", [output, f"{_CLIP_SUFFIX}{lowest}"], [output + _CLIP_SUFFIX], name=node.name + _CLIP_SUFFIX
            )
        )
        for user in found:
            for place, name in enumerate(user.input):
                if name == output:
                    user.input[place] = output + _CLIP_SUFFIX
    graph.initializer.extend(
        numpy_helper.from_array(np.array(lowest, np.float32), f"{_CLIP_SUFFIX}{lowest}") for lowest in sorted(bounds)
    )
    del graph.node[:]
    graph.node.extend(nodes)


def keep_residuals(model: Any, *, for_openvino: bool) -> None:
    """In a quantised graph: let all but layers read a tensor as it was before it was rounded.

    Otherwise a shortcut would be rounded again in every block, and the errors add up over the depth. What a layer gives
    is rounded by ONNX Runtime's layers themselves, so there nothing is to be had.
    """
    made_by = {output: node for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        if node.op_type in (*LAYERS, "QuantizeLinear", "DequantizeLinear"):
            continue
        for place, name in enumerate(node.input):
            wide = made_by.get(name)
            if wide is None or wide.op_type != "DequantizeLinear":
                continue
            rounded = made_by.get(wide.input[0])
            if rounded is None or rounded.op_type != "QuantizeLinear":
                continue
            if for_openvino or _kind(made_by.get(rounded.input[0])) not in LAYERS:
                node.input[place] = rounded.input[0]
