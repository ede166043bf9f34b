"""Batch-hard and batch-soft triplet losses, forward and backward, against plain PyTorch, eager and compiled, and
against pytorch-metric-learning where it is installed.

python -m benchmarks.bench_triplet                      # on the CPU, prints a table
python -m benchmarks.bench_triplet --device cuda --out benchmarks/results/h200.json
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pyreid import ops

from ._ceilings import Work, ceilings
from ._timing import COMPILED, EAGER, DeviceType, Row, compare, run

CASES = ((72, 2048), (256, 2048), (1024, 512))
INSTANCES = 4  # images of each identity in a batch
REPEATS = 100
Loss = Callable[[Tensor, Tensor], Tensor]


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
OPERATORS: dict[str, tuple[Loss, Loss]] = {
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


def metric_learning_hard() -> Loss:
    """The batch-hard loss as pytorch-metric-learning composes it: a miner and the margin loss of its triplets."""
    from pytorch_metric_learning import distances, losses, miners, reducers

    distance = distances.LpDistance(normalize_embeddings=False)
    mine = miners.BatchHardMiner(distance=distance)
    loss = losses.TripletMarginLoss(margin=0.3, distance=distance, reducer=reducers.MeanReducer())
    return lambda x, labels: loss(x, labels, mine(x, labels))


def load_peers(op: str, eager: Loss) -> dict[str, Loss]:
    """The peers of an operator, by name; prints why one is missing."""
    peers = {EAGER: eager, COMPILED: torch.compile(eager, dynamic=False)}
    if op == "batch_hard_triplet":  # it has no batch-soft loss
        try:
            peers["metric-learning"] = metric_learning_hard()
        except ImportError:
            print("without metric-learning: pip install pytorch-metric-learning", file=sys.stderr)
    return peers


def step(loss: Loss, x: Tensor, labels: Tensor) -> Callable[[], tuple[Tensor, Tensor]]:
    """One forward and backward pass, as a function without arguments that returns the loss and the gradient."""
    leaf = x.clone().requires_grad_()

    def run() -> tuple[Tensor, Tensor]:
        value = loss(leaf, labels)
        (grad,) = torch.autograd.grad(value, leaf)
        return value.detach(), grad

    return run


def check_agreement(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor], words: str) -> None:
    """Raise unless losses and gradients agree as far as the peer's distances by inner products allow."""
    for name, a, b in zip(("loss", "gradient"), ours, theirs, strict=True):
        error = (a - b).abs().max().item()
        allowed = 1e-3 * b.abs().max().item()
        if not error <= allowed:
            raise RuntimeError(f"{words}: the {name} differs by {error:.3g}, allowed {allowed:.3g}")


def work(op: str, b: int, d: int) -> Work:
    """Rows read in both directions and their gradients written; the products of all pairs, of which half would do, and
    for batch-soft the product of the weights of all pairs with the rows."""
    products = b * b * d
    return Work(bytes=3 * 4 * b * d, flops=products + (2 * products if "soft" in op else 0))


def measure(device: DeviceType, repeats: int) -> list[Row]:
    rows = []
    for op, (ours, eager) in OPERATORS.items():
        for b, d in CASES:
            torch._dynamo.reset()
            x, labels = make_batch(b, d, device)
            losses = {"ours": ours, **load_peers(op, eager)}
            rows += compare(
                op=op,
                case=f"{b}x{d} fwd+bwd",
                dtype=torch.float32,
                device=device,
                repeats=repeats,
                contenders={name: step(loss, x, labels) for name, loss in losses.items()},
                check=check_agreement,
                graphs=True,
                floor_ms=ceilings(device).floor_ms(work(op, b, d)),
            )
    return rows


if __name__ == "__main__":
    run(__doc__, measure, REPEATS)
