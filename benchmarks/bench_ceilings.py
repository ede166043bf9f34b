"""How fast the device copies memory, and multiplies square matrices in each of its types of numbers: the ceilings under
which all operators stay. `rate` is in bytes per second, read and written, and in operations per second.

python -m benchmarks.bench_ceilings [--device cuda]
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ._ceilings import COPIED_BYTES, MATRIX, copy_rate, copying, multiplying, product_rate
from ._timing import DeviceType, Row, Timing, result_row, run, time_interleaved

REPEATS = 30


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def measure(device: DeviceType, repeats: int) -> list[Row]:
    def row(op: str, case: str, dtype: str, timing: Timing, rate: float) -> Row:
        whole = result_row(op=op, case=case, dtype=dtype, device=device, ours=timing, peer="-", peer_timing=timing)
        return whole | {"rate": float(f"{rate:.4g}")}

    copied = time_interleaved({"copy": copying(device)}, repeats, device=device)["copy"]
    rows = [row("copy", f"{COPIED_BYTES[device] // 2**20} MiB", "float32", copied, copy_rate(device, copied))]
    kinds = [("float32", torch.float32, False)]
    if device == "cuda":
        kinds += [
            ("tf32", torch.float32, True),
            ("bfloat16", torch.bfloat16, False),
            ("float16", torch.float16, False),
        ]
    case = "x".join([str(MATRIX[device])] * 3)
    for name, dtype, allowed in kinds:
        with tf32(allowed):
            product = time_interleaved({"mm": multiplying(device, dtype)}, repeats, device=device)["mm"]
        rows.append(row("matrix product", case, name, product, product_rate(device, product)))
    return rows


if __name__ == "__main__":
    run(__doc__, measure, REPEATS)
