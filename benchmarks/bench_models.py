"""Whole networks: images per second in PyTorch, eager, with folded batch norms and compiled, and in the deployed forms,
ONNX Runtime and OpenVINO in float32 and int8; one image and 32, beside parameters, multiply-accumulates and sizes.

python -m benchmarks.bench_models                     # the edge models on the CPU, prints a table
python -m benchmarks.bench_models --models 'safr*'

The weights are fresh ones, on which no time depends. Every form gives its embeddings first, and those of float32 have
to be PyTorch's. How far int8 is from them says little without training: files that pyreid export would refuse are timed
as well, and marked.

The forms are timed one after the other, with a pause before each: the threads of one runtime go on spinning for a while
after their work, and would disturb the next.
"""

from __future__ import annotations

import inspect
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pyreid.errors import PyreidError
from pyreid.inference import export_onnx, export_openvino, fold_batch_norm, open_exported, quantize_int8
from pyreid.inference.exported import exported_files
from pyreid.inference.parity import round_down
from pyreid.inference.sample_images import sample_images
from pyreid.models import complexity, create_model, list_models

from ._timing import COMPILED, EAGER, DeviceType, Row, Timing, result_row, run, time_interleaved

EDGE = ("rmnet", "compact_reid_1x", "safr_micro", "safr_small", "cw_mobilenet_v3_small")
EDGE_PATTERN = "edge"
BATCHES = (1, 32)
REPEATS = 10
WARMUP = 2
PAUSE_S = 0.5
LONGEST_S = 4.0  # of the repeats of one form; at least three are made
MIN_SIMILARITY = inspect.signature(quantize_int8).parameters["min_similarity"].default
CALIBRATION = 16  # images; enough for ranges that cost the same as better ones
TOLERANCE = 1e-2  # of float32 forms, as a fraction of the largest element; rounding is 1e-5

Embed = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Form:
    """A model in one form: what computes it, in what numbers, its bytes on disk, and for int8 the lowest similarity."""

    name: str
    dtype: str
    embed: Embed
    size_bytes: int
    similarity: float | None = None


def forms(model: nn.Module, folder: Path, device: DeviceType) -> list[Form]:
    """The model in every form that works here, eager PyTorch first; the reason of each that does not is printed."""
    weights = _bytes(model)
    folded = fold_batch_norm(model)
    made = [
        Form(EAGER, "float32", model, weights),
        Form(f"{EAGER}, folded", "float32", folded, _bytes(folded)),
        Form(COMPILED, "float32", torch.compile(model, fullgraph=True, dynamic=False), weights),
    ]
    if device == "cuda":
        return made
    source = folder / "model.onnx"

    def write_int8(name: str) -> tuple[Path, float]:
        drawn = sample_images(CALIBRATION, model.default_input_size)
        report = quantize_int8(source, folder / name, calibration_images=drawn, min_similarity=-1)
        return report.path, report.similarity

    writers: dict[tuple[str, str], Callable[[], tuple[Path, float | None]]] = {
        ("ONNX Runtime", "float32"): lambda: (export_onnx(model, source).path, None),
        ("ONNX Runtime", "int8"): lambda: write_int8("int8.onnx"),
        ("OpenVINO", "float32"): lambda: (export_openvino(model, folder / "model.xml").path, None),
        ("OpenVINO", "int8"): lambda: write_int8("int8.xml"),
    }
    for (name, dtype), write in writers.items():
        try:
            path, similarity = write()
            size = sum(file.stat().st_size for file in exported_files(path))
            made.append(Form(name, dtype, open_exported(path), size, similarity))
        except (PyreidError, OSError) as error:
            print(f"without {name} {dtype}: {str(error)[:200]}", file=sys.stderr)
    return made


