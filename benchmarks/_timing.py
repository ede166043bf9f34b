"""What every benchmark shares: timing several functions in one process, result rows, a table, and the results file.

Contenders are called in turn within each round, and the order is reversed every other round, so that a change in the
machine's load or clock meets all of them alike. Medians are compared, and the quartiles tell how far to trust them.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from pyreid._files import write_json

DeviceType = Literal["cpu", "cuda"]
RESULTS = Path(__file__).parent / "results"  # of the committed runs
Row = dict[str, Any]
Result = TypeVar("Result")

EAGER, COMPILED = "torch eager", "torch.compile"

# What makes two rows the same measurement: a new one replaces the old.
ROW_KEY = ("op", "case", "dtype", "device", "peer")


@dataclass(frozen=True, slots=True)
class Timing:
    """Repeated measurements of one function, in milliseconds."""

    samples_ms: tuple[float, ...]

    @property
    def median_ms(self) -> float:
        return statistics.median(self.samples_ms)

    @property
    def quartiles_ms(self) -> tuple[float, float]:
        """First and third quartile: half of all samples lie between them."""
        if len(self.samples_ms) == 1:
            return self.samples_ms[0], self.samples_ms[0]
        first, _, third = statistics.quantiles(self.samples_ms, n=4, method="inclusive")
        return first, third

    @property
    def spread(self) -> float:
        """Distance of the quartiles as a fraction of the median."""
        first, third = self.quartiles_ms
        return (third - first) / self.median_ms if self.median_ms else 0.0


def _time_once(function: Callable[[], object], device: DeviceType) -> float:
    if device == "cpu":
        start = time.perf_counter()
        function()
        return (time.perf_counter() - start) * 1e3
    # The device is idle when the first event is recorded, so launch latency counts, as it does in a training step.
    torch.cuda.synchronize()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    function()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))


def time_interleaved(
    functions: Mapping[str, Callable[[], object]],
    repeats: int = 50,
    warmup: int = 5,
    device: DeviceType = "cpu",
) -> dict[str, Timing]:
    """Time each function ``repeats`` times, taking turns.

    Args:
        functions: contenders by name; each is called without arguments and its result is dropped.
        repeats: measured rounds.
        warmup: rounds before them that are not counted.
        device: ``"cpu"`` measures wall time, ``"cuda"`` the time between two CUDA events.

    Returns:
        a :class:`Timing` for each name, in the order of ``functions``.

    Raises:
        ValueError: if ``repeats`` is less than 1 or there is no function.
    """
    if repeats < 1 or not functions:
        raise ValueError(f"repeats: expected at least 1 and a function to time, got {repeats} and {len(functions)}")
    samples: dict[str, list[float]] = {name: [] for name in functions}
    names = list(functions)
    for turn in range(warmup + repeats):
        for name in names if turn % 2 == 0 else reversed(names):
            elapsed = _time_once(functions[name], device)
            if turn >= warmup:
                samples[name].append(elapsed)
    return {name: Timing(tuple(values)) for name, values in samples.items()}


def captured(function: Callable[[], object]) -> Callable[[], object]:
    """The device's work of ``function`` as a CUDA graph: a call replays it, on the same memory."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # libraries allocate their workspaces outside the capture
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay


def device_name(device: DeviceType) -> str:
    """The device as people know it, for example ``"NVIDIA H200"`` or ``"AMD EPYC, 2 threads"``."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    model = "unknown CPU"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = models[0] if models else model
    return f"{model}, {torch.get_num_threads()} threads"


def file_name(device: str) -> str:
    """The name of the results file for a device of this name: ``"NVIDIA H200"`` gives ``nvidia-h200.json``."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-") + ".json"


