"""k-reciprocal re-ranking of problems of the sizes of Market-1501, MSMT17 and VeRi-Wild (large), from features to
re-ranked distances: against the published NumPy code (as torchreid ships it), fast-reid's with faiss, and the bare
product of all features with one another. All in one process, on the same input; the results are compared first.

python -m benchmarks.bench_rerank --fetch-peers  # gets the peers' files from PyPI
python -m benchmarks.bench_rerank --peers DIR    # takes them from a folder

The peers take a minute or more and up to 10 GB at the size of Market-1501, so each runs once, and not at the others.
There only the best are asked for, once. `peak_mb` is what they need beyond the features, sampled in a fresh process on
Linux.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyreid.retrieval import k_reciprocal

from ._memory import peak_anonymous_mb
from ._peers import ReRanker, load_re_rankers
from ._timing import DeviceType, Row, Timing, result_row, run, time_interleaved
from .bench_evaluate import GALLERY, LARGE, QUERIES, synthetic_features

DTYPE = "float32"
REPEATS = 3
TOPK = 100
PARAMETERS = (20, 6, 0.3)
SETUP = """
from benchmarks.bench_evaluate import synthetic_features
from benchmarks.bench_rerank import ours
q, g, d, identities, k = map(int, sys.argv[1:])
query, gallery, _ = synthetic_features(q, g, d, identities=identities)
ours(query[:64], gallery[:64], topk=4)
"""
# Sums of float32 weights and distances, of which fast-reid's are not normalised.
TOLERANCE = 1e-5
# Where two items are at nearly the same distance, rounding decides which is a neighbor, and then some thousand pairs
# differ by more than it. Another method differs in every pair that has a neighbor in common, which is some per cent.
DECIDED_BY_ROUNDING = 1e-3


def all_products(features: Tensor) -> None:
    """The products of all features with one another, in strips of one buffer: what an exact search has to do."""
    buffer = features.new_empty(min(1024, len(features)), len(features))
    for rows in features.split(len(buffer)):
        torch.mm(rows, features.t(), out=buffer[: len(rows)])


def ours(query: Tensor, gallery: Tensor, **options: Any) -> Any:
    k1, k2, lambda_value = PARAMETERS
    return k_reciprocal(query, gallery, k1=k1, k2=k2, lambda_value=lambda_value, **options)


def check_agreement(result: np.ndarray, peers: np.ndarray, name: str) -> None:
    """Raise unless the distances agree as far as rounding allows."""
    differences = np.abs(result - peers)
    outside = float((~(differences <= TOLERANCE)).mean())
    print(f"{name}: largest difference {differences.max():.1e}, {100 * outside:.4f} % of the pairs differ by more than "
          f"{TOLERANCE:g}")  # fmt: skip
    if not outside <= DECIDED_BY_ROUNDING:
        raise RuntimeError(f"{name} and k_reciprocal disagree in {100 * outside:.3f} % of the pairs")


def bench_peer(query: Tensor, gallery: Tensor, name: str, peer: ReRanker) -> tuple[Timing, Timing]:
    """Ours and the peer's time, once each, after their results have been compared."""
    compat = "fastreid" if "fast-reid" in name else "official"
    results: dict[str, np.ndarray] = {}

    def keep(key: str, function: Callable[[], np.ndarray]) -> Callable[[], object]:
        return lambda: results.update({key: function()})

    timings = time_interleaved(
        {
            "ours": keep("ours", lambda: ours(query, gallery, compat=compat)),
            "peer": keep("peer", lambda: peer(query, gallery, *PARAMETERS)),
        },
        repeats=1,
        warmup=0,
    )
    check_agreement(results["ours"], results["peer"], name)
    return timings["ours"], timings["peer"]


def bench_large(device: DeviceType, num_query: int, num_gallery: int, dim: int, identities: int) -> Row:
    """The best of a problem that is too large for the peers, once, against the bare product."""
    query, gallery, _ = synthetic_features(num_query, num_gallery, dim, identities=identities)
    query, gallery = query.to(device), gallery.to(device)
    joint, topk = torch.cat([query, gallery]), min(TOPK, num_gallery)
    contenders = {"ours": lambda: ours(query, gallery, topk=topk), "product": lambda: all_products(joint)}
    timings = time_interleaved(contenders, repeats=1, warmup=0, device=device)
    sizes = (num_query, num_gallery, dim, identities, topk)
    memory = None if device == "cuda" else peak_anonymous_mb(SETUP, "ours(query, gallery, topk=k)", *sizes)
    return result_row(
        op="k_reciprocal",
        case=f"{num_query}+{num_gallery}x{dim} topk={TOPK}",
        dtype=DTYPE,
        device=device,
        ours=timings["ours"],
        peer="bare N x N torch.mm",
        peer_timing=timings["product"],
        floor_ms=round(timings["product"].median_ms, 4),
        peak_mb=None if memory is None else round(memory, 1),
    )


def measure(
    device: DeviceType,
    repeats: int,
    *,
    num_query: int = QUERIES,
    num_gallery: int = GALLERY,
    dim: int = 2048,
    large: Sequence[tuple[int, int, int, int]] = LARGE,
    peers: Path | None = None,
    fetch: bool = False,
) -> list[Row]:
    """Rows for ``k_reciprocal`` against each peer that can be had, and against the bare product.

    Args:
        device: the peers run on the CPU and are left out with ``"cuda"``.
        repeats: timed rounds against the product; the peers run once.
        num_query: of the problem.
        num_gallery: of the problem.
        dim: columns of the features.
        large: the other problems: queries, gallery, columns, identities.
        peers: folder with the peers' files.
        fetch: get those that are missing from PyPI.
    """
    query, gallery, _ = synthetic_features(num_query, num_gallery, dim)
    query, gallery = query.to(device), gallery.to(device)
    joint = torch.cat([query, gallery])
    case = f"{num_query}+{num_gallery}x{dim}"
    contenders = {
        "ours": lambda: ours(query, gallery),
        "top": lambda: ours(query, gallery, topk=min(TOPK, num_gallery)),
        "product": lambda: all_products(joint),
    }
    timings = time_interleaved(contenders, repeats=repeats, warmup=1, device=device)
    floor = round(timings["product"].median_ms, 4)

    def row(case: str, our_time: Timing, peer: str, peer_time: Timing) -> Row:
        return result_row(
            op="k_reciprocal",
            case=case,
            dtype=DTYPE,
            device=device,
            ours=our_time,
            peer=peer,
            peer_timing=peer_time,
            floor_ms=floor,
        )

    rows = [
        row(case, timings["ours"], "bare N x N torch.mm", timings["product"]),
        row(f"{case} topk={TOPK}", timings["top"], "bare N x N torch.mm", timings["product"]),
    ]
    rows += [bench_large(device, *sizes) for sizes in large]
    if device == "cuda":
        return rows
    with tempfile.TemporaryDirectory() as temporary:
        for name, peer in load_re_rankers(peers or Path(temporary), fetch=fetch).items():
            our_time, peer_time = bench_peer(query, gallery, name, peer)
            rows.append(row(case, our_time, name, peer_time))
    return rows


if __name__ == "__main__":
    run(__doc__, measure, REPEATS)
