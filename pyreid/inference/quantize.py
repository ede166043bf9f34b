"""Exported models in int8: a quarter of the size, and faster where the processor multiplies bytes."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from pyreid.data.transforms import eval_transform
from pyreid.errors import DatasetError, ExportError, require
from pyreid.inference.export import (
    CHECKED_BATCH,
    files_size,
    onnx_to_openvino_file,
    put_exported_in_place,
    set_metadata,
)
from pyreid.inference.exported import EXPORTED_SUFFIXES, INPUT, ExportedModel, import_openvino, open_exported
from pyreid.inference.extractor import FeatureExtractor
from pyreid.inference.images import ImageItems, as_items
from pyreid.inference.parity import Parity, Tolerance, check_parity, measure_parity, round_down
from pyreid.inference.quantize_graph import LAYERS, clip_saturated, float_nodes, keep_residuals
from pyreid.inference.sample_images import sample_images

DRAWN_CALIBRATION, DRAWN_TEST = 64, 32
_TEST_EVERY = 5  # of the given images, where no others are given to test with

Source = Literal["given", "drawn"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ComparedImages:
    """Agreement of the int8 file's embeddings with the float32 file's on some images.

    Attributes:
        source: ``"given"``, or ``"drawn"`` by :func:`~pyreid.inference.sample_images.sample_images`.
        parity: their number, and lowest and mean cosine similarity.
    """

    source: Source
    parity: Parity


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeReport:
    """What was written.

    Attributes:
        path: the file; OpenVINO's weights lie beside it, in a ``.bin`` file.
        calibration: on the images that set the ranges of the activations.
        test: on images that set no range.
        float_layers: number of layers with weights that stay in float32, of ``layers``.
        layers: number of convolutions and linear layers.
        size_bytes: on disk, of all files together.
        float_size_bytes: of the float32 file.
    """

    path: Path
    calibration: ComparedImages
    test: ComparedImages
    float_layers: int
    layers: int
    size_bytes: int
    float_size_bytes: int

    @property
    def similarity(self) -> float:
        """The lowest cosine similarity of all images."""
        return min(self.calibration.parity.cosine, self.test.parity.cosine)


def quantize_int8(
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    calibration_images: Any = None,
    test_images: Any = None,
    min_similarity: float = 0.98,
) -> QuantizeReport:
    """Quantise an exported ONNX file to int8 after training, and compare its embeddings with those of float32.

    Static quantisation by ONNX Runtime with QuantizeLinear and DequantizeLinear pairs: int8 weights with a scale per
    output channel, uint8 activations whose ranges are the least and largest values seen in calibration. Convolutions
    and linear layers are quantised, the rest stays in float32, and so do layers

    - of gates and masks that end in a sigmoid, a comparison or a hyperbolic tangent: rounding turns a binary mask over;
    - behind a global maximum, for OpenVINO alone.

    ONNX Runtime rounds between a layer and its activation; there the range ends where the activation is constant. For
    OpenVINO only the inputs of layers are rounded.

    Args:
        source: a float32 ``.onnx`` file of :func:`~pyreid.inference.export_onnx`.
        path: the file to write, ``.onnx`` or OpenVINO's ``.xml``; replaced if it is there.
        calibration_images: as for a :class:`~pyreid.FeatureExtractor`; photographs of the task are best, some hundred.
            By default 64 drawn ones.
        test_images: to compare with as well; by default every fifth of the calibration images, which then sets no
            range, or 32 drawn ones of other identities where none are given at all.
        min_similarity: least cosine similarity that every image has to reach, of calibration and test.

    Returns:
        What was written, with the similarities and sizes.

    Raises:
        ValueError: an argument is out of range, no test images, or fewer than two calibration images without test
            images.
        pyreid.errors.ExportError: an image falls below ``min_similarity``, the file cannot be read or quantised, or it
            is int8 already. Nothing is written then.
        pyreid.errors.MissingDependencyError: a package of the extra ``export`` is missing.
    """
    source, path = Path(source), Path(path)
    if not -1 <= min_similarity <= 1:
        raise ValueError(f"min_similarity: got {min_similarity}, expected a cosine, from -1 to 1")
    for option, value, suffixes in (("source", source, (".onnx",)), ("path", path, EXPORTED_SUFFIXES)):
        if value.suffix not in suffixes:
            raise ValueError(f"{option}: expected a file that ends in {' or '.join(suffixes)}, got {value}")
    if path.is_dir():
        raise IsADirectoryError(f"path: expected a file, got the folder {path}")
    for package in ("onnx", "onnxruntime"):
        require(package, extra="export")
    for_openvino = path.suffix == ".xml"
    if for_openvino:
        import_openvino()
    model = open_exported(source)
    if model.info.precision != "float32":
        raise ExportError(f"source: {source} is {model.info.precision} already, expected float32")
    calibration, test = _split(calibration_images, test_images, model)
    images = [*calibration, *test]
    expected = FeatureExtractor(source)(images)
    float_size_bytes = files_size(source)  # before it is replaced, where the path is its own
    with tempfile.TemporaryDirectory(prefix="pyreid-") as folder:
        written = Path(folder) / "int8.onnx"
        layers, float_layers = _quantize(source, written, model, calibration, for_openvino=for_openvino)
        if for_openvino:
            written = onnx_to_openvino_file(written, Path(folder) / "int8.xml")
        found = FeatureExtractor(written, batch_size=CHECKED_BATCH)(images)
        # All together, as few images may all have nearly the same embedding; and whatever the difference of single
        # elements: it is rounding, and what counts is the angle.
        check_parity(measure_parity(expected, found), Tolerance(cosine=-1, difference=math.inf), f"{path} in int8")
        count = len(calibration)
        compared = (
            ComparedImages(
                source="drawn" if calibration_images is None else "given",
                parity=measure_parity(expected[:count], found[:count]),
            ),
            ComparedImages(
                source="drawn" if calibration_images is None and test_images is None else "given",
                parity=measure_parity(expected[count:], found[count:]),
            ),
        )
        if min(images.parity.cosine for images in compared) < min_similarity:
            raise ExportError(
                f"{path} in int8: cosine similarity to float32: {describe(*compared)}; expected at least "
                f"{min_similarity} on every image"
            )
        put_exported_in_place(written, path)
    return QuantizeReport(
        path=path,
        calibration=compared[0],
        test=compared[1],
        float_layers=float_layers,
        layers=layers,
        size_bytes=files_size(path),
        float_size_bytes=float_size_bytes,
    )


def describe(calibration: ComparedImages, test: ComparedImages) -> str:
    """The similarities in words, rounded down, and on which images."""
    return ", ".join(
        f"lowest {round_down(images.parity.cosine, 4)} and mean {round_down(images.parity.mean_cosine, 4)} on "
        f"{images.parity.images} {images.source} images that {which}"
        for images, which in ((calibration, "calibrated it"), (test, "did not"))
    )


def _split(calibration: Any, test: Any, model: ExportedModel) -> tuple[list[Any], list[Any]]:
    """Images to calibrate with and images to test with; drawn ones only where none are given."""
    size = model.info.input_size
    tests = None if test is None else as_items(test)
    if tests is not None and not tests:
        raise ValueError("test_images: expected at least one, got none")
    if calibration is None:
        drawn: list[Any] = list(sample_images(DRAWN_CALIBRATION, size))
        return drawn, list(sample_images(DRAWN_TEST, size, seed=1)) if tests is None else tests
    items = as_items(calibration)
    if tests is not None:
        if not items:
            raise ValueError("calibration_images: expected at least one, got none")
        return items, tests
    if len(items) < 2:
        raise ValueError(f"calibration_images: expected at least 2, one of them to test with, got {len(items)}")
    return [item for index, item in enumerate(items) if index % _TEST_EVERY], items[::_TEST_EVERY]


def _quantize(
    source: Path, path: Path, model: ExportedModel, calibration: Sequence[Any], *, for_openvino: bool
) -> tuple[int, int]:
    """Write the int8 graph, still ONNX; the number of its layers, and of those that stay in float32."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    look = model.default_input_size, model.pixel_mean, model.pixel_std
    items = ImageItems(calibration, eval_transform(look[0], mean=look[1], std=look[2]))

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = self._read()

        def _read(self) -> Iterator[dict[str, NDArray[Any]]]:
            for index in range(len(items)):
                yield {INPUT: model.prepare(items[index][None])}

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            return next(self.batches, None)

    graph = onnx.load(source)
    excluded = float_nodes(graph, for_openvino=for_openvino)
    if not for_openvino:
        clip_saturated(graph, leave=excluded)
    layers = [node.name for node in graph.graph.node if node.op_type in LAYERS]
    with _quiet():
        try:
            quantize_static(
                graph,
                str(path),
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=[*LAYERS] if for_openvino else [*LAYERS, "Relu", "Clip"],
                nodes_to_exclude=excluded,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                # OpenVINO's layers give float32 and go through their activation before anything is rounded.
                extra_options={"OpTypesToExcludeOutputQuantization": [*LAYERS]} if for_openvino else {},
            )
        except (DatasetError, TypeError):  # an image that cannot be read, or of another kind
            raise
        except Exception as error:  # onnxruntime's errors have no common base class
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ExportError(f"source: {source} cannot be quantised: {reason}") from error
    graph = onnx.load(path)
    keep_residuals(graph, for_openvino=for_openvino)
    set_metadata(graph, dataclasses.replace(model.info, precision="int8"))
    onnx.save(graph, path)
    return len(layers), len(set(layers) & set(excluded))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without onnxruntime's advice about preparations, which the export has made; it goes to the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
