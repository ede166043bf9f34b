"""The gate of DBAM and its pools, forward and backward, against plain PyTorch in eager mode.

python -m benchmarks.bench_spatial_gate                     # on the CPU, prints a table
python -m benchmarks.bench_spatial_gate --device cuda --out benchmarks/results/h200.json
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pyreid import ops

from ._ceilings import Work, ceilings
from ._timing import COMPILED, EAGER, DeviceType, Row, compare, run

# Outputs of the four stages of a ResNet: at 224 x 224 and with 350 x 350 in between, as SAFR trains them
SHAPES = ((8, 256, 56, 56), (4, 256, 88, 88), (8, 512, 28, 28), (8, 2048, 11, 11), (8, 2048, 7, 7))
CUDA_BATCH = 8  # times as many samples on the GPU
REPEATS = 20
Gate = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


def eager_gate(x: Tensor, weight1: Tensor, weight2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The module of the authors' code with depthwise convolutions, in the dtype of x."""
    channels = x.shape[1]
    hidden = F.leaky_relu(F.conv2d(x, weight1.to(x.dtype), padding=1, groups=channels))
    gate = torch.sigmoid(F.conv2d(hidden, weight2.to(x.dtype), padding=1, groups=channels))
    local = F.relu(gate * x)
    return local, local.mean((2, 3)), local.amax((2, 3))


def step(
    gate: Gate, x: Tensor, weights: tuple[Tensor, Tensor], grads: tuple[Tensor, ...]
) -> Callable[[], list[Tensor]]:
    """One forward and backward pass, as a function without arguments that returns the results and the gradients."""
    leaf = x.clone().requires_grad_()

    def run() -> list[Tensor]:
        outputs = gate(leaf, *weights)
        return [*(o.detach() for o in outputs), *torch.autograd.grad(outputs, (leaf, *weights), grads)]

    return run


def check_agreement(ours: list[Tensor], theirs: list[Tensor], words: str) -> None:
    """Raise unless results and gradients agree as far as the peer's arithmetic allows.

    By their root mean square: in half precision the peer may find another maximum, or another sign of a hidden value.
    """
    names = ("local", "avg", "max", "gradient of x", "gradient of weight1", "gradient of weight2")
    for name, a, b in zip(names, ours, theirs, strict=True):
        error = (a.float() - b.float()).square().mean().sqrt().item()
        allowed = (1e-4 if ours[0].dtype == torch.float32 else 5e-2) * b.float().square().mean().sqrt().item()
        if not error <= allowed:
            raise RuntimeError(f"{words}: {name} differs by {error:.3g}, allowed {allowed:.3g}")


def measure(device: DeviceType, repeats: int) -> list[Row]:
    rows = []
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16):
        for samples, *rest in SHAPES:
            shape = (samples * (CUDA_BATCH if device == "cuda" else 1), *rest)
            x = torch.randn(shape, generator=generator).to(device, dtype)
            first, second = ((torch.randn(shape[1], 1, 3, 3, generator=generator) / 3).to(device) for _ in range(2))
            weights = (first.requires_grad_(), second.requires_grad_())
            grads = tuple(torch.randn(s, generator=generator).to(x) for s in (shape, shape[:2], shape[:2]))
            torch._dynamo.reset()
            gates = {"ours": ops.spatial_gate, EAGER: eager_gate, COMPILED: torch.compile(eager_gate, fullgraph=True)}
            rows += compare(
                op="spatial_gate",
                case=f"{'x'.join(map(str, shape))} fwd+bwd",
                dtype=dtype,
                device=device,
                repeats=repeats,
                contenders={name: step(gate, x, weights, grads) for name, gate in gates.items()},
                check=check_agreement,
                graphs=True,
                # x and the result forward; x, the gradients of the result and of x backward
                floor_ms=ceilings(device).floor_ms(Work(5 * x.nbytes)),
            )
    return rows


if __name__ == "__main__":
    run(__doc__, measure, REPEATS)
