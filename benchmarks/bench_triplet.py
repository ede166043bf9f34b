"""Batch-hard and batch-soft triplet losses, forward and backward, against plain PyTorch in eager mode.

python -m benchmarks.bench_triplet                      # on the CPU, prints a table
python -m benchmarks.bench_triplet --device cuda --out benchmarks/results/h200.json
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pyreid import ops

from ._timing import DeviceType, Row, result_row, run, time_interleaved

CASES = ((72, 2048), (256, 2048), (1024, 512))
INSTANCES = 4  # images of each identity in a batch
REPEATS = 100
PEER = "torch eager"


def eager_distances(x: Tensor) -> Tensor:
    """The matrix of distances as most re-identification code bases write it."""
    norms = x.square().sum(1, keepdim=True)
    return (norms + norms.T - 2 * x @ x.T).clamp(min=1e-12).sqrt()


def eager_masks(labels: Tensor) -> tuple[Tensor, Tensor]:
    same = labels[:, None] == labels[None, :]
    return same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device), ~same


def eager_hard(x: Tensor, labels: Tensor) -> Tensor:
    distances = eager_distances(x)
    positives, negatives = eager_masks(labels)
    farthest = distances.masked_fill(~positives, -torch.inf).max(1).values
    nearest = distances.masked_fill(~negatives, torch.inf).min(1).values
    return F.relu(farthest - nearest + 0.3).mean()


def eager_soft(x: Tensor, labels: Tensor) -> Tensor:
    distances = eager_distances(x)
    positives, negatives = eager_masks(labels)
    positive_weights = distances.masked_fill(~positives, -torch.inf).softmax(1)
    negative_weights = (-distances).masked_fill(~negatives, -torch.inf).softmax(1)
    return F.softplus((positive_weights * distances - negative_weights * distances).sum(1)).mean()


# operator: ours, and the same loss in plain PyTorch
OPERATORS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "batch_hard_triplet": (ops.batch_hard_triplet, eager_hard),
    "batch_soft_triplet": (ops.batch_soft_triplet, eager_soft),
}


def make_batch(b: int, d: int, device: DeviceType) -> tuple[Tensor, Tensor]:
    """Embeddings in clusters, one for each identity, that overlap so that the loss of most anchors is not 0."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(b) // INSTANCES
    centres = torch.randn(b // INSTANCES, d, generator=generator)
    x = 0.3 * centres[labels] + torch.randn(b, d, generator=generator)
    return x.to(device), labels.to(device)


def step(loss: Callable[[Tensor, Tensor], Tensor], x: Tensor, labels: Tensor) -> Callable[[], tuple[Tensor, Tensor]]:
    """One forward and backward pass, as a function without arguments that returns the loss and the gradient."""
    leaf = x.clone().requires_grad_()

    def run() -> tuple[Tensor, Tensor]:
        value = loss(leaf, labels)
        (grad,) = torch.autograd.grad(value, leaf)
        return value.detach(), grad

    return run


def check_agreement(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor], case: str) -> None:
    """Raise unless losses and gradients agree as far as the peer's distances by inner products allow."""
    for name, a, b in zip(("loss", "gradient"), ours, theirs, strict=True):
        error = (a - b).abs().max().item()
        allowed = 1e-3 * b.abs().max().item()
        if not error <= allowed:
            raise RuntimeError(f"{case}: the {name} differs from the peer's by {error:.3g}, allowed {allowed:.3g}")


def measure(device: DeviceType, repeats: int) -> list[Row]:
    rows = []
    for op, (ours, theirs) in OPERATORS.items():
        for b, d in CASES:
            x, labels = make_batch(b, d, device)
            contenders = {"ours": step(ours, x, labels), PEER: step(theirs, x, labels)}
            case = f"{b}x{d} fwd+bwd"
            check_agreement(contenders["ours"](), contenders[PEER](), f"{op} {case}")
            timings = time_interleaved(contenders, repeats, device=device)
            rows.append(
                result_row(
                    op=op,
                    case=case,
                    dtype="float32",
                    device=device,
                    ours=timings["ours"],
                    peer=PEER,
                    peer_timing=timings[PEER],
                )
            )
    return rows


if __name__ == "__main__":
    run(__doc__, measure, REPEATS)
