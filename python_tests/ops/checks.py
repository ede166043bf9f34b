"""What every operator's tests share: devices, tolerances from an error analysis, gradients in float64."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]

# Unit roundoff of each dtype. A sum of n terms that is split over lanes, threads and accumulators has a relative error
# of a few units where the terms have one sign; FACTOR covers the lanes, the final arithmetic and the rounding of the
# inputs. Tests with cancellation scale the tolerance by the size of what cancels.
ROUNDOFF = {torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
FACTOR = 64


@contextlib.contextmanager
def exact_convolutions() -> Iterator[None]:
    """cuDNN would convolve in TF32, and by atomics, where an operator leaves the convolutions to torch."""
    cudnn = torch.backends.cudnn
    before = cudnn.conv.fp32_precision, cudnn.deterministic
    cudnn.conv.fp32_precision, cudnn.deterministic = "ieee", True
    try:
        yield
    finally:
        cudnn.conv.fp32_precision, cudnn.deterministic = before


def tolerance(dtype: torch.dtype, scale: float = 1.0) -> float:
    """Allowed absolute error for results of size ``scale`` computed in ``dtype``."""
    return FACTOR * ROUNDOFF[dtype] * scale


def assert_close(actual: Tensor, expected: Tensor, dtype: torch.dtype, scale: float = 1.0) -> None:
    """Compare with a float64 reference, within the tolerance of ``dtype`` at results of size ``scale``."""
    allowed = tolerance(dtype, scale)
    torch.testing.assert_close(actual.double().cpu(), expected.double().cpu(), rtol=allowed / scale, atol=allowed)


def gradients(function: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    """Gradients of a fixed random projection of ``function(*inputs)`` with respect to each input."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    out = function(*leaves)
    weight = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).cos().view(out.shape).to(out)
    return list(torch.autograd.grad((out * weight).sum(), leaves))
