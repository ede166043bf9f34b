"""k-reciprocal re-ranking from a neighbor graph of faiss, the way to tens of millions of items on the CPU, against
re-ranking from the exact lists. The graph's time and measured recall are printed, and how many of the best results are
those of the exact lists where these are made.

python -m benchmarks.bench_graph

For another size and index, such as a million items without the exact lists:

    from benchmarks import bench_graph, _timing
    million = {"size": (10_000, 990_000, 256), "index": "IVF4096,Flat", "parameters": "nprobe=32"}
    _timing.print_table(bench_graph.measure("cpu", 1, exact=False, **million))

`peak_mb` is the memory beyond the features, sampled in a fresh process on Linux, in which everything runs once more.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from torch import Tensor

from pyreid.retrieval import NeighborGraph, k_reciprocal

from ._memory import peak_anonymous_mb
from ._timing import DeviceType, Row, Timing, result_row, run
from .bench_evaluate import synthetic_features

REPEATS = 1
SIZE = (2000, 28_000, 256)
IMAGES_PER_IDENTITY = 25
INDEX = "PQ"
K1, TOPK = 20, 50

SETUP = """
from benchmarks.bench_graph import from_faiss, problem
query, gallery = problem(*map(int, sys.argv[3:]))
index, parameters = sys.argv[1], sys.argv[2] or None
"""


def problem(num_query: int, num_gallery: int, dim: int) -> tuple[Tensor, Tensor]:
    """Features as of :func:`benchmarks.bench_evaluate.synthetic_features`, of 25 images an identity."""
    identities = max(1, (num_query + num_gallery) // IMAGES_PER_IDENTITY)
    query, gallery, _ = synthetic_features(num_query, num_gallery, dim, identities=identities)
    return query, gallery


def from_faiss(query: Tensor, gallery: Tensor, index: str, parameters: str | None) -> tuple[Any, NeighborGraph]:
    graph = NeighborGraph.faiss(query, gallery, K1 + 1, index=index, parameters=parameters)
    return k_reciprocal(query, gallery, k1=K1, topk=TOPK, graph=graph), graph


def measure(
    device: DeviceType,
    repeats: int,
    *,
    size: tuple[int, int, int] = SIZE,
    index: str = INDEX,
    parameters: str | None = None,
    exact: bool = True,
    memory: bool = True,
) -> list[Row]:
    """Two rows: re-ranking from the graph against the graph's own time and, with ``exact``, against exact lists.

    Args:
        device: faiss's graphs are made on the CPU; with ``"cuda"`` there are no rows.
        repeats: timed rounds; the medians count.
        size: queries, gallery, columns.
        index: of faiss, as for :meth:`pyreid.retrieval.NeighborGraph.faiss`.
        parameters: of its search, likewise.
        exact: also re-rank from the exact lists.
        memory: sample the memory, for which everything runs once more.
    """
    if device == "cuda":
        return []
    query, gallery = problem(*size)
    whole, making, exactly = [], [], []
    agreement = ""
    for _ in range(repeats):
        start = time.perf_counter()
        graph = NeighborGraph.faiss(query, gallery, K1 + 1, index=index, parameters=parameters)
        made = time.perf_counter()
        _, found = k_reciprocal(query, gallery, k1=K1, topk=TOPK, graph=graph)
        end = time.perf_counter()
        making.append((made - start) * 1e3)
        whole.append((end - start) * 1e3)
        if exact:
            start = time.perf_counter()
            _, expected = k_reciprocal(query, gallery, k1=K1, topk=TOPK)
            exactly.append((time.perf_counter() - start) * 1e3)
            agreement = f"; {_shared(found, expected):.4f} of the best {TOPK} are those of the exact lists"
    print(f"{graph}{agreement}")
    call = "from_faiss(query, gallery, index, parameters)"
    peak = peak_anonymous_mb(SETUP, call, index, parameters or "", *size) if memory else None
    name = " ".join(filter(None, ("faiss", index, parameters)))
    peers = {f"{name} alone": making} | ({"exact lists": exactly} if exact else {})
    return [
        result_row(
            op="k_reciprocal graph",
            case=f"{size[0]}+{size[1]}x{size[2]} topk={TOPK}",
            dtype="float32",
            device=device,
            ours=Timing(tuple(whole)),
            peer=name,
            peer_timing=Timing(tuple(times)),
            peak_mb=None if peak is None else round(peak, 1),
        )
        for name, times in peers.items()
    ]


def _shared(found: np.ndarray, expected: np.ndarray) -> float:
    """Mean part of the expected items of a query that were found."""
    both = [len(np.intersect1d(a, b)) for a, b in zip(found, expected, strict=True)]
    return float(np.mean(both)) / expected.shape[1]


if __name__ == "__main__":
    run(__doc__, measure, REPEATS)
