"""pyreid.search in a gallery that lies in a mapped .npy file, against faiss (when it is installed), torch.cdist + topk
by parts, and the bare products, in one process. Sizes of Market-1501 and VeRi-Wild (large), and a long, narrow one.

python -m benchmarks.bench_search [--device cuda] [--out FILE]

On the CPU `pip install faiss-cpu` brings the peer. `peak_mb` is the anonymous memory that a search needs beyond its
queries and its result, sampled in a fresh process on Linux: the pages of the mapped file are the system's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import pyreid

from ._memory import peak_anonymous_mb
from ._timing import DeviceType, Row, result_row, run, time_interleaved
from .bench_nearest_neighbors import Search, cdist_topk, check_agreement, faiss_knn

REPEATS = 3
CASES = [(3368, 15913, 2048, 100), (10000, 128517, 512, 100), (1000, 500000, 128, 50)]
_PART = 512  # queries whose distances to the whole gallery the peer holds at a time


def by_parts(query: Tensor, gallery: Tensor, k: int) -> tuple[Tensor, Tensor]:
    found = [cdist_topk(part, gallery, k) for part in query.split(_PART)]
    return torch.cat([distances for distances, _ in found]), torch.cat([indices for _, indices in found])


def bare_products(query: Tensor, gallery: Tensor) -> None:
    for part in query.split(_PART):
        torch.mm(part, gallery.t())


SETUP = """
import numpy as np, pyreid
file, (q, k) = sys.argv[1], map(int, sys.argv[2:])
gallery = np.load(file, mmap_mode="r")
query = np.random.default_rng(0).standard_normal((q, gallery.shape[1]), dtype=np.float32)
pyreid.search(query[:64], gallery[: max(k, 64)], k)
"""


def peak_mb(file: Path, queries: int, k: int, device: DeviceType) -> float | None:
    """Anonymous memory that a search takes beyond its queries and its result, in MiB."""
    memory = (
        None if device == "cuda" else peak_anonymous_mb(SETUP, "pyreid.search(query, gallery, k)", file, queries, k)
    )
    return None if memory is None else round(max(0.0, memory - queries * k * 12 / 2**20), 1)


def bench(
    case: tuple[int, int, int, int], peers: dict[str, Search], folder: Path, device: DeviceType, repeats: int
) -> list[Row]:
    q, g, d, k = case
    rng = np.random.default_rng(0)
    file = folder / "gallery.npy"
    np.save(file, rng.standard_normal((g, d), dtype=np.float32))
    query = torch.from_numpy(rng.standard_normal((q, d), dtype=np.float32)).to(device)
    mapped = torch.from_numpy(np.load(file, mmap_mode="c"))
    resident = mapped.to(device)  # on the CPU the peers read the same mapped pages

    def ours() -> tuple[Tensor, Tensor]:
        distances, indices = pyreid.search(query, file, k, device=device, return_torch=True)
        return distances, indices

    found = ours()
    for name, peer in peers.items():
        distances, indices = peer(query, resident, k)
        check_agreement(found, (distances.cpu(), indices.cpu()), name)
    functions: dict[str, Callable[[], object]] = {"ours": ours}
    functions |= {name: partial(peer, query, resident, k) for name, peer in peers.items()}
    functions["bare torch.mm"] = lambda: bare_products(query, resident)
    timings = time_interleaved(functions, repeats=repeats, warmup=1, device=device)
    memory = peak_mb(file, q, k, device)
    return [
        result_row(
            op="search",
            case=f"{q}x{g}x{d} k={k} mapped",
            dtype="float32",
            device=device,
            ours=timings["ours"],
            peer=name,
            peer_timing=timings[name],
            floor_ms=round(timings["bare torch.mm"].median_ms, 4),
            peak_mb=memory,
        )
        for name in (*peers, "bare torch.mm")
    ]


def measure(device: DeviceType, repeats: int) -> list[Row]:
    peers: dict[str, Search] = {"torch.cdist + topk": by_parts}
    faiss = faiss_knn() if device == "cpu" else None
    if faiss is not None:
        peers["faiss.knn"] = faiss
    rows = []
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            rows += bench(case, peers, Path(folder), device, repeats)
    return rows


if __name__ == "__main__":
    run(__doc__, measure, REPEATS)
