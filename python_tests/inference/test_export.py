"""Exported files: the embeddings of PyTorch for every model, batch and input, and no file where they differ."""

from __future__ import annotations

import copy
import ctypes
import gc
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import pyreid
from pyreid.errors import ExportError, MissingDependencyError
from pyreid.inference import (
    ExportedInfo,
    Tolerance,
    export,
    export_onnx,
    export_openvino,
    exported,
    open_exported,
)
from pyreid.inference.parity import measure_parity
from pyreid.inference.sample_images import sample_images
from python_tests.inference.networks import every_model, shorten_rmnet, small_overrides, small_size, warmed_up

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

SIZE = (32, 16)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


class Tiny(nn.Module):
    """Small enough that an export takes a second; the normalisation shows in every element."""

    default_input_size = SIZE
    pixel_mean = (0.4, 0.5, 0.6)
    pixel_std = (0.2, 0.25, 0.3)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.linear = nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.conv(images).relu().mean((2, 3)))


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    return sample_images(7, (40, 30), seed=5)


def agree(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("name", every_model())
def test_every_model(name: str, tmp_path: Path, photos: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    """In ONNX Runtime and in OpenVINO, from one export. More of the same blocks would only take longer."""
    shorten_rmnet(monkeypatch)
    overrides = small_overrides(name)
    model = warmed_up(name, num_classes=3, **overrides)
    size = small_size(name)
    report = export_onnx(model, tmp_path / "m.onnx", input_size=size)
    assert report.info.embedding_dim == model.embedding_dim
    assert overrides or report.info.model == name
    assert report.parity.difference < 5e-3  # of a spread that is small before training
    graph = onnx.load(report.path)
    onnx.checker.check_model(graph)
    assert {node.domain for node in graph.graph.node} <= {"", "ai.onnx"}, "plain operators only"
    assert report.size_bytes < 5 * sum(parameter.numel() for parameter in model.parameters()) + 100_000
    expected = pyreid.FeatureExtractor(model, size=size)(photos)
    assert np.abs(expected - expected[0]).max() > 1e-3 * np.abs(expected).max()
    for path in (report.path, export.onnx_to_openvino_file(report.path, tmp_path / "m.xml")):
        for batch_size in (1, 3, 7):
            agree(pyreid.FeatureExtractor(path, batch_size=batch_size)(photos), expected)


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    torch.manual_seed(4)
    return Tiny().eval()


@pytest.mark.parametrize("write", [export_onnx, export_openvino])
@pytest.mark.parametrize("preprocessing", [False, True])
@pytest.mark.parametrize("flip", ["none", "concat"])
def test_the_extractor_takes_the_file(
    write: Any, preprocessing: bool, flip: Any, tiny: Tiny, photos: list[np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / ("m.onnx" if write is export_onnx else "m.xml")
    report = write(tiny, path, preprocessing=preprocessing)
    assert report.size_bytes == sum(file.stat().st_size for file in tmp_path.iterdir())
    expected = pyreid.FeatureExtractor(tiny, flip=flip)(photos)
    agree(pyreid.FeatureExtractor(path, flip=flip, batch_size=3)(photos), expected)
    agree(pyreid.FeatureExtractor(str(path), flip=flip, batch_size=1)(photos), expected)


def test_the_graph_itself_normalises(tiny: Tiny, tmp_path: Path) -> None:
    import onnxruntime

    export_onnx(tiny, tmp_path / "m.onnx", preprocessing=True)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, *SIZE), dtype=np.uint8)
    mean, std = (np.reshape(values, (3, 1, 1)) for values in (Tiny.pixel_mean, Tiny.pixel_std))
    normal = torch.from_numpy((pixels / 255 - mean) / std).float()
    with torch.no_grad():
        expected = tiny(normal).numpy()
    for batch in (1, 3):
        agree(session.run(None, {"images": pixels[:batch]})[0], expected[:batch])
    model = open_exported(tmp_path / "m.onnx")
    agree(model(torch.from_numpy(pixels)).numpy(), expected)
    with pytest.raises(ValueError, match="images: got values other than whole numbers from 0 to 255"):
        model(normal)


def test_a_single_image_at_a_time(tiny: Tiny, photos: list[np.ndarray], tmp_path: Path) -> None:
    report = export_onnx(tiny, tmp_path / "m.onnx", dynamic_batch=False)
    (shape,) = [value.type.tensor_type.shape for value in onnx.load(report.path).graph.input]
    assert [dim.dim_value for dim in shape.dim] == [1, 3, *SIZE]
    agree(pyreid.FeatureExtractor(report.path)(photos), pyreid.FeatureExtractor(tiny)(photos))


def test_other_size_and_normalisation(tiny: Tiny, photos: list[np.ndarray], tmp_path: Path) -> None:
    options: dict[str, Any] = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7)}
    report = export_onnx(tiny, tmp_path / "m.onnx", input_size=(20, 24), **options)
    expected = pyreid.FeatureExtractor(tiny, size=(20, 24), **options)(photos)
    agree(pyreid.FeatureExtractor(report.path)(photos), expected)


