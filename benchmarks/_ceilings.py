"""What a device can do at best, measured: how fast it copies and multiplies. Floors of operators come from these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch

from ._timing import DeviceType, Timing, time_interleaved

COPIED_BYTES: dict[DeviceType, int] = {"cpu": 2**28, "cuda": 2**30}  # read and written: beyond any cache
MATRIX: dict[DeviceType, int] = {"cpu": 2048, "cuda": 8192}
REPEATS = 15


@dataclass(frozen=True, slots=True)
class Work:
    """What an operator has to do at least.

    Attributes:
        bytes: that come from memory or go there, each input and result once.
        flops: of its products, in float32.
    """

    bytes: int
    flops: int = 0


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Bytes per second of a copy, counted in both directions, and floating-point operations per second of a product of
    square matrices in float32."""

    copy: float
    product: float

    def floor_ms(self, work: Work) -> float:
        """The time that moving the bytes or the operations alone take, whichever is longer."""
        return max(work.bytes / self.copy, work.flops / self.product) * 1e3


def copying(device: DeviceType) -> Callable[[], object]:
    source = torch.ones(COPIED_BYTES[device] // 4, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def multiplying(device: DeviceType, dtype: torch.dtype) -> Callable[[], object]:
    size = MATRIX[device]
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=out)


def copy_rate(device: DeviceType, timing: Timing) -> float:
    return 2 * COPIED_BYTES[device] / timing.median_ms * 1e3


def product_rate(device: DeviceType, timing: Timing) -> float:
    return 2 * MATRIX[device] ** 3 / timing.median_ms * 1e3


@cache
def ceilings(device: DeviceType) -> Ceilings:
    """Of this machine, measured once."""
    # One after the other: a product in between would leave the clock of a GPU lower.
    copied = time_interleaved({"copy": copying(device)}, REPEATS, device=device)["copy"]
    product = time_interleaved({"mm": multiplying(device, torch.float32)}, REPEATS, device=device)["mm"]
    return Ceilings(copy_rate(device, copied), product_rate(device, product))
