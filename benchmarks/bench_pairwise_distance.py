"""pairwise_distance against torch.cdist and a plain matrix product, forward plus backward, in one process.

python -m benchmarks.bench_pairwise_distance [--device cuda] [--out FILE]
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pyreid import ops

from ._ceilings import Work, ceilings
from ._timing import EAGER, DeviceType, Row, result_row, run, time_interleaved

REPEATS = 20
CASES = [(72, 72, 2048), (256, 256, 2048), (1024, 1024, 512), (2048, 4096, 256)]
# float32 products of D terms of size 1, and the cancellation that the peers do not guard against
TOLERANCE = 1e-3


def plain(x: Tensor, y: Tensor) -> Tensor:
    """What re-ID code bases write: norms, a product, a clamp and a root."""
    squared = x.square().sum(1, keepdim=True) + y.square().sum(1) - 2 * (x @ y.T)
    return squared.clamp(min=1e-12).sqrt()


def step(function: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Callable[[], tuple[Tensor, ...]]:
    return lambda: torch.autograd.grad(function(x, y).sum(), (x, y))


def work(n: int, m: int, d: int) -> Work:
    """Rows, distances and gradients, and three products."""
    return Work(bytes=4 * (3 * (n + m) * d + 2 * n * m), flops=6 * n * m * d)


def measure(device: DeviceType, repeats: int) -> list[Row]:
    rows: list[Row] = []
    for n, m, d in CASES:
        torch.manual_seed(0)
        x = torch.randn(n, d, device=device, requires_grad=True)
        y = torch.randn(m, d, device=device, requires_grad=True)
        peers = {"torch.cdist": torch.cdist, EAGER: plain}
        for name, peer in peers.items():
            difference = (ops.pairwise_distance(x, y) - peer(x, y)).abs().max().item()
            if not difference <= TOLERANCE:
                raise RuntimeError(f"{name} and pairwise_distance disagree by {difference} at {n} x {m} x {d}")
        timings = time_interleaved(
            {"ours": step(ops.pairwise_distance, x, y)} | {k: step(f, x, y) for k, f in peers.items()},
            repeats=repeats,
            device=device,
        )
        rows += [
            result_row(
                op="pairwise_distance",
                case=f"{n}x{m}x{d}",
                dtype="float32",
                device=device,
                ours=timings["ours"],
                peer=name,
                peer_timing=timings[name],
                floor_ms=round(ceilings(device).floor_ms(work(n, m, d)), 4),
            )
            for name in peers
        ]
    return rows


if __name__ == "__main__":
    run(__doc__, measure, REPEATS)
