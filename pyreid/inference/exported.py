"""Exported models: what a file says of itself, and running it on the CPU as if it were the PyTorch model."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import json
import os
import sys
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pyreid.errors import ExportError, require

Precision = Literal["float32", "int8"]
Run = Callable[[NDArray[Any]], NDArray[np.float32]]

EXPORTED_SUFFIXES = (".onnx", ".xml")
INPUT, OUTPUT = "images", "embedding"
PREFIX = "pyreid"
# What an image that is not normalised looks like to the extractor: its pixels 0..255.
_PIXELS_MEAN, _PIXELS_STD = (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ExportedInfo:
    """What an exported file says of itself, in its metadata.

    Attributes:
        model: the model's name.
        input_size: (height, width) of the images.
        pixel_mean: of RGB in 0..1, subtracted: inside the file with ``preprocessing``, else before it.
        pixel_std: of RGB in 0..1, divided by; likewise.
        embedding_dim: D, the width of the embedding.
        preprocessing: the input is uint8 RGB 0..255 instead of normalised float32.
        dynamic_batch: the input takes any number of images instead of one.
        precision: ``"int8"`` for a quantised file.
        pyreid_version: of the pyreid that wrote it.
    """

    model: str
    input_size: tuple[int, int]
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    embedding_dim: int
    preprocessing: bool
    dynamic_batch: bool
    precision: Precision = "float32"
    pyreid_version: str

    def to_metadata(self) -> dict[str, str]:
        """The fields as JSON values by name, for a format that holds texts."""
        return {name: json.dumps(value) for name, value in dataclasses.asdict(self).items()}


def parse_metadata(metadata: Mapping[str, str], path: Path) -> ExportedInfo:
    """The opposite of :meth:`ExportedInfo.to_metadata`.

    Raises:
        pyreid.errors.ExportError: a field is missing or of another kind.
    """
    try:
        values = {field.name: json.loads(metadata[field.name]) for field in dataclasses.fields(ExportedInfo)}
        for name, length in (("input_size", 2), ("pixel_mean", 3), ("pixel_std", 3)):
            values[name] = tuple(values[name])
            if len(values[name]) != length:
                raise ValueError(name)
        if values["precision"] not in typing.get_args(Precision):
            raise ValueError("precision")
        return ExportedInfo(**values)
    except (KeyError, TypeError, ValueError) as error:
        raise ExportError(f"model: {path} has no metadata of pyreid, expected a file that it has exported") from error


class ExportedModel(nn.Module):
    """An exported file with the look of a model: images (N, 3, H, W) in, embeddings (N, D) out, on the CPU.

    With preprocessing in the file, images are its pixels, 0 to 255, and ``pixel_mean`` and ``pixel_std`` are such that
    a :class:`~pyreid.FeatureExtractor` prepares exactly these.

    A pickle holds the file's path and digest, and opens the file again where it is read.

    Attributes:
        path: of the file, absolute.
        info: what the file says of itself.
        config: the same with a digest of the file, which tells one set of weights from another.
    """

    def __init__(self, path: Path, info: ExportedInfo, run: Run, digest: str) -> None:
        super().__init__()
        self.path = path.absolute()
        self.info = info
        self.config = {**dataclasses.asdict(info), "sha256": digest}
        self.embedding_dim = info.embedding_dim
        self.default_input_size = info.input_size
        self.pixel_mean = _PIXELS_MEAN if info.preprocessing else info.pixel_mean
        self.pixel_std = _PIXELS_STD if info.preprocessing else info.pixel_std
        self._run = run

    def __reduce__(self) -> tuple[Callable[..., ExportedModel], tuple[Path, str]]:
        return _reopen, (self.path, self.config["sha256"])

    def forward(self, images: Tensor) -> Tensor:
        """Embed images.

        Args:
            images: (N, 3, H, W): normalised, floating-point; or pixels 0 to 255, best uint8, for a file that normalises
                by itself.

        Returns:
            (N, D) float32, on the CPU.

        Raises:
            TypeError: no tensor, or pixels for a file that does not normalise by itself.
            ValueError: images of another size, or normalised images for a file that normalises by itself.
        """
        if not isinstance(images, Tensor):
            raise TypeError(f"images: expected a tensor, got {type(images).__name__}; a FeatureExtractor takes others")
        expected = (3, *self.info.input_size)
        if images.dim() != 4 or images.shape[1:] != expected:
            raise ValueError(f"images: got shape {tuple(images.shape)}, expected (N, {', '.join(map(str, expected))})")
        if len(images) == 0:
            return images.new_zeros(0, self.embedding_dim, dtype=torch.float32)
        array = self.prepare(images)
        if self.info.dynamic_batch:
            return torch.from_numpy(self._run(array))
        return torch.from_numpy(np.concatenate([self._run(array[row : row + 1]) for row in range(len(array))]))

    def prepare(self, images: Tensor) -> NDArray[Any]:
        """Images as the file takes them: normalised float32, or uint8."""
        images = images.detach().cpu()
        if not self.info.preprocessing:
            if not images.is_floating_point():
                raise TypeError(
                    f"images: got {str(images.dtype).removeprefix('torch.')}, but this file has no preprocessing; "
                    f"expected floats, scaled to 0..1 and normalised by mean {self.info.pixel_mean} and std "
                    f"{self.info.pixel_std}, as a FeatureExtractor makes them"
                )
            return np.ascontiguousarray(images.float().numpy())
        whole = images.round()
        if not bool(((images - whole).abs() < 1e-2).all() and ((whole >= 0) & (whole <= 255)).all()):
            raise ValueError(
                "images: got values other than whole numbers from 0 to 255; this file normalises by itself, so give "
                "files, arrays or uint8 tensors"
            )
        return np.ascontiguousarray(whole.to(torch.uint8).numpy())


def open_exported(path: str | os.PathLike[str]) -> ExportedModel:
    """Open an exported ``.onnx`` file with ONNX Runtime, or an ``.xml`` file with OpenVINO, for the CPU.

    It computes in float32, or int8 where quantised, by as many threads as torch has.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another suffix.
        pyreid.errors.ExportError: it cannot be read, or is not of pyreid.
        pyreid.errors.MissingDependencyError: onnxruntime or openvino is not installed.
    """
    path = Path(path)
    if path.suffix not in EXPORTED_SUFFIXES:
        raise ValueError(f"model: expected a file that ends in {' or '.join(EXPORTED_SUFFIXES)}, got {path}")
    files = exported_files(path)
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"model: no such file: {file}")
    metadata, run = _open_onnx(path) if path.suffix == ".onnx" else _open_openvino(path)
    digest = hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()
    return ExportedModel(path, parse_metadata(metadata, path), run, digest)


def _reopen(path: Path, digest: str) -> ExportedModel:
    """The model of a file that was open before, elsewhere; by as many threads as torch has here."""
    model = open_exported(path)
    if model.config["sha256"] != digest:
        raise ExportError(f"model: {path} has changed since it was opened")
    return model


def exported_files(path: Path) -> list[Path]:
    """The file, and with an ``.xml`` file the ``.bin`` file that holds its weights."""
    return [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]


def import_openvino() -> Any:
    """The package openvino, imported such that it does not report its use over the network, as it would by default."""
    if "openvino" not in sys.modules and "openvino_telemetry" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # not to be found: openvino has a stub
        try:
            require("openvino", extra="export")
        finally:
            del sys.modules["openvino_telemetry"]
    require("openvino", extra="export")
    return importlib.import_module("openvino")


def openvino_core() -> Any:
    """The one ``openvino.Core`` of this process, which stays for good.

    A Core that compiles for the CPU sets the thread's stack for signals, and puts back the one before when it goes. Of
    two Cores, of which the first goes first, the second would put back the memory of the first, which is no longer
    there, and the next signal (Ctrl-C, the end of a child process) would kill the process.
    """
    return _core_of(os.getpid())


@functools.cache
def _core_of(process: int) -> Any:
    return import_openvino().Core()


def _open_onnx(path: Path) -> tuple[dict[str, str], Run]:
    require("onnxruntime", extra="export")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base class
        raise ExportError(f"model: {path} is damaged or no ONNX file") from error
    found = session.get_modelmeta().custom_metadata_map
    metadata = {name.removeprefix(f"{PREFIX}."): value for name, value in found.items() if name.startswith(PREFIX)}

    def run(images: NDArray[Any]) -> NDArray[np.float32]:
        return np.asarray(session.run([OUTPUT], {INPUT: images})[0])

    return metadata, run


def _open_openvino(path: Path) -> tuple[dict[str, str], Run]:
    config = {
        "INFERENCE_PRECISION_HINT": "f32",  # some processors would get bfloat16
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    try:
        core = openvino_core()
        graph = core.read_model(path)
        request = core.compile_model(graph, "CPU", config).create_infer_request()
    except RuntimeError as error:
        raise ExportError(f"model: {path} or its .bin file is damaged or no OpenVINO file") from error
    metadata = dict(graph.get_rt_info([PREFIX]).value) if graph.has_rt_info([PREFIX]) else {}

    def run(images: NDArray[Any]) -> NDArray[np.float32]:
        return np.array(request.infer({INPUT: images})[OUTPUT])  # the request's own memory is used again

    return metadata, run
