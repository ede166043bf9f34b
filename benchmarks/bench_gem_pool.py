"""Generalised-mean pooling, forward and backward, against plain PyTorch: eager, and compiled by inductor.

python -m benchmarks.bench_gem_pool                     # on the CPU, prints a table
python -m benchmarks.bench_gem_pool --device cuda --out benchmarks/results/h200.json
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pyreid import ops

from ._ceilings import Work, ceilings
from ._timing import COMPILED, EAGER, DeviceType, Row, compare, run

SHAPE = (64, 2048, 16, 8)  # the last feature map of a ResNet-50 with stride 1, for images of 256 x 128
EPS = 1e-6
REPEATS = 20
Pool = Callable[[Tensor, "float | Tensor"], Tensor]


def eager_gem(x: Tensor, p: float | Tensor) -> Tensor:
    """Pooling as most re-identification code bases write it. A float32 p turns half precision into float32 in pow."""
    exponent = p.view(1, -1, 1, 1) if isinstance(p, Tensor) else p
    return x.clamp(min=EPS).pow(exponent).mean((-1, -2)).pow(1 / p)


def exponents(device: DeviceType) -> dict[str, float | Tensor]:
    """Float32 parameters as in mixed-precision training; not 3, which eager pow would treat apart from the rest."""
    generator = torch.Generator().manual_seed(1)
    return {
        "p = 3": 3.0,
        "learnable p": torch.full((1,), 3.1, device=device, requires_grad=True),
        "learnable p[C]": (2 + 2 * torch.rand(SHAPE[1], generator=generator)).to(device).requires_grad_(),
    }


def step(pool: Pool, x: Tensor, p: float | Tensor, grad: Tensor) -> Callable[[], tuple[Tensor, ...]]:
    """One forward and backward pass, as a function without arguments that returns the result and the gradients."""
    leaf = x.clone().requires_grad_()  # keeps the memory format
    inputs = (leaf, p) if isinstance(p, Tensor) else (leaf,)

    def run() -> tuple[Tensor, ...]:
        out = pool(leaf, p)
        return out.detach(), *torch.autograd.grad(out, inputs, grad.to(out.dtype))

    return run


def check_agreement(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...], words: str) -> None:
    """Raise unless results and gradients agree as far as the peer's arithmetic allows, which has x's precision."""
    allowed_relative = 1e-4 if ours[1].dtype == torch.float32 else 3e-2
    for name, a, b in zip(("result", "gradient of x", "gradient of p"), ours, theirs, strict=False):
        error = (a.float() - b.float()).abs().max().item()
        allowed = allowed_relative * b.abs().max().item()
        if not error <= allowed:
            raise RuntimeError(f"{words}: the {name} differs by {error:.3g}, allowed {allowed:.3g}")


def measure(device: DeviceType, repeats: int) -> list[Row]:
    rows = []
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(SHAPE, generator=generator).relu()
    grad = torch.randn(SHAPE[:2], generator=generator).to(device)
    for dtype in (torch.float32, torch.bfloat16):
        for layout, memory_format in (("", torch.contiguous_format), (" channels last", torch.channels_last)):
            x = features.to(device, dtype).contiguous(memory_format=memory_format)
            for name, p in exponents(device).items():
                torch._dynamo.reset()  # each case is compiled for itself, as in a program that has only this one
                pools: dict[str, Pool] = {
                    "ours": ops.gem_pool,
                    EAGER: eager_gem,
                    COMPILED: torch.compile(eager_gem, fullgraph=True),
                }
                rows += compare(
                    op="gem_pool",
                    case=f"{'x'.join(map(str, SHAPE))}{layout} {name} fwd+bwd",
                    dtype=dtype,
                    device=device,
                    repeats=repeats,
                    contenders={who: step(pool, x, p, grad) for who, pool in pools.items()},
                    check=check_agreement,
                    graphs=True,
                    # x once more for the gradient, which is as large
                    floor_ms=ceilings(device).floor_ms(Work(3 * x.nbytes)),
                )
    return rows


if __name__ == "__main__":
    run(__doc__, measure, REPEATS)
