"""DBAM's operators around its convolutions, masked_mix and gate_and_pool, forward and backward, against eager PyTorch.

python -m benchmarks.bench_masked_mix                   # on the CPU, prints a table
python -m benchmarks.bench_masked_mix --device cuda --out benchmarks/results/h200.json
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks._timing import DeviceType, Row, make_parser, report, result_row, time_interleaved
from pyreid import ops
from pyreid.ops.gate_and_pool import gate_and_pool

# The first two stages of a ResNet-50 for images of 350 x 350. Tensors above 32 MiB, as of the third shape in float32,
# get fresh pages from glibc on every allocation: there an operator without intermediate results gains most on the CPU.
SHAPES = [(4, 256, 88, 88), (4, 512, 44, 44), (8, 256, 88, 88)]
PEER = "torch eager"
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


def check_agreement(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...], dtype: torch.dtype, case: str) -> None:
    """Raise unless results and gradients agree as far as the peer's arithmetic in ``dtype`` allows."""
    for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        error = (a.float() - b.float()).abs().max().item()
        allowed = TOLERANCE[dtype] * b.float().abs().max().item()
        if not error <= allowed:
            raise RuntimeError(f"{case}: output {number} differs from the peer's by {error:.3g}, allowed {allowed:.3g}")


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
        for op, name, ours, peer, inputs, grads in cases(device, dtype):
            leaves = [t.clone().requires_grad_() for t in inputs]
            contenders = {"ours": step(ours, leaves, grads), PEER: step(peer, leaves, grads)}
            results = [contenders[c]() for c in ("ours", PEER)]
            if op == "gate_and_pool" and dtype == torch.bfloat16:
                # Rounded values tie for the maximum, and amax spreads its gradient over them: the results alone agree.
                results = [r[:3] for r in results]
            check_agreement(results[0], results[1], dtype, f"{op} {name}")
            timings = time_interleaved(contenders, repeats, device=device)
            rows.append(
                result_row(
                    op=op,
                    case=f"{name} fwd+bwd",
                    dtype=str(dtype).removeprefix("torch."),
                    device=device,
                    ours=timings["ours"],
                    peer=PEER,
                    peer_timing=timings[PEER],
                )
            )
    return rows


def main() -> None:
    parser = make_parser(__doc__, repeats=20)
    args = parser.parse_args()
    report(measure(args.device, args.repeats), args)


if __name__ == "__main__":
    main()
