"""Evaluation of problems of the sizes of Market-1501, MSMT17 and VeRi-Wild (large): from features against the bare
matrix product and, from a given distance matrix, against fast-reid's Cython and torchreid's Python function. All in one
process, on the same input.

python -m benchmarks.bench_evaluate --fetch-peers  # gets the peers' files from PyPI
python -m benchmarks.bench_evaluate --peers DIR    # takes them from a folder

The peers sort a matrix at once and need 28 bytes for each of its elements: 27 GB at the size of MSMT17, 36 GB at that
of VeRi-Wild. There fast-reid gets the matrix in parts that fit, and its time is that of its function alone;
torchreid's, which takes more than half a minute for Market-1501, is left out. `peak_mb` is what `evaluate` needs beyond
the features, sampled in a fresh process on Linux.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyreid.evaluation import evaluate, evaluate_rank

from ._memory import peak_anonymous_mb
from ._peers import CYTHON, Evaluator, load_peers
from ._timing import DeviceType, Row, Timing, result_row, run, time_interleaved

QUERIES, GALLERY, IDENTITIES, CAMERAS, DISTRACTORS = 3368, 15913, 751, 6, 0.15
# (queries, gallery, columns, identities): MSMT17 and VeRi-Wild (large)
LARGE = ((11659, 82161, 2048, 3060), (10000, 128517, 512, 10000))
PART = 500  # queries whose distances a peer gets at a time
DTYPE = "float32"
REPEATS = 7
# The peers sum in float32 and sort without a rule for ties.
TOLERANCE = 1e-5


def synthetic_features(
    num_query: int, num_gallery: int, dim: int, *, identities: int = IDENTITIES
) -> tuple[Tensor, Tensor, tuple[np.ndarray, ...]]:
    """Unit features around a centre for each identity, shifted by each camera, with noise of varying strength.

    Returns:
        query (Q, D), gallery (G, D) and (query ids, gallery ids, query cameras, gallery cameras). Distractors, which
        belong to none of the queries, have identity 0.
    """
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((identities + 1, dim), dtype=np.float32)
    centres[0] = 0
    shifts = 0.6 * rng.standard_normal((CAMERAS, dim), dtype=np.float32)

    def draw(count: int, distractors: float) -> tuple[Tensor, np.ndarray, np.ndarray]:
        ids, cams = rng.integers(1, identities + 1, count), rng.integers(0, CAMERAS, count)
        ids[rng.random(count) < distractors] = 0
        strength = 1.6 + 1.3 * (0.5 + 2 * rng.random((count, 1), dtype=np.float32))
        features = centres[ids] + shifts[cams] + strength * rng.standard_normal((count, dim), dtype=np.float32)
        return torch.from_numpy(features / np.linalg.norm(features, axis=1, keepdims=True)), ids, cams

    query, q_ids, q_cams = draw(num_query, 0)
    gallery, g_ids, g_cams = draw(num_gallery, DISTRACTORS)
    return query, gallery, (q_ids, g_ids, q_cams, g_cams)


SETUP = """
from pyreid.evaluation import evaluate
from benchmarks.bench_evaluate import synthetic_features
q, g, d, identities = map(int, sys.argv[1:])
query, gallery, labels = synthetic_features(q, g, d, identities=identities)
evaluate(query[:64], gallery[:64], *(part[:64] for part in labels))
"""


def bare_product(query: Tensor, gallery: Tensor) -> None:
    """All products, as high at a time as a matrix of 512 MiB allows."""
    rows = max(1, 2**27 // len(gallery))
    for part in query.split(rows):
        torch.mm(part, gallery.t())


def bench_features(
    query: Tensor, gallery: Tensor, labels: tuple[np.ndarray, ...], device: DeviceType, repeats: int, identities: int
) -> Row:
    """``evaluate`` against the matrix product that any exact evaluation has to do."""
    timings = time_interleaved(
        {"ours": lambda: evaluate(query, gallery, *labels), "mm": lambda: bare_product(query, gallery)},
        repeats=repeats,
        warmup=1,
        device=device,
    )
    size = len(query), len(gallery), query.shape[1]
    memory = (
        None if device == "cuda" else peak_anonymous_mb(SETUP, "evaluate(query, gallery, *labels)", *size, identities)
    )
    return result_row(
        op="evaluate",
        case="x".join(map(str, size)),
        dtype=DTYPE,
        device=device,
        ours=timings["ours"],
        peer="bare torch.mm",
        peer_timing=timings["mm"],
        floor_ms=round(timings["mm"].median_ms, 4),
        peak_mb=None if memory is None else round(memory, 1),
    )


def bench_large(query: Tensor, gallery: Tensor, labels: tuple[np.ndarray, ...], peer: Evaluator, name: str) -> Row:
    """``evaluate`` from features, once, against the peer's function on the distances, by parts."""
    q_ids, g_ids, q_cams, g_cams = labels
    ours, peers, seconds, scored = evaluate(query, gallery, *labels), [], 0.0, []
    for begin in range(0, len(query), PART):
        rows = slice(begin, begin + PART)
        distances = (2 - 2 * (query[rows] @ gallery.t())).numpy()
        start = time.perf_counter()
        peers.append(peer(distances, q_ids[rows], g_ids, q_cams[rows], g_cams, 50))
        seconds += time.perf_counter() - start
        scored.append(int((ours.first_match_rank[rows] >= 0).sum()))  # a part's mean is over its scored queries
    mean = np.average([ap for _, ap in peers], weights=scored)
    curve = np.average([cmc for cmc, _ in peers], weights=scored, axis=0)
    check_agreement((ours.cmc, ours.map), (curve, float(mean)), name)
    timing = time_interleaved({"ours": lambda: evaluate(query, gallery, *labels)}, repeats=1, warmup=0)["ours"]
    return result_row(
        op="evaluate",
        case=f"{len(query)}x{len(gallery)}x{query.shape[1]}",
        dtype=DTYPE,
        device="cpu",
        ours=timing,
        peer=f"{name}, its function alone",
        peer_timing=Timing((seconds * 1e3,)),
    )


