"""Exported models in int8: a quarter of the size, and faster where the processor multiplies bytes."""

from __future__ import annotations

import dataclasses
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pyreid.data.transforms import eval_transform
from pyreid.errors import DatasetError, ExportError, require
from pyreid.inference.export import compare_file, files_size, onnx_to_openvino, put_in_place, set_metadata
from pyreid.inference.exported import EXPORTED_SUFFIXES, INPUT, ExportedModel, import_openvino, open_exported
from pyreid.inference.extractor import FeatureExtractor
from pyreid.inference.images import ImageItems, as_items
from pyreid.inference.parity import Parity, Tolerance
from pyreid.inference.sample_images import sample_images

DRAWN_CALIBRATION, DRAWN_TEST = 64, 32
_TEST_EVERY = 5  # of the given images, where no others are given to test with
# Layers with weights. Activations, pools, attention gates and the final normalisation stay in float32.
_QUANTISED_OPERATORS = ["Conv", "Gemm", "MatMul"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeReport:
    """What was written.

    Attributes:
        path: the file; OpenVINO's weights lie beside it, in a ``.bin`` file.
        calibration_images: number of images that set the ranges of the activations.
        parity: agreement of the int8 file's embeddings with the float32 file's, on images that set no range.
        size_bytes: on disk, of all files together.
        float_size_bytes: of the float32 file.
    """

    path: Path
    calibration_images: int
    parity: Parity
    size_bytes: int
    float_size_bytes: int


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
    and linear layers are quantised, the rest stays in float32; for OpenVINO also layers behind a global maximum.

    Args:
        source: a float32 ``.onnx`` file of :func:`~pyreid.inference.export_onnx`.
        path: the file to write, ``.onnx`` or OpenVINO's ``.xml``; replaced if it is there.
        calibration_images: as for a :class:`~pyreid.FeatureExtractor`; photographs of the task are best, some hundred.
            By default 64 drawn ones.
        test_images: to compare with; by default every fifth of the calibration images, which then sets no range, or 32
            drawn ones of other identities.
        min_similarity: least cosine similarity that every test image has to reach.

    Returns:
        What was written, with the similarities and sizes.

    Raises:
        ValueError: an argument is out of range, or fewer than two calibration images without test images.
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
    if path.suffix == ".xml":
        import_openvino()
    model = open_exported(source)
    if model.info.precision != "float32":
        raise ExportError(f"source: {source} is {model.info.precision} already, expected float32")
    calibration, test = _split(calibration_images, test_images, model)
    expected = FeatureExtractor(source)(test)
    float_size_bytes = files_size(source)  # before it is replaced, where the path is its own
    # Whatever the difference of single elements: it is rounding, and what counts is the angle.
    tolerance = Tolerance(cosine=min_similarity, difference=float("inf"))
    with tempfile.TemporaryDirectory(prefix="pyreid-") as folder:
        written = Path(folder) / "int8.onnx"
        _quantize(source, written, model, calibration, for_openvino=path.suffix == ".xml")
        parity = compare_file(written, test, expected, tolerance, what=f"{path} in int8")
        if path.suffix == ".onnx":
            put_in_place(written, path)
        else:
            parity = onnx_to_openvino(written, path, images=test, expected=expected, tolerance=tolerance)
    return QuantizeReport(
        path=path,
        calibration_images=len(calibration),
        parity=parity,
        size_bytes=files_size(path),
        float_size_bytes=float_size_bytes,
    )


def _split(calibration: Any, test: Any, model: ExportedModel) -> tuple[list[Any], list[Any]]:
    """Images to calibrate with and images to test with; drawn ones are always among the latter."""
    size = model.info.input_size
    drawn: list[Any] = list(sample_images(DRAWN_TEST, size, seed=1))
    if calibration is None:
        return list(sample_images(DRAWN_CALIBRATION, size)), [*([] if test is None else as_items(test)), *drawn]
    items = as_items(calibration)
    if test is not None:
        if not items:
            raise ValueError("calibration_images: expected at least one, got none")
        return items, [*as_items(test), *drawn]
    if len(items) < 2:
        raise ValueError(f"calibration_images: expected at least 2, one of them to test with, got {len(items)}")
    return [item for index, item in enumerate(items) if index % _TEST_EVERY], [*items[::_TEST_EVERY], *drawn]


def _quantize(
    source: Path, path: Path, model: ExportedModel, calibration: Sequence[Any], *, for_openvino: bool
) -> None:
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

    with _quiet():
        try:
            quantize_static(
                str(source),
                str(path),
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=_QUANTISED_OPERATORS,
                nodes_to_exclude=_fed_by_a_maximum(onnx.load(source)) if for_openvino else [],
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        except (DatasetError, TypeError):  # an image that cannot be read, or of another kind
            raise
        except Exception as error:  # onnxruntime's errors have no common base class
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ExportError(f"source: {source} cannot be quantised: {reason}") from error
    graph = onnx.load(path)
    set_metadata(graph, dataclasses.replace(model.info, precision="int8"))
    onnx.save(graph, path)


def _fed_by_a_maximum(model: Any) -> list[str]:
    """Names of the nodes that take a global maximum, which OpenVINO 2026.4 computes wrongly in int8."""
    maxima = {node.output[0] for node in model.graph.node if node.op_type == "ReduceMax"}
    return [node.name for node in model.graph.node if node.input and node.input[0] in maxima]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without onnxruntime's advice about preparations, which the export has made; it goes to the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
