"""Evaluation against a gallery that streams from a mapped file: on a GPU 10,000 queries against 10,000,000 rows of 256
columns (10 GB on disk), on the CPU 2,000 against 1,000,000, in each precision that the device has. The result of the
first queries is compared with that of the CPU in float64, computed from the same file.

python -m benchmarks.bench_streaming [--device cuda]

The files lie in a temporary folder (``TMPDIR``). `peak_mb` is the memory that torch had allocated at most on a GPU.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyreid.evaluation import EvaluationResult, evaluate

from ._timing import DeviceType, Row, result_row, run, time_interleaved

REPEATS = 3
SIZES: dict[DeviceType, tuple[int, int, int]] = {"cpu": (2000, 1_000_000, 256), "cuda": (10_000, 10_000_000, 256)}
IMAGES_PER_IDENTITY = 100
CAMERAS = 20
CHECKED = 20  # queries
_ROWS = 1 << 18  # of the file at a time


@dataclass(frozen=True, slots=True)
class Problem:
    """Queries in memory, the file of the gallery, and the labels of both."""

    query: np.ndarray
    gallery: Path
    labels: tuple[np.ndarray, ...]


def make_problem(folder: Path, num_query: int, num_gallery: int, dim: int) -> Problem:
    """Unit rows around a centre for each identity; identities are spread over the whole file."""
    rng = np.random.default_rng(0)
    identities = max(1, num_gallery // IMAGES_PER_IDENTITY)
    centres = rng.standard_normal((identities, dim), dtype=np.float32)

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        ids = rng.integers(0, identities, count)
        rows = centres[ids]
        rows += 2 * rng.standard_normal((count, dim), dtype=np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows, ids

    query, query_ids = draw(num_query)
    path, gallery_ids = folder / "gallery.npy", []
    file = np.lib.format.open_memmap(path, "w+", np.float32, (num_gallery, dim))
    for begin in range(0, num_gallery, _ROWS):
        rows, ids = draw(min(_ROWS, num_gallery - begin))
        file[begin : begin + len(rows)] = rows
        gallery_ids.append(ids)
    file.flush()
    cameras = [rng.integers(0, CAMERAS, count) for count in (num_query, num_gallery)]
    return Problem(query, path, (query_ids, np.concatenate(gallery_ids), *cameras))


def check(result: EvaluationResult, problem: Problem, words: str, *, exact: bool) -> None:
    """Raise unless the first queries have the average precision that float64 gives them on the CPU."""
    query_ids, gallery_ids, query_cams, gallery_cams = problem.labels
    some = slice(CHECKED)
    expected = evaluate(
        problem.query[some].astype(np.float64),
        problem.gallery,
        query_ids[some],
        gallery_ids,
        query_cams[some],
        gallery_cams,
    )
    differences = np.abs(result.average_precision[some] - expected.average_precision)
    print(f"{words}: average precision of {CHECKED} queries differs by {np.nanmax(differences):.1e} from float64's")
    if not np.nanmax(differences) <= (0 if exact else 1e-3):
        raise RuntimeError(f"{words}: average precision differs by {np.nanmax(differences)} from float64's")


def measure(device: DeviceType, repeats: int, *, size: tuple[int, int, int] | None = None) -> list[Row]:
    """A row for each precision, against the slowest.

    Args:
        device: where to compute.
        repeats: timed rounds.
        size: queries, gallery, columns; None: by the device.
    """
    shape = size or SIZES[device]
    case = "x".join(map(str, shape))
    precisions = ("fp32", "exact", "fast") if device == "cuda" else ("fp32",)
    with tempfile.TemporaryDirectory() as folder:
        problem = make_problem(Path(folder), *shape)

        def evaluated(precision: Any) -> EvaluationResult:
            return evaluate(problem.query, problem.gallery, *problem.labels, precision=precision, device=device)

        timings, peaks = {}, {}
        for precision in precisions:
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            check(evaluated(precision), problem, f"{case} {precision}", exact=precision == "exact")
            peaks[precision] = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else None
            timings |= time_interleaved(
                {precision: lambda precision=precision: evaluated(precision)}, repeats, warmup=0, device=device
            )
    return [
        result_row(
            op="evaluate from a mapped file",
            case=f"{case} {precision}",
            dtype="float32",
            device=device,
            ours=timings[precision],
            peer="fp32",
            peer_timing=timings["fp32"],
            peak_mb=None if (peak := peaks[precision]) is None else round(peak, 1),
        )
        for precision in precisions
    ]


if __name__ == "__main__":
    run(__doc__, measure, REPEATS)
