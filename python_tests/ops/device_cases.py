"""Calls of every operator for the tests on CUDA devices: shapes on both sides of each kernel's switches, small enough
for compute-sanitizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyreid import ops

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Case:
    """One operator at one shape.

    ``make(generator)`` gives float64 and integer inputs on the CPU; ``run(*inputs)`` the outputs. ``scale`` is the size
    of the largest intermediate value, which the tolerance follows. ``capturable``: free of waits for the device, so
    that it can be part of a CUDA graph.
    """

    name: str
    make: Callable[[torch.Generator], Inputs]
    run: Callable[..., Tensor | Inputs]
    scale: float = 1.0
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
    capturable: bool = True

    def __str__(self) -> str:
        return self.name

    def inputs(self, dtype: torch.dtype, *, seed: int = 0, device: str = "cpu") -> Inputs:
        """Inputs rounded to ``dtype``, on ``device``."""
        made = self.make(torch.Generator().manual_seed(seed))
        return tuple((t.to(dtype) if t.is_floating_point() else t).to(device) for t in made)


def results(case: Case, inputs: Inputs) -> list[Tensor]:
    """Outputs, and the gradients of a fixed projection of them by every floating-point input."""
    leaves = [t.detach().clone().requires_grad_() if t.is_floating_point() else t for t in inputs]
    return evaluate(case, leaves)


def evaluate(case: Case, leaves: list[Tensor]) -> list[Tensor]:
    """The same, with inputs that require gradients already."""
    outputs = case.run(*leaves)
    outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
    wanted = [t for t in leaves if t.is_floating_point()]
    projected = [o for o in outputs if o.requires_grad]
    weights = [torch.linspace(-2, 2, max(o.numel(), 1), device=o.device).cos().to(o.dtype) for o in projected]
    grads = torch.autograd.grad(
        projected, wanted, [w[: o.numel()].view(o.shape) for w, o in zip(weights, projected, strict=True)]
    )
    return [*(o.detach() for o in outputs), *grads]


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _triplet(kind: str, b: int, d: int, **options: object) -> Case:
    function = getattr(ops, f"batch_{kind}_triplet")

    def make(generator: torch.Generator) -> Inputs:
        labels = torch.arange(b) // 3
        return 0.5 * normal(generator, b // 3 + 1, d)[labels] + normal(generator, b, d), labels

    name = f"batch_{kind}_triplet {b}x{d} {options}"
    # gradients of the reduced loss are small against the distances that they come from
    return Case(name, make, lambda x, labels: function(x, labels, **options), scale=(2 * d) ** 0.5)


def _gem(shape: tuple[int, ...], p: str, *, channels_last: bool = False) -> Case:
    def make(generator: torch.Generator) -> Inputs:
        x = normal(generator, *shape)
        if p == "fixed":
            return (x,)
        return x, 2 + torch.rand(1 if p == "scalar" else shape[1], generator=generator, dtype=torch.float64)

    def run(x: Tensor, exponent: float | Tensor = 3.0) -> Tensor:
        return ops.gem_pool(x.contiguous(memory_format=torch.channels_last) if channels_last else x, exponent)

    layout = " channels-last" if channels_last else ""
    return Case(f"gem_pool {'x'.join(map(str, shape))} {p} p{layout}", make, run, scale=4)


def _distance(n: int, m: int | None, d: int, metric: str) -> Case:
    def make(generator: torch.Generator) -> Inputs:
        return (normal(generator, n, d),) if m is None else (normal(generator, n, d), normal(generator, m, d))

    name = f"pairwise_distance {n}x{m or 'self'}x{d} {metric}"
    return Case(name, make, lambda *xy: ops.pairwise_distance(*xy, metric=metric), scale=2 * d)  # type: ignore[arg-type]


CASES: list[Case] = [
    *(
        _triplet(kind, b, d, margin=margin, reduction=reduction)
        for kind in ("hard", "soft")
        for b, d, margin, reduction in [
            (6, 5, 0.3, "mean"),
            (33, 64, None, "none"),
            (72, 256, 0.3, "mean"),
            (256, 40, None, "sum"),
            (257, 130, 0.3, "mean"),
            (600, 33, None, "mean"),
        ]
    ),
    *(
        _gem(shape, p)
        for p in ("fixed", "scalar", "channels")
        for shape in [(2, 3, 1), (2, 3, 7, 7), (3, 5, 16, 8), (2, 2, 24, 24), (1, 3, 33, 40), (1, 2, 97, 101)]
    ),
    *(_gem((2, 20, 9, 4), p, channels_last=True) for p in ("fixed", "scalar", "channels")),
    *(
        _distance(n, m, d, metric)
        for metric in ("euclidean", "sqeuclidean", "cosine")
        for n, m, d in [(1, 3, 2), (40, 37, 65), (70, None, 20)]
    ),
]