def test_metadata(tiny: Tiny, tmp_path: Path) -> None:
    report = export_onnx(tiny, tmp_path / "m.onnx", name="mine", preprocessing=True)
    expected = ExportedInfo(
        model="mine",
        input_size=SIZE,
        pixel_mean=Tiny.pixel_mean,
        pixel_std=Tiny.pixel_std,
        embedding_dim=5,
        preprocessing=True,
        dynamic_batch=True,
        pyreid_version=pyreid.__version__,
    )
    assert report.info == expected == open_exported(report.path).info
    graph = onnx.load(report.path)
    held = {entry.key: entry.value for entry in graph.metadata_props}
    assert held["pyreid.model"] == '"mine"'
    assert held["pyreid.input_size"] == "[32, 16]"
    dimensions = [value.type.tensor_type.shape.dim for value in (*graph.graph.input, *graph.graph.output)]
    assert [dim[0].dim_param for dim in dimensions] == ["batch", "batch"]
    assert str(Path(pyreid.__file__).parent).encode() not in report.path.read_bytes(), "no paths of this machine"
    assert export_openvino(tiny, tmp_path / "m.xml", name="mine", preprocessing=True).info == expected
    assert open_exported(tmp_path / "m.xml").info == expected


@pytest.mark.parametrize("write", [export_onnx, export_openvino])
def test_wrong_normalisation_in_the_graph_fails(
    write: Any, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = export._Deployed.forward

    def twice(self: Any, images: Tensor) -> Tensor:
        return original(self, images.float() / 255)  # and by 255 once more

    monkeypatch.setattr(export._Deployed, "forward", twice)
    path = tmp_path / ("m.onnx" if write is export_onnx else "m.xml")
    with pytest.raises(ExportError, match=r"the embeddings of 8 images differ from the model's: lowest cosine"):
        write(tiny, path, preprocessing=True)
    assert not list(tmp_path.iterdir())


def test_wrong_normalisation_in_the_metadata_fails(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = ExportedInfo.to_metadata
    monkeypatch.setattr(ExportedInfo, "to_metadata", lambda self: {**original(self), "pixel_std": "[0.2, 0.25, 0.2]"})
    path = tmp_path / "m.onnx"
    path.write_text("as before")
    with pytest.raises(ExportError, match=r"m\.onnx: the embeddings of 8 images differ"):
        export_onnx(tiny, path)
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]
    assert path.read_text() == "as before"


def test_openvino_is_checked_by_itself(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = exported._open_openvino

    def other(path: Path) -> tuple[dict[str, str], exported.Run]:
        metadata, run = original(path)
        return metadata, lambda images: run(images)[:, ::-1].copy()

    monkeypatch.setattr(exported, "_open_openvino", other)
    with pytest.raises(ExportError, match=r"m\.xml: the embeddings of 8 images differ"):
        export_openvino(tiny, tmp_path / "m.xml")
    assert not list(tmp_path.iterdir())


def test_given_images_are_compared_beside_drawn_ones(tiny: Tiny, photos: list[np.ndarray], tmp_path: Path) -> None:
    assert export_onnx(tiny, tmp_path / "m.onnx", images=photos[:2]).parity.images == 2 + 8
    with pytest.raises(ExportError, match="expected at most 0"):
        export_onnx(tiny, tmp_path / "n.onnx", tolerance=Tolerance(cosine=-1, difference=0))
    assert not (tmp_path / "n.onnx").exists()


def test_the_model_is_left_as_it_was(tiny: Tiny, tmp_path: Path) -> None:
    model = Tiny().double().train()
    export_onnx(model, tmp_path / "m.onnx", fold=True)
    assert model.training
    assert model.linear.weight.dtype == torch.float64


def test_folded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photos: list[np.ndarray]) -> None:
    shorten_rmnet(monkeypatch)
    model = warmed_up("rmnet")
    report = export_openvino(model, tmp_path / "m.xml", input_size=SIZE, fold=True, preprocessing=True)
    agree(pyreid.FeatureExtractor(report.path)(photos), pyreid.FeatureExtractor(model, size=SIZE)(photos))


def test_pyreids_operators_become_plain(tmp_path: Path) -> None:
    from pyreid import ops

    class Pools(nn.Module):
        default_input_size = SIZE

        def __init__(self) -> None:
            super().__init__()
            self.filters = nn.Parameter(torch.randn(2, 3, 1, 3, 3))
            self.p = nn.Parameter(torch.tensor([2.0, 3.0, 4.0]))

        def forward(self, images: Tensor) -> Tensor:
            local, avg, largest = ops.spatial_gate(images, self.filters[0], self.filters[1], negative_slope=0.1)
            mixed = ops.masked_mix(local, images, local, avg.sigmoid())
            other, *pools = ops.gate_and_pool.gate_and_pool(mixed, images)
            parts = [avg, largest, *pools, ops.gem_pool(mixed, self.p), ops.gem_pool(other, 2.5, eps=1e-3)]
            return torch.cat(parts, dim=1)

    report = export_onnx(Pools(), tmp_path / "m.onnx")
    assert report.info.embedding_dim == 18
    assert report.parity.difference < 1e-5


class Unfit(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) if images.sum() > 0 else images.amax((2, 3))


def test_what_cannot_be_translated_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="model: Unfit cannot be translated to ONNX"):
        export_onnx(Unfit(), tmp_path / "m.onnx", input_size=SIZE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("write", "path", "options", "message"),
    [
        (export_onnx, "m.pt", {}, r"path: expected a file that ends in \.onnx, got .*m\.pt"),
        (export_openvino, "m.onnx", {}, r"path: expected a file that ends in \.xml"),
        (export_onnx, "m.onnx", {"opset": 9}, r"opset: got 9, expected 18 to \d+, the newest of onnx"),
        (export_openvino, "m.xml", {"opset": 99}, r"opset: got 99, expected 18 to \d+, the newest of onnx"),
        (export_onnx, "m.onnx", {"input_size": (0, 3)}, "size: expected a positive"),
        (export_onnx, "m.onnx", {"std": (0, 1, 1)}, "std: expected positive"),
    ],
)
def test_wrong_options(
    write: Any, path: str, options: dict[str, Any], message: str, tiny: Tiny, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        write(tiny, tmp_path / path, **options)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "openvino"])