def measure(device: DeviceType, repeats: int, models: str | None = None) -> list[Row]:
    """Time the models that match the pattern ``models``, or the edge models, in every form against eager PyTorch."""
    names = list(EDGE) if models in (None, EDGE_PATTERN) else list_models(models)
    if not names:
        raise PyreidError(f"--models: {models!r} matches no model; expected any of {', '.join(list_models())}")
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        # All is built, compiled and compared before the first is timed, so that the machine has to be quiet no longer.
        ready = []
        for number, name in enumerate(names, start=1):
            _say(f"{name}: exporting and compiling, {number} of {len(names)}")
            ready.append(prepare(name, Path(folder) / name, device))
        rows = []
        for number, model in enumerate(ready, start=1):
            _say(f"{model.name}: timing, {number} of {len(ready)}")
            rows += time_forms(model, device, repeats)
        return rows


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model whose forms have given the embeddings of each batch.

    Attributes:
        name: of the model.
        batches: for each number of images, the images and the forms that can embed them, eager PyTorch first.
        params: learnable parameters.
        macs: multiply-accumulates of an image.
    """

    name: str
    batches: dict[int, tuple[Tensor, list[Form]]]
    params: int
    macs: int


def prepare(name: str, folder: Path, device: DeviceType) -> Prepared:
    """Make a model with fresh weights and its forms.

    Raises:
        RuntimeError: a form in float32 gives other embeddings than PyTorch.
    """
    torch.manual_seed(0)
    model = create_model(name).eval().to(device)
    folder.mkdir(parents=True, exist_ok=True)
    made = forms(model, folder, device)
    batches = {}
    for batch in BATCHES:
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(batch, 3, *model.default_input_size, generator=generator).to(device)
        expected = made[0].embed(images)
        batches[batch] = images, [form for form in made if _agrees(_where(name, images, form), form, images, expected)]
    counts = complexity(model)
    return Prepared(name, batches, counts.params, counts.macs)


def _where(name: str, images: Tensor, form: Form) -> str:
    batch, _, height, width = images.shape
    return f"{name} {height}x{width} batch {batch}, {form.name}"


def _agrees(where: str, form: Form, images: Tensor, expected: Tensor) -> bool:
    """Whether the form runs; the reason is printed where it does not."""
    try:
        found = form.embed(images)
    except Exception as error:  # whatever a compiler raises
        reason = (str(error).splitlines() or [""])[0]
        print(f"without {where}: {type(error).__name__}: {reason[:200]}", file=sys.stderr)
        return False
    difference = float((found - expected).abs().max() / expected.abs().max())
    if form.dtype == "float32" and not difference <= TOLERANCE:
        raise RuntimeError(f"{where}: the embeddings differ by {difference:.3g}, allowed {TOLERANCE}")
    return True


def time_forms(prepared: Prepared, device: DeviceType, repeats: int) -> list[Row]:
    """One row for each form and number of images; ``ratio`` compares with eager PyTorch, in the same batch."""
    rows = []
    for batch, (images, able) in prepared.batches.items():
        timings = [_time_form(form, images, repeats, device) for form in able]
        for form, timing in zip(able, timings, strict=True):
            row = result_row(
                op="model", case=_where(prepared.name, images, form), dtype=form.dtype, device=device,
                ours=timing, peer=EAGER, peer_timing=timings[0],
            )  # fmt: skip
            rows.append(
                row
                | {
                    "model": prepared.name,
                    "form": form.name,
                    "batch": batch,
                    "images_per_second": round(1e3 * batch / timing.median_ms, 1),
                    "params": prepared.params,
                    "macs": prepared.macs,
                    "size_bytes": form.size_bytes,
                    "similarity": form.similarity,
                }
            )
    return rows


def _time_form(form: Form, images: Tensor, repeats: int, device: DeviceType) -> Timing:
    """Time a form alone, after a pause; fewer repeats where they take long."""

    def embed() -> Tensor:
        return form.embed(images)

    time.sleep(PAUSE_S)
    start = time.perf_counter()
    embed()
    taken = time.perf_counter() - start
    rounds = max(min(repeats, 3), min(repeats, int(LONGEST_S / taken)))
    return time_interleaved({form.name: embed}, rounds, warmup=WARMUP if taken < 1 else 0, device=device)[form.name]


def is_refused(row: Row) -> bool:
    """Whether ``pyreid export`` would not write this int8 file."""
    similarity = row.get("similarity")
    return similarity is not None and not similarity >= MIN_SIMILARITY


def print_table(rows: Sequence[Row]) -> None:
    """Print rows for people: images per second, and how many times those of eager PyTorch in the same batch."""
    wide = max((len(row["form"]) for row in rows), default=0)
    print(
        f"{'model':<26} {'params':>9} {'MACs':>8} {'batch':>5} {'form':<{wide}} {'numbers':<8} {'MB':>7} "
        f"{'images/s':>9} {'+-%':>4} {'x eager':>8} {'cosine':>8}"
    )
    for row in rows:
        similarity = row.get("similarity")
        cosine = "" if similarity is None else round_down(similarity, 4) + ("*" if is_refused(row) else " ")
        line = (
            f"{row['model']:<26} {row['params'] / 1e6:>8.2f}M {row['macs'] / 1e9:>7.3f}G {row['batch']:>5} "
            f"{row['form']:<{wide}} {row['dtype']:<8} {row['size_bytes'] / 1e6:>7.2f} {row['images_per_second']:>9.1f} "
            f"{100 * row['ours_spread']:>4.0f} {row['ratio']:>7.2f}x {cosine:>8}"
        )
        print(line.rstrip())
    print(f"x eager: images/s over those of {EAGER} in the same batch; cosine: lowest of int8 to float32, drawn images")
    if any(map(is_refused, rows)):
        print(f"*: below {MIN_SIMILARITY} with these fresh weights; pyreid export would not write the file")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _bytes(model: nn.Module) -> int:
    """What the state takes in a file: parameters and buffers."""
    return sum(value.numel() * value.element_size() for value in model.state_dict().values())


if __name__ == "__main__":
    run(__doc__, measure, REPEATS, show=print_table)
