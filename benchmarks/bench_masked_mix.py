"""DBAM's operators around its convolutions, masked_mix and gate_and_pool, forward and backward, against eager PyTorch.

python -m benchmarks.bench_masked_mix                   # on the CPU, prints a table
python -m benchmarks.bench_masked_mix --device cuda --out benchmarks/results/h200.json
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pyreid import ops
from pyreid.ops.gate_and_pool import gate_and_pool

from ._ceilings import Work, ceilings
from ._timing import COMPILED, EAGER, DeviceType, Row, compare, run

# The first two stages of a ResNet-50 for images of 350 x 350. Tensors above 32 MiB, as of the third shape in float32,
# get fresh pages from glibc on every allocation: there an operator without intermediate results gains most on the CPU.
SHAPES = [(4, 256, 88, 88), (4, 512, 44, 44), (8, 256, 88, 88)]
REPEATS = 20
# For each dtype, the error of the peer's chain of up to five roundings, relative to the largest value
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 4e-2}
Function = Callable[..., Tensor | tuple[Tensor, ...]]


def eager_mix(local: Tensor, x: Tensor, identity: Tensor, mask: Tensor) -> Tensor:
    """The formula as it stands; the mask in the dtype of the maps, as in mixed-precision training."""
    m = mask[..., None, None].to(x.dtype)
    return m * local + (1 - m) * F.relu(x + identity)


def eager_gate(x: Tensor, gate: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    local = F.relu(torch.sigmoid(gate) * x)
    return local, local.mean((2, 3)), local.amax((2, 3))


def step(function: Function, inputs: list[Tensor], grads: list[Tensor]) -> Callable[[], tuple[Tensor, ...]]:
    """One forward and backward pass, as a function without arguments that returns the results and the gradients."""

    def run() -> tuple[Tensor, ...]:
        out = function(*inputs)
        outputs = (out,) if isinstance(out, Tensor) else out
        return *(t.detach() for t in outputs), *torch.autograd.grad(outputs, inputs, grads)

    return run


def check_agreement(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...], words: str) -> None:
    """Raise unless results and gradients agree as far as the peer's arithmetic allows."""
    pooled = "gate_and_pool" in words
    if pooled and ours[0].dtype == torch.bfloat16:
        # Rounded values tie for the maximum, and amax spreads its gradient over them: the results alone agree.
        ours, theirs = ours[:3], theirs[:3]
    for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        error = (a.float() - b.float()).abs().max().item()
        allowed = TOLERANCE[ours[0].dtype] * b.float().abs().max().item()
        if not error <= allowed:
            raise RuntimeError(f"{words}: output {number} differs by {error:.3g}, allowed {allowed:.3g}")


def cases(
    device: DeviceType, dtype: torch.dtype
) -> list[tuple[str, str, Function, Function, list[Tensor], list[Tensor]]]:
    """Operator, case, ours, the peer, inputs, and gradients of the results."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    found = []
    for shape in SHAPES:
        name = "x".join(map(str, shape))
        maps, mask = [random(*shape) for _ in range(4)], torch.rand(shape[:2], generator=generator).to(device)
        for layout in ("", " channels last"):
            memory_format = torch.channels_last if layout else torch.contiguous_format
            *inputs, grad = (t.contiguous(memory_format=memory_format) for t in maps)
            found.append(("masked_mix", name + layout, ops.masked_mix, eager_mix, [*inputs, mask], [grad]))
        pools = [random(*shape[:2]) for _ in range(2)]
        found.append(("gate_and_pool", name, gate_and_pool, eager_gate, maps[:2], [maps[2], *pools]))
    return found


def measure(device: DeviceType, repeats: int) -> list[Row]:
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        for op, name, ours, eager, inputs, grads in cases(device, dtype):
            torch._dynamo.reset()
            leaves = [t.clone().requires_grad_() for t in inputs]
            functions = {"ours": ours, EAGER: eager, COMPILED: torch.compile(eager, fullgraph=True)}
            rows += compare(
                op=op,
                case=f"{name} fwd+bwd",
                dtype=dtype,
                device=device,
                repeats=repeats,
                contenders={who: step(function, leaves, grads) for who, function in functions.items()},
                check=check_agreement,
                graphs=True,
                # inputs and result forward; inputs, the gradients of the results and of the inputs backward
                floor_ms=ceilings(device).floor_ms(
                    Work(3 * sum(t.nbytes for t in inputs) + 2 * sum(t.nbytes for t in grads))
                ),
            )
    return rows


if __name__ == "__main__":
    run(__doc__, measure, REPEATS)