def test_without_the_extra(package: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=rf"{package} cannot be imported.*pyreid\[export\]"):
        export_openvino(tiny, tmp_path / "m.xml")


def test_wrong_files(tiny: Tiny, tmp_path: Path, photos: list[np.ndarray]) -> None:
    with pytest.raises(FileNotFoundError, match=r"model: no such file: .*gone\.onnx"):
        pyreid.FeatureExtractor(tmp_path / "gone.onnx")
    with pytest.raises(FileNotFoundError, match=r"model: .*m\.pt2: no such folder or file"):
        pyreid.FeatureExtractor(tmp_path / "m.pt2")
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(ExportError, match=r"text\.onnx is damaged or no ONNX file"):
        open_exported(tmp_path / "text.onnx")
    export_openvino(tiny, tmp_path / "m.xml")
    (tmp_path / "m.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"m\.bin"):
        open_exported(tmp_path / "m.xml")
    path = export_onnx(tiny, tmp_path / "m.onnx").path
    for options, message in (
        ({"size": (64, 32)}, "size: got"),
        ({"mean": (0, 0, 0)}, "mean: got"),
        ({"weights": "w.pt"}, "weights: got w.pt, but an exported file has its own"),
        ({"device": "cuda"}, "device: got cuda, but (an exported file runs on the cpu|there are 0 CUDA devices)"),
    ):
        with pytest.raises(ValueError, match=message):
            pyreid.FeatureExtractor(path, **options)
    with pytest.raises(ValueError, match=r"images: got shape \(1, 3, 8, 8\), expected \(N, 3, 32, 16\)"):
        open_exported(path)(torch.zeros(1, 3, 8, 8))
    graph = onnx.load(path)
    del graph.metadata_props[:]
    onnx.save(graph, path)
    with pytest.raises(ExportError, match=r"m\.onnx has no metadata of pyreid"):
        pyreid.FeatureExtractor(path)


def test_no_images_give_no_embeddings(tiny: Tiny, tmp_path: Path) -> None:
    model = open_exported(export_onnx(tiny, tmp_path / "m.onnx").path)
    assert model(torch.zeros(0, 3, *SIZE)).shape == (0, 5)


def test_files_of_other_weights_are_told_apart(tiny: Tiny, tmp_path: Path) -> None:
    first = open_exported(export_onnx(tiny, tmp_path / "m.onnx").path)
    second = open_exported(export_onnx(Tiny(), tmp_path / "n.onnx").path)
    assert repr(first.config) != repr(second.config), "extraction to a file knows its model by this"


def test_openvino_reports_nothing_over_the_network() -> None:
    import subprocess

    code = "import sys, pyreid.inference.exported as e; e.import_openvino(); print(sorted(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'openvino'" in run.stdout
    assert "openvino_telemetry" not in run.stdout


def test_measure_parity() -> None:
    expected = np.array([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0]])
    found = np.array([[3.0, 4.4], [0.0, 0.0], [0.0, 1.0]])
    parity = measure_parity(expected, found)
    assert parity.images == 3
    assert parity.cosine == 0
    assert parity.mean_cosine == pytest.approx((1 + (9 + 17.6) / (5 * np.hypot(3, 4.4))) / 3)
    assert (parity.spread, parity.largest) == (pytest.approx(np.std([4, 0, 0])), 4)
    assert parity.difference == pytest.approx(1 / np.std([4, 0, 0]))
    assert measure_parity(expected[:1], found[:1]).difference == pytest.approx(0.1)
    assert np.isnan(measure_parity(expected, np.full((3, 2), np.nan)).difference)
    with pytest.raises(ValueError, match=r"found: expected embeddings of shape \(3, 2\), got \(2, 2\)"):
        measure_parity(expected, found[:2])
    with pytest.raises(ExportError, match="nan"):
        export.check_parity(measure_parity(expected, np.full((3, 2), np.nan)), Tolerance(), "file")
    with pytest.raises(ExportError, match=r"expected at least 1\.5\), largest difference 0 of the spread [^(]*$"):
        export.check_parity(measure_parity(expected, expected), Tolerance(cosine=1.5, difference=np.inf), "file")


