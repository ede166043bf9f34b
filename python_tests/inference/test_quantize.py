"""int8 files: near float32 on images that set no range, smaller, and refused where they are not near."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import pyreid
from pyreid.errors import DatasetError, ExportError
from pyreid.inference import export_onnx, open_exported, quantize_int8
from pyreid.inference.parity import round_down
from pyreid.inference.sample_images import sample_images
from python_tests.inference.networks import shorten_rmnet, warmed_up

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

SIZE = (64, 32)
Exported = tuple[nn.Module, Path]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A short RMNet, and its float32 file that takes uint8 images."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        shorten_rmnet(patch)
        model = warmed_up("rmnet")
        path = tmp_path_factory.mktemp("quantize") / "float.onnx"
        export_onnx(model, path, input_size=SIZE, preprocessing=True)
    return model, path


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    return sample_images(10, SIZE, seed=7)


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_int8_is_near_float32(suffix: str, exported: Exported, photos: list[np.ndarray], tmp_path: Path) -> None:
    model, source = exported
    report = quantize_int8(source, tmp_path / f"int8{suffix}")
    assert [(images.source, images.parity.images) for images in (report.calibration, report.test)] == [
        ("drawn", 64),
        ("drawn", 32),
    ]
    for images in (report.calibration, report.test):
        assert 0.98 <= report.similarity <= images.parity.cosine < images.parity.mean_cosine < 1
    assert report.size_bytes == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert report.float_size_bytes == source.stat().st_size
    if suffix == ".onnx":
        assert report.size_bytes < report.float_size_bytes / 2
    assert open_exported(report.path).info.precision == "int8"
    found = pyreid.FeatureExtractor(report.path)(photos)
    expected = pyreid.FeatureExtractor(model, size=SIZE)(photos)
    similarity = (found * expected).sum(axis=1)  # of unit vectors
    assert similarity.min() > 0.98
    assert np.abs(found - expected).max() > 1e-5, "int8 rounds"


def test_weights_are_int8_with_a_scale_per_channel(exported: Exported, tmp_path: Path) -> None:
    path = quantize_int8(exported[1], tmp_path / "int8.onnx").path
    graph = onnx.load(path).graph
    values = {tensor.name: tensor for tensor in graph.initializer}
    made_by = {node.output[0]: node for node in graph.node}
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    assert len(layers) == 11
    for layer in layers:
        source = made_by[layer.input[1]]
        assert source.op_type == "DequantizeLinear"
        assert values[source.input[0]].data_type == onnx.TensorProto.INT8
        assert list(values[source.input[1]].dims) == [values[source.input[0]].dims[0]]
        assert made_by[layer.input[0]].op_type == "DequantizeLinear"


def test_given_images_calibrate_and_every_fifth_tests_and_none_is_drawn(
    exported: Exported, photos: list[np.ndarray], tmp_path: Path
) -> None:
    def compared(**options: Any) -> tuple[list[tuple[str, int]], Any]:
        report = quantize_int8(exported[1], tmp_path / "a.onnx", min_similarity=0.9, **options)
        return [(images.source, images.parity.images) for images in (report.calibration, report.test)], report

    assert compared(calibration_images=photos)[0] == [("given", 8), ("given", 2)]
    found, report = compared(calibration_images=photos[:3], test_images=photos[3:])
    assert found == [("given", 3), ("given", 7)]
    float32, int8 = (pyreid.FeatureExtractor(path)(photos) for path in (exported[1], report.path))
    similarity = (float32 * int8).sum(axis=1)  # of unit vectors
    assert report.calibration.parity.cosine == pytest.approx(similarity[:3].min(), abs=1e-6)
    assert report.test.parity.mean_cosine == pytest.approx(similarity[3:].mean(), abs=1e-6)
    # ranges of another kind of image
    dark: dict[str, Any] = {"calibration_images": [np.zeros_like(photo) for photo in photos], "test_images": photos}
    message = (
        r"c\.onnx in int8: cosine similarity to float32: lowest \S+ and mean \S+ on 10 given images that calibrated "
        r"it, lowest 0\.\d{4} and mean 0\.\d{4} on 10 given images that did not; expected at least 0\.99 on every image"
    )
    with pytest.raises(ExportError, match=message):
        quantize_int8(exported[1], tmp_path / "c.onnx", min_similarity=0.99, **dark)


def test_a_bad_calibration_image_counts(exported: Exported, photos: list[np.ndarray], tmp_path: Path) -> None:
    float32 = pyreid.FeatureExtractor(exported[1])(photos)
    options: dict[str, Any] = {"calibration_images": photos, "test_images": photos, "min_similarity": 0.5}
    path = quantize_int8(exported[1], tmp_path / "a.onnx", **options).path
    similarity = (float32 * pyreid.FeatureExtractor(path)(photos)).sum(axis=1)
    options |= {"test_images": [photos[int(similarity.argmax())]], "min_similarity": float(np.median(similarity))}
    with pytest.raises(ExportError, match=r"on 10 given images that calibrated it, .* on 1 given images that did not"):
        quantize_int8(exported[1], tmp_path / "b.onnx", **options)


def test_similarities_are_rounded_down() -> None:
    assert [round_down(value, 4) for value in (0.99996, 1.0, 1 - 1e-15, 0.98, -0.00001)] == [
        "0.9999", "1.0000", "1.0000", "0.9800", "-0.0001",
    ]  # fmt: skip
    assert round_down(0.9999999, 6) == "0.999999"
    assert round_down(float("nan"), 4) == "nan"


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_below_the_bound_nothing_is_written(
    suffix: str, exported: Exported, photos: list[np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / f"int8{suffix}"
    with pytest.raises(ExportError, match=r"lowest 0\.9\d+ .*; expected at least 1\.0 on every image"):
        quantize_int8(exported[1], path, calibration_images=photos, min_similarity=1.0)
    assert not list(tmp_path.iterdir())


def test_it_is_quiet(exported: Exported, photos: list[np.ndarray], tmp_path: Path, capfd: Any) -> None:
    quantize_int8(exported[1], tmp_path / "a.onnx", calibration_images=photos, min_similarity=0.5)
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == logging.NOTSET


def test_a_file_of_one_image_a_time_in_place_of_itself(
    exported: Exported, photos: list[np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / "a.onnx"
    before = export_onnx(exported[0], path, input_size=SIZE, dynamic_batch=False).size_bytes
    report = quantize_int8(path, path, calibration_images=photos[:2], test_images=photos, min_similarity=0.5)
    assert (report.calibration.parity.images, report.test.parity.images) == (2, 10)
    assert (report.float_size_bytes, report.size_bytes) == (before, path.stat().st_size)
    info = open_exported(path).info
    assert (info.precision, info.dynamic_batch) == ("int8", False)
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(IsADirectoryError, match=r"path: expected a file, got the folder .*folder\.onnx"):
        quantize_int8(exported[1], tmp_path / "folder.onnx")


def test_wrong_arguments(exported: Exported, photos: list[np.ndarray], tmp_path: Path) -> None:
    source = exported[1]
    for options, message in (
        ({"min_similarity": 1.5}, "min_similarity: got 1.5, expected a cosine"),
        ({"calibration_images": photos[:1]}, "calibration_images: expected at least 2"),
        ({"calibration_images": [], "test_images": photos}, "calibration_images: expected at least one"),
        ({"calibration_images": photos, "test_images": []}, "test_images: expected at least one"),
    ):
        with pytest.raises(ValueError, match=message):
            quantize_int8(source, tmp_path / "a.onnx", **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"path: expected a file that ends in \.onnx or \.xml"):
        quantize_int8(source, tmp_path / "a.tflite")
    with pytest.raises(ValueError, match=r"source: expected a file that ends in \.onnx"):
        quantize_int8(tmp_path / "a.xml", tmp_path / "a.onnx")
    with pytest.raises(DatasetError, match=r"gone\.jpg"):
        quantize_int8(source, tmp_path / "a.onnx", calibration_images=[tmp_path / "gone.jpg"], test_images=photos)
    done = quantize_int8(source, tmp_path / "a.onnx", calibration_images=photos).path
    with pytest.raises(ExportError, match=r"a\.onnx is int8 already"):
        quantize_int8(done, tmp_path / "b.onnx")