def commit() -> str:
    """Abbreviated commit of the source tree, with ``-dirty`` when files differ from it; ``"unknown"`` outside git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def result_row(
    *,
    op: str,
    case: str,
    dtype: str,
    device: DeviceType,
    ours: Timing,
    peer: str,
    peer_timing: Timing,
    floor_ms: float | None = None,
    peak_mb: float | None = None,
) -> Row:
    """One comparison as the results file holds it; ``ratio`` is how many times faster than the peer pyreid is."""
    return {
        "op": op,
        "case": case,
        "dtype": dtype,
        "device": device_name(device),
        "torch": torch.__version__,
        "commit": commit(),
        "ours_ms": round(ours.median_ms, 4),
        "ours_spread": round(ours.spread, 3),
        "peer": peer,
        "peer_ms": round(peer_timing.median_ms, 4),
        "peer_spread": round(peer_timing.spread, 3),
        "ratio": round(peer_timing.median_ms / ours.median_ms, 2),
        "floor_ms": floor_ms,
        "peak_mb": peak_mb,
    }


def compare(
    *,
    op: str,
    case: str,
    dtype: torch.dtype,
    device: DeviceType,
    repeats: int,
    contenders: Mapping[str, Callable[[], Result]],
    check: Callable[[Result, Result, str], None],
    graphs: bool = False,
    floor_ms: float | None = None,
) -> list[Row]:
    """Compare the results of ``contenders["ours"]`` with each peer's, then time the two in turns.

    A peer that cannot run, such as a compiler that is missing, is left out, and the reason printed. What small inputs
    take on CUDA is mostly the host's time for its launches; replays of CUDA graphs show the device's.

    Args:
        op: the operator's name.
        case: the shape and what else tells this measurement from others.
        dtype: of the inputs.
        device: of the inputs.
        repeats: timed rounds.
        contenders: by name; each is called without arguments and returns its results.
        check: called with our results, a peer's, and words for an error; raises RuntimeError when they differ.
        graphs: on CUDA, time each pair once more as replays of CUDA graphs.
        floor_ms: what the operator takes at least (:class:`benchmarks._ceilings.Ceilings`).

    Returns:
        one row for each peer that ran, and with ``graphs`` a second one, whose case ends in ``in a CUDA graph``.
    """
    mine = contenders["ours"]
    ours = mine()
    rows = []
    for name, contender in contenders.items():
        if name == "ours":
            continue
        try:
            theirs = contender()
        except Exception as error:  # whatever a compiler raises
            reason = (str(error).splitlines() or [""])[0]
            print(f"without {name} at {op} {case}: {type(error).__name__}: {reason[:200]}", file=sys.stderr)
            continue
        check(ours, theirs, f"{op} {case}, {name}")
        # By pairs: with more in turn, each finds the caches, and the threads of two runtimes, as the others left them.
        pairs = {case: {"ours": mine, name: contender}}
        if graphs and device == "cuda" and name in (EAGER, COMPILED):  # others wait for the device
            try:
                pairs[f"{case} in a CUDA graph"] = {key: captured(step) for key, step in pairs[case].items()}
            except RuntimeError as error:
                print(f"without {name} at {op} {case} in a CUDA graph: {str(error)[:200]}", file=sys.stderr)
        for words, pair in pairs.items():
            timings = time_interleaved(pair, repeats, device=device)
            rows.append(
                result_row(
                    op=op,
                    case=words,
                    dtype=str(dtype).removeprefix("torch."),
                    device=device,
                    ours=timings["ours"],
                    peer=name,
                    peer_timing=timings[name],
                    floor_ms=floor_ms if floor_ms is None else round(floor_ms, 4),
                )
            )
    return rows


def print_table(rows: Sequence[Row]) -> None:
    """Print rows for people: medians in milliseconds, spread of the quartiles in per cent."""
    wide = max((len(r["case"]) for r in rows), default=0)
    ours, peer = f"{'ours ms':>10} {'+-%':>4}", f"{'peer':<22} {'peer ms':>10} {'+-%':>4}"
    print(f"{'operator':<20} {'case':<{wide}} {'dtype':<9} {ours}  {peer} {'ratio':>7}")
    for r in rows:
        print(
            f"{r['op']:<20} {r['case']:<{wide}} {r['dtype']:<9} {r['ours_ms']:>10.3f} {100 * r['ours_spread']:>4.0f}  "
            f"{r['peer']:<22} {r['peer_ms']:>10.3f} {100 * r['peer_spread']:>4.0f} {r['ratio']:>6.1f}x"
        )


def write_results(path: Path | str, rows: Sequence[Row]) -> None:
    """Write rows to a JSON list, replacing those of the same measurement and keeping the others.

    The file is replaced in one step: after an error it is as it was.
    """
    path = Path(path)
    kept: list[Row] = json.loads(path.read_text()) if path.exists() else []
    merged = {tuple(row[key] for key in ROW_KEY): row for row in [*kept, *rows]}
    ordered = sorted(merged.values(), key=lambda row: tuple(str(row[key]) for key in ROW_KEY))
    write_json(path, ordered)


def report(
    rows: Sequence[Row], out: Path, device: DeviceType, show: Callable[[Sequence[Row]], None] = print_table
) -> Path:
    """Print the rows and write them to ``out``: a file, or a folder that gets ``<device>.json``. Returns the file."""
    show(rows)
    path = out / file_name(device_name(device)) if out.is_dir() else out
    write_results(path, rows)
    return path


def run(
    description: str | None,
    measure: Callable[..., list[Row]],
    repeats: int,
    show: Callable[[Sequence[Row]], None] = print_table,
) -> None:
    """The command line of one benchmark: device, repeats, the results file, and where peers come from."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--out", type=Path, default=RESULTS, help="results file or folder; default: benchmarks/results")
    options = {}
    taken = inspect.signature(measure).parameters
    if "models" in taken:
        parser.add_argument("--models", help="pattern of the models' names")
    if "peers" in taken:
        parser.add_argument("--peers", type=Path, help="folder with the peers' files")
        parser.add_argument("--fetch-peers", action="store_true", help="get them from PyPI")
    args = parser.parse_args()
    if hasattr(args, "peers"):
        options = {"peers": args.peers, "fetch": args.fetch_peers}
    if hasattr(args, "models"):
        options["models"] = args.models
    report(measure(args.device, args.repeats, **options), args.out, args.device, show)
