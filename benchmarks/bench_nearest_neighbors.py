"""nearest_neighbors against faiss (when it is installed), torch.cdist + topk and a bare matrix product, in one process.

python -m benchmarks.bench_nearest_neighbors [--device cuda] [--out FILE]

On the CPU `pip install faiss-cpu` brings the peer; it has a BLAS of its own, torch has another, so a part of the
difference is theirs. `peak_mb` is the memory that a search needs beyond its inputs and its result, measured in a fresh
process on Linux.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from pyreid import ops

from ._timing import DeviceType, Row, result_row, run, time_interleaved

REPEATS = 7
CASES = [(2000, 20000, 512, 50), (1000, 100000, 256, 100), (3368, 15913, 2048, 100), (2000, 20000, 512, 1)]
CASES += [(2000, 20000, 512, 2048)]
# float32 products of D terms of size 1; distances are about sqrt(2 D)
TOLERANCE = 1e-3

Search = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]


def cdist_topk(query: Tensor, gallery: Tensor, k: int) -> tuple[Tensor, Tensor]:
    distances, indices = torch.cdist(query, gallery).topk(k, largest=False)
    return distances, indices


def faiss_knn() -> Search | None:
    """faiss.knn on the CPU with as many threads as torch, or None."""
    try:
        import faiss
    except ImportError:
        faiss = None
    if not hasattr(faiss, "knn"):  # also a folder of that name
        print("without faiss: pip install faiss-cpu", file=sys.stderr)
        return None
    faiss.omp_set_num_threads(torch.get_num_threads())

    def search(query: Tensor, gallery: Tensor, k: int) -> tuple[Tensor, Tensor]:
        squared, indices = faiss.knn(query.numpy(), gallery.numpy(), k)
        return torch.from_numpy(squared).clamp(min=0).sqrt(), torch.from_numpy(indices)

    return search


def check_agreement(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor], peer: str) -> None:
    """Raise unless the distances agree, and the neighbors but for ties within rounding."""
    difference = (ours[0] - theirs[0]).abs().max().item()
    same = (ours[1].sort(1).values == theirs[1].sort(1).values).double().mean().item()
    print(f"{peer}: distances differ by {difference:.1e} at most, {same:.4%} of the neighbors are the same")
    if not difference <= TOLERANCE or not same > 0.99:
        raise RuntimeError(f"{peer} and nearest_neighbors disagree")


MEMORY = """
import re, sys
from pathlib import Path
import torch
from pyreid import ops
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
q, g, d, k, threads = map(int, sys.argv[1:])
torch.set_num_threads(threads)
query, gallery = torch.rand(q, d), torch.rand(g, d)
ops.nearest_neighbors(query[:64], gallery[: max(k, 64)], k)
before = peak()
result = ops.nearest_neighbors(query, gallery, k)
print(peak() - before - sum(x.nbytes for x in result) / 2**20)
"""


def peak_mb(case: tuple[int, ...], device: DeviceType) -> float | None:
    """Memory that a search takes beyond its inputs and its result, in MiB."""
    if device == "cuda":
        q, g, d, k = case
        query, gallery = torch.rand(q, d, device=device), torch.rand(g, d, device=device)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = ops.nearest_neighbors(query, gallery, k)
        extra = torch.cuda.max_memory_allocated() - before - sum(x.nbytes for x in result)
        return round(extra / 2**20, 1)
    if sys.platform != "linux":
        return None
    arguments = [str(n) for n in (*case, torch.get_num_threads())]
    command = [sys.executable, "-c", MEMORY, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    return round(max(0.0, float(done.stdout)), 1)


def bench(case: tuple[int, ...], peers: dict[str, Search], device: DeviceType, repeats: int) -> list[Row]:
    q, g, d, k = case
    torch.manual_seed(0)
    query, gallery = torch.randn(q, d, device=device), torch.randn(g, d, device=device)
    ours = ops.nearest_neighbors(query, gallery, k)
    for name, peer in peers.items():
        check_agreement(ours, peer(query, gallery, k), name)
    functions: dict[str, Callable[[], object]] = {"ours": lambda: ops.nearest_neighbors(query, gallery, k)}
    functions |= {name: partial(peer, query, gallery, k) for name, peer in peers.items()}
    functions["bare torch.mm"] = lambda: torch.mm(query, gallery.t())
    timings = time_interleaved(functions, repeats=repeats, warmup=1, device=device)
    memory = peak_mb(case, device)
    return [
        result_row(
            op="nearest_neighbors",
            case=f"{q}x{g}x{d} k={k}",
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
    peers: dict[str, Search] = {"torch.cdist + topk": cdist_topk}
    faiss = faiss_knn() if device == "cpu" else None
    if faiss is not None:
        peers["faiss.knn"] = faiss
    return [row for case in CASES for row in bench(case, peers, device, repeats)]


if __name__ == "__main__":
    run(__doc__, measure, REPEATS)
