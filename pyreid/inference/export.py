"""Export to ONNX and OpenVINO: one file that needs no pyreid, compared with the model before it is put in place."""

from __future__ import annotations

import copy
import dataclasses
import keyword
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pyreid._files import write_atomically
from pyreid.errors import ExportError, require
from pyreid.inference.exported import (
    INPUT,
    OUTPUT,
    PREFIX,
    ExportedInfo,
    exported_files,
    import_openvino,
    open_exported,
    openvino_core,
)
from pyreid.inference.extractor import FeatureExtractor
from pyreid.inference.fold import fold_batch_norm
from pyreid.inference.images import ImageInput, as_items, resolve_input
from pyreid.inference.parity import Parity, Tolerance, check_parity, measure_parity
from pyreid.inference.sample_images import sample_images
from pyreid.ops import reference

OPSET = 18  # the first that torch writes without a converter; holds GridSample, of opset 16
_CHECKED_IMAGES = 8
CHECKED_BATCH = 3  # leaves a smaller batch at the end, which a fixed batch would refuse
_DEFAULT_TOLERANCE = Tolerance()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What was written.

    Attributes:
        path: the file; OpenVINO's weights lie beside it, in a ``.bin`` file.
        info: its metadata.
        parity: its agreement with the PyTorch model.
        opset: of the ONNX graph; of that which an OpenVINO file was made from.
        size_bytes: on disk, of all files together.
    """

    path: Path
    info: ExportedInfo
    parity: Parity
    opset: int
    size_bytes: int


class _Deployed(nn.Module):
    """The model with what the file does around it."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, images: ImageInput, *, preprocessing: bool) -> None:
        super().__init__()
        self.model = model
        self.preprocessing = preprocessing
        self.register_buffer("mean", torch.tensor(images.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(images.std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        if self.preprocessing:
            images = (images.float() / 255 - self.mean) / self.std
        return self.model(images)


def export_onnx(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    input_size: tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dynamic_batch: bool = True,
    preprocessing: bool = False,
    fold: bool = False,
    opset: int = OPSET,
    images: Any = None,
    tolerance: Tolerance = _DEFAULT_TOLERANCE,
) -> ExportReport:
    """Write a model as an ONNX file of plain operators, and check it on images with ONNX Runtime.

    pyreid's own operators become what :mod:`pyreid.ops.reference` makes of them. The check embeds images as users do,
    by a :class:`~pyreid.FeatureExtractor` on the model and another on the file, so that it also sees a wrong size,
    normalisation or batch. A file that fails it never appears at ``path``.

    Args:
        model: a model of the zoo, or a module that maps (N, 3, H, W) to (N, D) in ``eval()``; left as it is.
        path: the ``.onnx`` file; replaced in one step if it is there.
        name: the model's name in the metadata; by default that of the zoo, or the class's.
        input_size: (H, W) of the images, fixed in the file; by default the model's.
        mean: of RGB in 0..1; by default the model's, or ImageNet's for a module that has none.
        std: of RGB in 0..1; likewise.
        dynamic_batch: take any number of images at once; otherwise one.
        preprocessing: take uint8 RGB 0..255 of that size, and scale and normalise inside the file. Otherwise the input
            is normalised float32.
        fold: fold batch norms beforehand (:func:`~pyreid.inference.fold_batch_norm`).
        opset: of ONNX, from 18 to the newest that the installed packages can write (25 with onnx 1.23).
        images: to check with, as for a :class:`~pyreid.FeatureExtractor`, without normalised tensors; by default eight
            drawn ones.
        tolerance: of the check.

    Returns:
        What was written, with the differences.

    Raises:
        ValueError: an argument is out of range, or the path does not end in ``.onnx``.
        pyreid.errors.ExportError: the model cannot be traced, or not be translated to this opset, or the file gives
            other embeddings.
        pyreid.errors.MissingDependencyError: a package of the extra ``export`` is missing.
    """
    path = _check_path(path, ".onnx")
    for package in ("onnx", "onnxscript", "onnxruntime"):
        require(package, extra="export")
    import onnx

    newest = onnx.defs.onnx_opset_version()
    if not OPSET <= opset <= newest:
        raise ValueError(f"opset: got {opset}, expected {OPSET} to {newest}, the newest of onnx {onnx.__version__}")
    look = resolve_input(model, size=input_size, mean=mean, std=std)
    original = copy.deepcopy(model).cpu().float().eval()
    info = _describe(original, look, name=name, preprocessing=preprocessing, dynamic_batch=dynamic_batch)
    shown = _images_to_check(images, look.size)
    expected = FeatureExtractor(
        original, device="cpu", size=look.size, mean=look.mean, std=look.std, batch_size=CHECKED_BATCH
    )(shown)
    inner = fold_batch_norm(original, input_size=look.size) if fold else original
    deployed = _Deployed(inner, look, preprocessing=preprocessing).eval()
    graph = _to_onnx(deployed, look.size, info, opset=opset)
    with tempfile.TemporaryDirectory(prefix="pyreid-") as folder:
        written = Path(folder) / "model.onnx"
        onnx.save(graph, written)
        parity = compare_file(written, shown, expected, tolerance, what=str(path))
        put_exported_in_place(written, path)
    return ExportReport(path=path, info=info, parity=parity, opset=opset, size_bytes=files_size(path))


def export_openvino(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    images: Any = None,
    tolerance: Tolerance = _DEFAULT_TOLERANCE,
    **options: Any,
) -> ExportReport:
    """Write a model as OpenVINO's ``.xml`` and ``.bin``, float32, and check it on images with OpenVINO.

    The way is by ONNX, with the check of :func:`export_onnx`; the result is checked once more.

    Args:
        model: as for :func:`export_onnx`.
        path: the ``.xml`` file; the weights get the same name with ``.bin``.
        images: to check with, as for :func:`export_onnx`.
        tolerance: of both checks.
        options: the other options of :func:`export_onnx`.

    Returns:
        What was written, with the differences.

    Raises:
        ValueError, pyreid.errors.ExportError, pyreid.errors.MissingDependencyError: as for :func:`export_onnx`.
    """
    path = _check_path(path, ".xml")
    import_openvino()
    with tempfile.TemporaryDirectory(prefix="pyreid-") as folder:
        source = Path(folder) / "model.onnx"
        first = export_onnx(model, source, images=images, tolerance=tolerance, **options)
        shown = _images_to_check(images, first.info.input_size)
        expected = FeatureExtractor(source, batch_size=CHECKED_BATCH)(shown)
        written = onnx_to_openvino_file(source, Path(folder) / "model.xml")
        parity = compare_file(written, shown, expected, tolerance, what=str(path))
        put_exported_in_place(written, path)
    return ExportReport(path=path, info=first.info, parity=parity, opset=first.opset, size_bytes=files_size(path))


def onnx_to_openvino_file(source: Path, path: Path) -> Path:
    """Convert an exported ``.onnx`` file, float32 or int8, to ``path``, an ``.xml`` file with a ``.bin`` beside it."""
    openvino = import_openvino()
    graph = openvino_core().read_model(source)
    for key, value in open_exported(source).info.to_metadata().items():
        graph.set_rt_info(value, [PREFIX, key])
    openvino.save_model(graph, path, compress_to_fp16=False)
    return path


def put_exported_in_place(written: Path, path: Path) -> None:
    """:func:`put_in_place` for all files; at any moment an ``.xml`` that is there belongs to the ``.bin`` beside it."""
    if path.suffix == ".xml":
        path.unlink(missing_ok=True)
        put_in_place(written.with_suffix(".bin"), path.with_suffix(".bin"))
    put_in_place(written, path)


def put_in_place(written: Path, path: Path) -> None:
    """Copy a checked file to where it belongs, in one step.

    It was made and checked in the system's folder for temporary files, so an export that is killed leaves nothing
    beside ``path``.
    """

    def copy(temporary: Path) -> None:
        shutil.copyfile(written, temporary)

    write_atomically(path, copy)


def files_size(path: Path) -> int:
    """Bytes of an exported file, with the ``.bin`` file that belongs to an ``.xml`` file."""
    return sum(file.stat().st_size for file in exported_files(path))


def compare_file(path: Path, images: Any, expected: Any, tolerance: Tolerance, *, what: str) -> Parity:
    """Embed images with an exported file and raise unless they are as expected; see :func:`check_parity`."""
    parity = measure_parity(expected, FeatureExtractor(path, batch_size=CHECKED_BATCH)(images))
    check_parity(parity, tolerance, what)
    return parity


def zoo_name(model: nn.Module) -> str:
    """The name under which the zoo makes such a model with its defaults; else the name of the class."""
    from pyreid.models import list_models, resolve_config

    config = getattr(model, "config", None)
    for name in list_models():
        if config is not None and resolve_config(name, num_classes=getattr(config, "num_classes", 0)) == config:
            return name
    return type(model).__name__


def _images_to_check(images: Any, size: tuple[int, int]) -> list[Any]:
    """Drawn images behind those that are given, if any: given ones may all look alike and show no fault."""
    given = [] if images is None else as_items(images)
    return [*given, *sample_images(_CHECKED_IMAGES, size)]


def _check_path(path: str | os.PathLike[str], suffix: str) -> Path:
    path = Path(path)
    if path.suffix != suffix:
        raise ValueError(f"path: expected a file that ends in {suffix}, got {path}")
    if path.is_dir():
        raise IsADirectoryError(f"path: expected a file, got the folder {path}")
    return path


def _describe(
    model: nn.Module, look: ImageInput, *, name: str | None, preprocessing: bool, dynamic_batch: bool
) -> ExportedInfo:
    import pyreid

    with torch.no_grad():
        width = int(model(torch.zeros(1, 3, *look.size)).shape[1])
    return ExportedInfo(
        model=zoo_name(model) if name is None else name,
        input_size=look.size,
        pixel_mean=look.mean,
        pixel_std=look.std,
        embedding_dim=width,
        preprocessing=preprocessing,
        dynamic_batch=dynamic_batch,
        pyreid_version=pyreid.__version__,
    )


def _to_onnx(deployed: _Deployed, size: tuple[int, int], info: ExportedInfo, *, opset: int) -> Any:
    """The ONNX model, with pyreid's metadata and without the traces of where it was made."""
    # torch takes a dimension of 1 for a constant, so that an example of a dynamic batch has two images.
    example = torch.zeros(2 if info.dynamic_batch else 1, 3, *size)
    example = example.to(torch.uint8) if deployed.preprocessing else example
    shapes = {"images": {0: torch.export.Dim.DYNAMIC}} if info.dynamic_batch else None
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about its internals
        try:
            program = torch.export.export(deployed, (example,), dynamic_shapes=shapes)
            _rename_keywords(program)
            table = _plain_operators()
            if any(node.target in table for node in program.graph.nodes):
                program = program.run_decompositions(table)
            translated = torch.onnx.export(
                program, dynamo=True, input_names=[INPUT], output_names=[OUTPUT], opset_version=opset, verbose=False
            )
            assert translated is not None  # without a file, torch returns the program
            graph = translated.model_proto
        except Exception as error:  # whatever a traced model and a translator raise
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            where = "ONNX" if opset == OPSET else f"opset {opset} of ONNX, perhaps to {OPSET}"
            raise ExportError(f"model: {info.model} cannot be translated to {where}: {reason}") from error
    written = next(entry.version for entry in graph.opset_import if entry.domain in ("", "ai.onnx"))
    if written != opset:  # torch goes on with its own where the conversion fails
        raise ExportError(f"opset: {info.model} cannot be written in opset {opset}, only in {written}")
    _clean(graph, dynamic_batch=info.dynamic_batch)
    set_metadata(graph, info)
    return graph


def _rename_keywords(program: Any) -> None:
    """Give tensors of modules with names such as ``global`` other names: torch writes them into Python code."""
    for spec in program.graph_signature.input_specs:
        parts = str(spec.target).split(".")
        if not any(keyword.iskeyword(part) for part in parts):
            continue
        name = ".".join(f"{part}_" if keyword.iskeyword(part) else part for part in parts)
        for tensors in (program.state_dict, program.constants):
            if spec.target in tensors:
                tensors[name] = tensors.pop(spec.target)
        spec.target = name


def set_metadata(graph: Any, info: ExportedInfo) -> None:
    """Make ``info`` the metadata of an ONNX model."""
    del graph.metadata_props[:]
    for key, value in info.to_metadata().items():
        graph.metadata_props.add(key=f"{PREFIX}.{key}", value=value)


def _clean(model: Any, *, dynamic_batch: bool) -> None:
    """Name the batch, and drop torch's notes: source lines and paths of this machine, and shapes that are derived."""
    del model.graph.value_info[:]
    for owner in (model, model.graph, *model.functions, *model.graph.node, *model.graph.initializer):
        if hasattr(owner, "metadata_props"):
            del owner.metadata_props[:]
        owner.doc_string = ""
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]
        if dynamic_batch:
            value.type.tensor_type.shape.dim[0].dim_param = "batch"


def _plain_operators() -> dict[Any, Callable[..., Any]]:
    """For each operator of pyreid that networks use, the same in torch's own operators.

    The registered operators also return what their backward passes need; here that is a value nobody reads.
    """
    operators = torch.ops.pyreid

    def gem_pool(x: Tensor, p: Tensor | None, value: float, eps: float) -> tuple[Tensor, Tensor]:
        exponent = torch.full((1,), value, device=x.device) if p is None else p  # a number would become a constant
        pooled = reference.gem_pool(x, exponent, eps=eps)
        return pooled, pooled

    def masked_mix(local: Tensor, x: Tensor, identity: Tensor, mask: Tensor, _: bool) -> Tensor:
        return reference.masked_mix(local, x, identity, mask)

    def gate_and_pool(x: Tensor, gate: Tensor) -> tuple[Tensor, ...]:
        local, avg, _ = reference.gate_and_pool(x, gate)
        return local, avg, local.flatten(2).amax(2), avg  # the maximum without its position

    def spatial_gate(x: Tensor, weight1: Tensor, weight2: Tensor, negative_slope: float) -> tuple[Tensor, ...]:
        local, avg, _ = reference.spatial_gate(x, weight1, weight2, negative_slope=negative_slope)
        return local, avg, local.flatten(2).amax(2), avg

    return {
        operators.gem_pool.default: gem_pool,
        operators.masked_mix.default: masked_mix,
        operators.gate_and_pool.default: gate_and_pool,
        operators.spatial_gate.default: spatial_gate,
    }
