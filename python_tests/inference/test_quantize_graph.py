"""What stays in float32 and where numbers are rounded: read from the int8 graphs of a small network with all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pyreid
from pyreid.inference import export_onnx, quantize_int8
from pyreid.inference.quantize_graph import LAYERS, clip_saturated, float_nodes, keep_residuals
from pyreid.inference.sample_images import sample_images
from pyreid.layers import DBAM

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

SIZE = (32, 16)


class Network(nn.Module):
    """A stem, DBAM with its binary mask, hard swish, a residual block, squeeze-and-excitation, a gate and a head."""

    default_input_size = SIZE

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.dbam = DBAM(8, ratio=2)
        self.swish = nn.Conv2d(8, 8, 1)
        nn.init.normal_(self.swish.weight, std=10)
        self.first, self.second = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.excite = nn.Linear(8, 8)
        self.gate = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.last = nn.Conv2d(8, 12, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        x = self.dbam(x, x)
        x = nn.functional.hardswish(self.swish(x))
        x = x + self.second(self.first(x).relu())
        x = x * nn.functional.hardsigmoid(self.excite(x.mean((2, 3))))[:, :, None, None]
        x = x * self.gate(x).sigmoid()
        return self.last(x).mean((2, 3))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    torch.manual_seed(2)
    return export_onnx(Network().eval(), tmp_path_factory.mktemp("graph") / "float.onnx").path


def weights_of(graph: Any, names: set[str]) -> set[str]:
    """The network's modules of these layers."""
    layers = [node for node in graph.node if node.op_type in LAYERS and node.name in names]
    return {node.input[1].removeprefix("model.").removesuffix(".weight") for node in layers}


BEFORE_MASK = {"stem", "dbam.conv1", "dbam.conv2", "dbam.mask.reduce", "dbam.mask.expand"}


@pytest.mark.parametrize("for_openvino", [False, True])
def test_masks_and_gates_stay_in_float32(for_openvino: bool, exported: Path) -> None:
    model = onnx.load(exported)
    names = set(float_nodes(model, for_openvino=for_openvino))
    assert weights_of(model.graph, names) == {*BEFORE_MASK, "gate"}
    kinds = [node.op_type for node in model.graph.node if node.name in names]
    assert set(kinds) <= {"Relu", "Clip", *LAYERS}
    made_by = {output: node for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        if node.op_type == "Relu":  # DBAM has some behind a sum, whose range is no layer's
            assert (node.name in names) is (made_by[node.input[0]].op_type not in LAYERS)


def test_the_file_is_quantised_so(exported: Path, tmp_path: Path) -> None:
    report = quantize_int8(exported, tmp_path / "int8.onnx", min_similarity=0.9)
    assert (report.float_layers, report.layers) == (8, 13)  # the mask's two layers see two pools
    graph = onnx.load(report.path).graph
    made_by = {output: node for node in graph.node for output in node.output}
    rounded = {
        node.name
        for node in graph.node
        if node.op_type in LAYERS and made_by.get(node.input[0], node).op_type == "DequantizeLinear"
    }
    assert len(rounded) == 5
    layers = {node.name for node in graph.node if node.op_type in LAYERS}
    assert weights_of(graph, layers - rounded) == {*BEFORE_MASK, "gate"}
    assert not [node for node in graph.node if node.op_type == "Clip"], "they have become ranges"
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    (swish,) = [node for node in graph.node if node.op_type == "HardSwish"]
    _, scale, zero_point = (values.get(name) for name in made_by[swish.input[0]].input)
    assert float(scale) * (255 - int(zero_point)) > 4, "the range above is wide"
    assert -3.1 < -float(scale) * int(zero_point) < -2.9


def test_a_binary_mask_is_that_of_float32(exported: Path, tmp_path: Path) -> None:
    path = quantize_int8(exported, tmp_path / "int8.onnx", min_similarity=0.9).path
    images = torch.rand(5, 3, *SIZE, generator=torch.Generator().manual_seed(1)).numpy()
    masks = []
    for file in (exported, path):
        model = onnx.load(file)
        (mask,) = [node.output[0] for node in model.graph.node if node.op_type == "Greater"]
        model.graph.output.append(onnx.ValueInfoProto(name=mask))
        session = onnxruntime.InferenceSession(model.SerializeToString())
        masks.append(session.run([mask], {"images": images})[0])
    np.testing.assert_array_equal(*masks)


def test_clipping_what_is_saturated_changes_nothing_but_the_range() -> None:
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    activations = ("HardSwish", "HardSigmoid", "Elu", "Relu", "Softplus")
    weights = numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    nodes, outputs = [], []
    for kind in activations:
        nodes += [
            helper.make_node("MatMul", ["x", "w"], [f"{kind}_in"], name=f"{kind}_layer"),
            helper.make_node(kind, [f"{kind}_in"], [kind], **({"alpha": 1 / 6} if kind == "HardSigmoid" else {})),
        ]
        outputs.append(helper.make_tensor_value_info(kind, onnx.TensorProto.FLOAT, [4, 4]))
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [4, 4])
    graph = helper.make_graph(nodes, "g", [x], outputs, [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    values = np.linspace(-9, 9, 16, dtype=np.float32).reshape(4, 4)
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": values})
    clip_saturated(model, leave=["HardSigmoid_layer"])
    found = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": values})
    for kind, before, after in zip(activations, expected, found, strict=True):
        np.testing.assert_allclose(after, before, atol=0.011 if kind == "Elu" else 0, err_msg=kind)
    clips = [node for node in model.graph.node if node.op_type == "Clip"]
    assert [node.input[0] for node in clips] == ["HardSwish_in", "Elu_in"]


@pytest.mark.parametrize("for_openvino", [False, True])
def test_shortcuts_are_not_rounded(for_openvino: bool) -> None:
    helper = onnx.helper
    nodes = [helper.make_node("Relu", ["x"], ["map"]), helper.make_node("Conv", ["y", "w"], ["layer"])]
    for name in ("map", "layer"):
        nodes += [
            helper.make_node("QuantizeLinear", [name, "s"], [f"{name}_q"]),
            helper.make_node("DequantizeLinear", [f"{name}_q", "s"], [f"{name}_dq"]),
        ]
    nodes += [
        helper.make_node("Conv", ["map_dq", "w"], ["next"]),
        helper.make_node("Add", ["map_dq", "layer_dq"], ["sum"]),
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", [], []))
    keep_residuals(model, for_openvino=for_openvino)
    assert list(model.graph.node[-2].input) == ["map_dq", "w"]
    assert list(model.graph.node[-1].input) == ["map", "layer" if for_openvino else "layer_dq"]


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_any_number_of_images(suffix: str, exported: Path, tmp_path: Path) -> None:
    path = quantize_int8(exported, tmp_path / f"int8{suffix}", min_similarity=0.9).path
    photos = sample_images(7, SIZE, seed=5)
    found = [pyreid.FeatureExtractor(path, batch_size=size)(photos) for size in (1, 3, 7)]
    assert np.isfinite(found[0]).all()
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=1e-5 * np.abs(found[0]).max())
