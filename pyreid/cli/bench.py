"""``pyreid bench``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

EDGE = "edge"  # for --models without a pattern


class BenchCommand(TyperCommand):
    """Takes ``--models`` also without a pattern, which Typer has no option for."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        filled = []
        for place, argument in enumerate(args):
            filled.append(argument)
            if argument == "--models" and (place + 1 == len(args) or args[place + 1].startswith("-")):
                filled.append(EDGE)
        return super().parse_args(ctx, filled)


class Device(str, Enum):
    cpu = "cpu"
    cuda = "cuda"


def bench(
    names: Annotated[
        list[str] | None, typer.Argument(help="Benchmarks to run, such as gem_pool; all of them if none is named.")
    ] = None,
    device: Annotated[Device, typer.Option(help="Where the tensors lie.")] = Device.cpu,
    out: Annotated[
        Path, typer.Option(help="Results file, or a folder that gets <device>.json; what it holds of others is kept.")
    ] = Path(),
    repeats: Annotated[int | None, typer.Option(min=1, help="Timed rounds; default: set by each benchmark.")] = None,
    fetch_peers: Annotated[
        bool, typer.Option("--fetch-peers", help="Get fast-reid's and torchreid's files from PyPI, if missing.")
    ] = False,
    peers: Annotated[Path | None, typer.Option(help="Folder with the files of those peers.")] = None,
    models: Annotated[
        str | None,
        typer.Option(
            metavar="[PATTERN]",
            help="Time models of 'pyreid models' in all deployed forms: those of a pattern, such as 'safr*', or small "
            "ones for edge devices.",
        ),
    ] = None,
) -> None:
    """Time the operators against plain PyTorch, torch.compile and the peers that are installed.

    In one process, on the same input, in turns. Results are compared first: where a peer computes something else, the
    benchmark is left out and the command fails. Prints a table and writes JSON; +-% is the distance of the quartiles
    in per cent of the median.

    The benchmark 'models' times whole networks: PyTorch, ONNX Runtime and OpenVINO, float32 and int8.

    Example: pyreid bench gem_pool triplet --device cuda
    """
    import inspect
    from importlib import import_module

    import torch

    from pyreid.errors import PyreidError

    package = import_module("pyreid.benchmarks")
    timing = import_module("pyreid.benchmarks._timing")
    unknown = [name for name in names or () if name not in package.NAMES]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r}: expected one of {', '.join(package.NAMES)}", param_hint="NAMES")
    if models is not None:
        names = names or ["models"]
        if "models" not in names:
            raise typer.BadParameter(f"--models: expected the benchmark 'models', got {', '.join(names)}")
    if device is Device.cuda and not torch.cuda.is_available():
        raise PyreidError("--device: torch sees no CUDA device")
    if not out.is_dir() and not out.absolute().parent.is_dir():
        raise PyreidError(f"--out: the folder {out.absolute().parent} does not exist")
    written, failed = None, []
    for name in names or package.NAMES:
        module = import_module(f"pyreid.benchmarks.bench_{name}")
        taken = inspect.signature(module.measure).parameters
        options: dict[str, Any] = {"peers": peers, "fetch": fetch_peers} if "peers" in taken else {}
        if models is not None and "models" in taken:
            options["models"] = models
        try:
            rows = module.measure(device.value, repeats or module.REPEATS, **options)
        except RuntimeError as error:  # a peer's results differ, or the device ran out of memory
            failed.append(f"{name}: {error}")
            continue
        # after each one, so that an interrupted run keeps what it has measured
        written = timing.report(rows, out, device.value, getattr(module, "print_table", timing.print_table))
    if written is not None:
        print(f"written: {written}")
    if failed:
        raise PyreidError("; ".join(failed))
