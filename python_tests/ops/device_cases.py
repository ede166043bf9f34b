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
    grads = torch.autograd.grad(projected, wanted, [_weights(o) for o in projected])
    return [*(o.detach() for o in outputs), *grads]


def _weights(output: Tensor) -> Tensor:
    """Multiples of 1/128: the same in every dtype and on every device, whose cosines differ in the last bit."""
    angles = torch.linspace(-2, 2, max(output.numel(), 1), dtype=torch.float64, device=output.device)
    return ((128 * angles.cos()).round() / 128)[: output.numel()].view(output.shape).to(output.dtype)


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


def _mix(shape: tuple[int, ...], *, per_sample: bool, channels_last: bool = False) -> Case:
    def make(generator: torch.Generator) -> Inputs:
        mask = torch.rand(*(shape[:2] if per_sample else shape[1:2]), generator=generator, dtype=torch.float64)
        return *(normal(generator, *shape) for _ in range(3)), mask

    def run(*maps: Tensor) -> Tensor:
        if channels_last:
            maps = (*(m.contiguous(memory_format=torch.channels_last) for m in maps[:3]), maps[3])
        return ops.masked_mix(*maps)

    layout = " channels-last" if channels_last else ""
    name = f"masked_mix {'x'.join(map(str, shape))} {'per-sample' if per_sample else 'shared'} mask{layout}"
    return Case(name, make, run, scale=4 * (shape[0] * shape[2] * shape[3]) ** 0.5)


def _gate(shape: tuple[int, int, int, int], *, full: bool = False) -> Case:
    def make(generator: torch.Generator) -> Inputs:
        channels = shape[1] if full else 1
        return normal(generator, *shape), *(0.3 * normal(generator, shape[1], channels, 3, 3) for _ in range(2))

    name = f"spatial_gate {'x'.join(map(str, shape))}{' full' if full else ''}"
    # half precision: the maximum's gradient goes to one of several that are equal after rounding, the same on both
    dtypes = (torch.float32, torch.float64) if full else Case.dtypes
    return Case(name, make, ops.spatial_gate, scale=16 * (shape[0] * shape[2] * shape[3]) ** 0.5, dtypes=dtypes)


def _neighbors(q: int, g: int, d: int, k: int, metric: str) -> Case:
    def make(generator: torch.Generator) -> Inputs:
        query, gallery = normal(generator, q, d), normal(generator, g, d)
        if metric == "cosine":
            return query, gallery
        # integers: their products are exact in any order, so that the order of the neighbors is the same everywhere
        return query.mul(3).round(), gallery.mul(3).round()

    name = f"nearest_neighbors {q}x{g}x{d} k={k} {metric}"
    run = lambda x, y: ops.nearest_neighbors(x, y, k, metric=metric)  # type: ignore[arg-type]  # noqa: E731
    return Case(name, make, run, scale=4 * d, dtypes=(torch.float32, torch.float64), capturable=False)


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
    *(
        _mix(shape, per_sample=per_sample, channels_last=channels_last)
        for shape in [(2, 3, 1, 1), (2, 5, 9, 7), (3, 16, 8, 8), (1, 2, 40, 41)]
        for per_sample in (False, True)
        for channels_last in (False, True)
    ),
    *(_gate(shape) for shape in [(1, 2, 1, 1), (3, 3, 7, 7), (2, 3, 16, 16), (2, 2, 28, 44), (1, 2, 70, 90)]),
    _gate((2, 4, 9, 8), full=True),
    *(
        _neighbors(q, g, d, k, metric)
        for q, g, d, k in [(3, 1, 4, 1), (5, 70, 16, 33), (4, 2500, 24, 600)]
        for metric in ("euclidean", "sqeuclidean", "cosine")
    ),
]
