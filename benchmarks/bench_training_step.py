"""Whole training steps with pyreid's operators against the same network and losses on plain PyTorch operators
(:mod:`pyreid.ops.reference`), eager and compiled: forward, losses, backward, optimiser.

python -m benchmarks.bench_training_step                 # small cases on the CPU, prints a table
python -m benchmarks.bench_training_step --device cuda   # SAFR-Large, 72 x 350 x 350; Compact-ReID 2x, 32 x 160 x 64

The first losses of both are compared. `peak_mb` is the memory that torch had allocated at most on a GPU in one of our
steps, and in rows whose operator ends in "peak memory" the numbers are MiB in place of milliseconds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional

from pyreid import create_model, ops
from pyreid.errors import MissingDependencyError
from pyreid.ops import reference

from ._timing import COMPILED, EAGER, DeviceType, Row, Timing, result_row, run, time_interleaved

REPEATS = 10
WARMUP = 3
CLASSES = 576
OPERATORS = ("batch_hard_triplet", "batch_soft_triplet", "gem_pool", "masked_mix", "pairwise_distance", "spatial_gate")
# Another order of additions through some hundred layers with batch norm
TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}


@dataclass(frozen=True, slots=True)
class Case:
    """A model, the identities and images of each in a batch, and the size of the images."""

    model: str
    ids: int
    images: int
    size: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.model} {self.ids * self.images}x3x{self.size[0]}x{self.size[1]}"


CASES: dict[DeviceType, tuple[Case, ...]] = {
    "cpu": (Case("safr_large", 2, 2, (96, 96)), Case("compact_reid_2x", 4, 4, (160, 64))),
    "cuda": (Case("safr_large", 18, 4, (350, 350)), Case("compact_reid_2x", 8, 4, (160, 64))),
}


@contextmanager
def plain_operators() -> Iterator[None]:
    """pyreid's layers and losses on plain PyTorch."""
    with patch.multiple(ops, **{name: getattr(reference, name) for name in OPERATORS}):
        yield


def training_step(case: Case, device: DeviceType, dtype: torch.dtype, *, compiled: bool) -> Callable[[], Tensor]:
    """One step of a fresh model with fixed weights, as a function that returns the loss before it.

    Cross-entropy on every output of logits, batch-soft triplet loss on every embedding.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(case.ids * case.images, 3, *case.size, generator=generator).to(device)
    labels = torch.arange(case.ids).repeat_interleave(case.images).to(device)
    torch.manual_seed(0)
    model = create_model(case.model, num_classes=CLASSES).to(device).train()
    forward: Any = torch.compile(model) if compiled else model
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            output = forward(images)
            terms = [functional.cross_entropy(logits, labels) for logits in output.logits.values()]
            terms += [ops.batch_soft_triplet(embedding, labels) for embedding in output.embeddings.values()]
            loss = torch.stack(terms).sum()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def peak_mb(step: Callable[[], Tensor]) -> float:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 2**20


def measure(device: DeviceType, repeats: int) -> list[Row]:
    rows = []
    dtypes = (torch.float32, torch.bfloat16) if device == "cuda" else (torch.float32,)
    for case in CASES[device]:
        for dtype in dtypes:
            for mode, compiled in ((EAGER, False), (COMPILED, True)):
                try:
                    rows += _compare(case, device, dtype, mode, repeats, compiled=compiled)
                except MissingDependencyError as error:  # a backbone of timm
                    print(f"without {case}: {error}", file=sys.stderr)
    return rows


def _compare(
    case: Case, device: DeviceType, dtype: torch.dtype, mode: str, repeats: int, *, compiled: bool
) -> list[Row]:
    # One after the other: at full size two models with their activations may not fit side by side.
    words, numbers = str(dtype).removeprefix("torch."), {}
    for name in ("ours", "plain"):
        torch._dynamo.reset()
        with plain_operators() if name == "plain" else nullcontext():
            step = training_step(case, device, dtype, compiled=compiled)
            loss = step().item()
            timing = time_interleaved({name: step}, repeats=repeats, warmup=WARMUP, device=device)[name]
            peak = peak_mb(step) if device == "cuda" else None
        del step
        numbers[name] = loss, timing, peak
    (loss, ours, our_peak), (other, theirs, their_peak) = numbers["ours"], numbers["plain"]
    if not abs(loss - other) <= TOLERANCE[words] * abs(other):
        raise RuntimeError(f"training_step {case}, {mode}: the loss is {loss:.6g}, on plain operators {other:.6g}")
    shared: dict[str, Any] = {"case": f"{case}, {mode}", "dtype": words, "device": device, "peer": "plain operators"}
    rounded = None if our_peak is None else round(our_peak, 1)
    rows = [result_row(op="training step", ours=ours, peer_timing=theirs, peak_mb=rounded, **shared)]
    if our_peak is not None and their_peak is not None:
        rows.append(
            result_row(
                op="training step, peak memory", ours=Timing((our_peak,)), peer_timing=Timing((their_peak,)), **shared
            )
        )
    return rows


if __name__ == "__main__":
    run(__doc__, measure, REPEATS)