def check_agreement(ours: tuple[np.ndarray, float], theirs: tuple[np.ndarray, float], peer: str) -> None:
    """Raise unless mAP and CMC agree as far as the peer's arithmetic allows."""
    differences = {"mAP": abs(ours[1] - theirs[1]), "CMC": float(np.abs(ours[0] - theirs[0]).max())}
    print(f"{peer}: " + ", ".join(f"{name} differs by {value:.1e}" for name, value in differences.items()))
    if not max(differences.values()) <= TOLERANCE:
        raise RuntimeError(f"{peer} and evaluate_rank disagree: {differences}")


def bench_matrix(
    distances: np.ndarray, labels: tuple[np.ndarray, ...], peers: dict[str, Evaluator], repeats: int
) -> list[Row]:
    """``evaluate_rank`` against the peers on one matrix. A peer in plain Python takes about a minute and runs once."""
    arguments: tuple[Any, ...] = (distances, *labels, 50)
    ours = evaluate_rank(*arguments)
    matrix = torch.from_numpy(distances)
    floor = time_interleaved({"read": lambda: matrix.sum()}, repeats=repeats, warmup=1)["read"]
    rows = []
    for name, peer in peers.items():
        results: list[tuple[np.ndarray, float]] = []

        def run(peer: Evaluator = peer, results: list[tuple[np.ndarray, float]] = results) -> None:
            results[:] = [peer(*arguments)]

        once = "Python" in name
        timings = time_interleaved(
            {"ours": lambda: evaluate_rank(*arguments), "peer": run},
            repeats=1 if once else repeats,
            warmup=0 if once else 1,
        )
        check_agreement(ours, results[0], name)
        rows.append(
            result_row(
                op="evaluate_rank",
                case=f"{distances.shape[0]}x{distances.shape[1]}",
                dtype=DTYPE,
                device="cpu",
                ours=timings["ours"],
                peer=name,
                peer_timing=timings["peer"],
                floor_ms=round(floor.median_ms, 4),
            )
        )
    return rows


def measure(
    device: DeviceType,
    repeats: int,
    *,
    dim: int = 2048,
    large: Sequence[tuple[int, int, int, int]] = LARGE,
    peers: Path | None = None,
    fetch: bool = False,
) -> list[Row]:
    """Rows for ``evaluate`` and, for each peer that can be had, ``evaluate_rank``.

    Args:
        device: of the features; the peers, and what they are compared with, run on the CPU.
        repeats: timed rounds; a peer in plain Python takes about a minute and runs once.
        dim: columns of the features of the smallest problem.
        large: the other problems: queries, gallery, columns, identities.
        peers: folder with the peers' files.
        fetch: get those that are missing from PyPI.
    """
    query, gallery, labels = synthetic_features(QUERIES, GALLERY, dim)
    rows = [bench_features(query.to(device), gallery.to(device), labels, device, repeats, IDENTITIES)]
    with tempfile.TemporaryDirectory() as temporary:
        found = load_peers(peers or Path(temporary), fetch=fetch)
        if found:
            distances = (2 - 2 * (query @ gallery.t())).numpy()
            rows += bench_matrix(distances, labels, found, repeats)
        for num_query, num_gallery, columns, identities in large:
            query, gallery, labels = synthetic_features(num_query, num_gallery, columns, identities=identities)
            rows.append(
                bench_features(query.to(device), gallery.to(device), labels, device, min(repeats, 3), identities)
            )
            if CYTHON in found and device == "cpu":
                rows.append(bench_large(query, gallery, labels, found[CYTHON], CYTHON))
    return rows


if __name__ == "__main__":
    run(__doc__, measure, REPEATS)