def test_embeddings_that_are_all_the_same_say_nothing() -> None:
    same = np.ones((3, 4), dtype=np.float32)
    with pytest.raises(ExportError, match="the model gives 3 images the same embedding"):
        export.check_parity(measure_parity(same, same), Tolerance(), "file")


def test_swapped_channels_fail_on_images_that_cannot_show_it(
    tmp_path: Path, photos: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    grey = [np.repeat(photo[..., :1], 3, axis=2) for photo in photos[:3]]
    real = export._Deployed.forward
    monkeypatch.setattr(export._Deployed, "forward", lambda self, images: real(self, images.flip(1)))
    torch.manual_seed(0)
    model = pyreid.create_model("cw_mobilenet_v3_small").eval()  # untrained: its embeddings resemble each other
    with pytest.raises(ExportError, match="of the spread over the images"):
        export_onnx(model, tmp_path / "m.onnx", input_size=(64, 64), images=grey, preprocessing=True)


@pytest.mark.slow
def test_the_whole_rmnet(tmp_path: Path, photos: list[np.ndarray]) -> None:
    model = warmed_up("rmnet")
    report = export_onnx(model, tmp_path / "m.onnx")
    assert sum(node.op_type == "Conv" for node in onnx.load(report.path).graph.node) == 114
    agree(pyreid.FeatureExtractor(report.path)(photos), pyreid.FeatureExtractor(model)(photos))


@pytest.mark.parametrize("opset", [18, 21, 25])
def test_the_opset_is_the_one_that_was_asked_for(opset: int, tiny: Tiny, tmp_path: Path) -> None:
    report = export_onnx(tiny, tmp_path / "m.onnx", opset=opset)
    assert [(entry.domain, entry.version) for entry in onnx.load(report.path).opset_import] == [("", opset)]
    assert report.opset == opset


def test_an_opset_that_cannot_be_written_is_an_error(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx.defs, "onnx_opset_version", lambda: 99)  # torch would go on with 18
    with pytest.raises(ExportError, match="opset: Tiny cannot be written in opset 90, only in 18"):
        export_onnx(tiny, tmp_path / "m.onnx", opset=90)
    assert not list(tmp_path.iterdir())


def test_pixels_for_a_file_that_takes_normalised_images(tiny: Tiny, tmp_path: Path) -> None:
    model = open_exported(export_onnx(tiny, tmp_path / "m.onnx").path)
    message = r"images: got uint8, but this file has no preprocessing; expected floats, .* mean \(0\.4, 0\.5, 0\.6\)"
    with pytest.raises(TypeError, match=message):
        model(torch.zeros(1, 3, *SIZE, dtype=torch.uint8))
    with pytest.raises(TypeError, match="images: expected a tensor, got ndarray"):
        model(np.zeros((1, 3, *SIZE), np.float32))


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_an_exported_model_goes_through_a_pickle(suffix: str, tiny: Tiny, tmp_path: Path) -> None:
    path = tmp_path / f"m{suffix}"
    (export_onnx if suffix == ".onnx" else export_openvino)(tiny, path)
    model = open_exported(path)
    images = torch.randn(3, 3, *SIZE)
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(again(images), model(images))
    assert (again.info, again.config) == (model.info, model.config)
    assert torch.equal(copy.deepcopy(model)(images), model(images))
    data = pickle.dumps(model)
    assert len(data) < 1000, "the path, not the file"
    (export_onnx if suffix == ".onnx" else export_openvino)(Tiny(), path)
    with pytest.raises(ExportError, match=rf"m\{suffix} has changed since it was opened"):
        pickle.loads(data)


class Embedded(torch.utils.data.Dataset[Tensor]):
    """A data set that embeds its images, as a pipeline with a model in its transform does."""

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        self.model = model
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.model(self.images[index : index + 1])[0]


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_workers_of_a_loader_embed(suffix: str, tiny: Tiny, tmp_path: Path) -> None:
    path = tmp_path / f"m{suffix}"
    (export_onnx if suffix == ".onnx" else export_openvino)(tiny, path)
    model = open_exported(path)
    images = torch.randn(4, 3, *SIZE)
    expected = model(images)
    loader = torch.utils.data.DataLoader(
        Embedded(model, images), batch_size=2, num_workers=1, multiprocessing_context="spawn", timeout=60
    )
    torch.testing.assert_close(torch.cat(list(loader)), expected)


class SignalStack(ctypes.Structure):
    """``stack_t``."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))

    @classmethod
    def current(cls) -> int | None:
        """The address of this thread's stack for signals."""
        stack = cls()
        assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
        return stack.address


def test_models_that_go_leave_the_stack_for_signals(tiny: Tiny, tmp_path: Path) -> None:
    """Two Cores of OpenVINO, of which the first goes first, leave a stack that is not there: any signal then kills."""
    export_openvino(tiny, tmp_path / "m.xml")
    before = SignalStack.current()
    first, second = (open_exported(tmp_path / "m.xml") for _ in range(2))
    during = SignalStack.current()
    del first
    gc.collect()
    del second
    gc.collect()
    assert SignalStack.current() in (before, during)


@pytest.mark.parametrize("write", [export_onnx, export_openvino])
def test_nothing_lies_beside_the_path_while_the_file_is_checked(
    write: Any, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Path] = []
    original = export.compare_file

    def watch(*arguments: Any, **options: Any) -> Any:
        seen.extend(tmp_path.iterdir())  # what a process that is killed here would leave
        return original(*arguments, **options)

    monkeypatch.setattr(export, "compare_file", watch)
    path = tmp_path / ("m.onnx" if write is export_onnx else "m.xml")
    write(tiny, path)
    assert not seen
    first = {file.name for file in tmp_path.iterdir()}
    write(tiny, path)  # over the one that is there
    assert {file.name for file in tmp_path.iterdir()} == first


def test_odd_sizes_and_grey_photographs(tmp_path: Path, tiny: Tiny, photos: list[np.ndarray]) -> None:
    report = export_onnx(tiny, tmp_path / "m.onnx", input_size=(33, 17), preprocessing=True)
    grey = [Image.fromarray(photo).convert("L") for photo in photos[:2]]
    agree(pyreid.FeatureExtractor(report.path)(grey), pyreid.FeatureExtractor(tiny, size=(33, 17))(grey))
    for one in (np.zeros((33, 17), np.uint8), np.zeros((33, 17, 1), np.uint8), np.zeros((33, 17, 4), np.uint8)):
        with pytest.raises(ValueError, match=r"images: item 0: expected an array \(H, W, 3\)"):
            pyreid.FeatureExtractor(report.path)([one])
    with pytest.raises(ValueError, match="images: expected at least one, got none"):
        pyreid.FeatureExtractor(report.path)([])
