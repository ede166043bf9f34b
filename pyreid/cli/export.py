"""``pyreid export``: a model as one file for deployment, compared with PyTorch before it is put in place."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pyreid.cli.image_size import parse_size

if TYPE_CHECKING:
    from torch import nn


class Format(str, Enum):
    onnx = "onnx"
    openvino = "openvino"


SUFFIXES = {Format.onnx: ".onnx", Format.openvino: ".xml"}


def export(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|CHECKPOINT",
            help="A model of 'pyreid models', the folder of a run, or a checkpoint in such a folder.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write: .onnx, or .xml for OpenVINO.")],
    format: Annotated[Format, typer.Option(help="What to write.")] = Format.onnx,
    weights: Annotated[
        str | None, typer.Option(help="Weights file of a named model; 'timm' for ImageNet's, 'none' for fresh ones.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="HEIGHTxWIDTH of the images. (Default: the run's, or the model's.)")
    ] = None,
    fold: Annotated[bool, typer.Option("--fold", help="Fold batch norms before the export.")] = False,
    preprocessing: Annotated[
        bool, typer.Option("--preprocessing", help="Take uint8 RGB images, and normalise inside the file.")
    ] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Quantise to int8, calibrated on --images.")] = False,
    images: Annotated[
        list[str] | None,
        typer.Option(help="Folder, pattern or list of images to compare and calibrate with; by default drawn ones."),
    ] = None,
    min_similarity: Annotated[
        float, typer.Option(min=-1, max=1, help="Least cosine similarity of int8 to float32; below it is an error.")
    ] = 0.98,
    batch: Annotated[bool, typer.Option("--batch/--single", help="Take any number of images, or one.")] = True,
) -> None:
    """Export a model to ONNX or OpenVINO, and compare its embeddings of images with PyTorch's.

    A file that gives other embeddings is not written. The file holds the model's name, image size and normalisation,
    and pyreid.FeatureExtractor takes it in place of a model.

    Example: pyreid export runs/small --format onnx --preprocessing --out small.onnx
    """
    if out.suffix != SUFFIXES[format]:
        raise typer.BadParameter(
            f"--out: expected a file that ends in {SUFFIXES[format]} for {format.value}, got {out}"
        )
    input_size = parse_size(size)
    from pyreid.errors import WeightsError
    from pyreid.inference import read_paths
    from pyreid.inference.opening import find_run, open_model

    paths = read_paths(images) if images else None
    if weights is None and find_run(model) is None:
        raise WeightsError(f"weights: model {model} needs --weights FILE; 'none' exports it untrained")
    opened = open_model(model, weights)
    options: dict[str, Any] = {
        "name": opened.name,
        "input_size": input_size or opened.images.size,
        "mean": opened.images.mean,
        "std": opened.images.std,
        "fold": fold,
        "preprocessing": preprocessing,
        "dynamic_batch": batch,
    }
    if int8:
        _write_int8(opened.network, out, options, paths, min_similarity)
    else:
        _write_float(opened.network, out, options, paths)


def _write_float(network: nn.Module, out: Path, options: dict[str, Any], paths: list[Path] | None) -> None:
    from pyreid.inference import export_onnx, export_openvino
    from pyreid.inference.parity import round_down

    write = export_onnx if out.suffix == ".onnx" else export_openvino
    report = write(network, out, images=paths, **options)
    height, width = report.info.input_size
    drawn = report.parity.images - len(paths or ())
    print(
        f"{out}: {report.info.model}, {height}x{width}, embedding {report.info.embedding_dim}, "
        f"{report.size_bytes / 1e6:.2f} MB; cosine similarity to PyTorch at least "
        f"{round_down(report.parity.cosine, 6)} on {_number_given(report.parity.images - drawn, drawn)}"
    )


def _write_int8(
    network: nn.Module, out: Path, options: dict[str, Any], paths: list[Path] | None, min_similarity: float
) -> None:
    from tempfile import TemporaryDirectory

    from pyreid.inference import export_onnx, quantize_int8
    from pyreid.inference.quantize import describe

    with TemporaryDirectory(prefix="pyreid-") as folder:
        source = Path(folder) / "float32.onnx"
        export_onnx(network, source, images=paths[:8] if paths else None, **options)
        report = quantize_int8(source, out, calibration_images=paths, min_similarity=min_similarity)
    layers = f"{report.layers - report.float_layers} of {report.layers} layers"
    print(
        f"{out}: int8 in {layers}, {report.size_bytes / 1e6:.2f} MB instead of {report.float_size_bytes / 1e6:.2f} MB; "
        f"cosine similarity to float32: {describe(report.calibration, report.test)}"
    )


def _number_given(given: int, drawn: int) -> str:
    return f"{given} given and {drawn} drawn images" if given else f"{drawn} drawn images"
