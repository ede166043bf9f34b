"""Inner products by half-precision tensor cores, with a rigorous bound of their error. Internal.

|q.g - q'.g'| <= |q - q'| |g| + |q'| |g - g'| for rounded rows q' and g', and a product of D terms that are added up in
float32 is off by no more than its accumulation's error, a multiple of |q'| |g'|.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pyreid.ops.distance_tiles import full_float32

_UP = 1 + 2.0**-20  # a few roundings of float32 upwards


@dataclass(frozen=True, slots=True)
class Rounded:
    """Rows in the precision of a product, with what rounding has cost.

    Attributes:
        values: (N, D), the rows times a power of two, rounded.
        size: (N,) float32, no less than their lengths.
        error: (N,) float32, no less than the lengths of what rounding took away.
    """

    values: Tensor
    size: Tensor
    error: Tensor

    def __getitem__(self, rows: slice) -> Rounded:
        return Rounded(self.values[rows], self.size[rows], self.error[rows])


def unit_scale(squared_norms: Tensor) -> float:
    """The power of two that brings the longest row to a length in (1/2, 1], so that float16 neither overflows nor
    wastes its range; 1 if all rows are zero."""
    longest = math.sqrt(float(squared_norms.max())) if len(squared_norms) else 0.0
    return 2.0 ** -math.frexp(longest)[1] if longest > 0 else 1.0


def rounded(x: Tensor, scale: float, dtype: torch.dtype) -> Rounded:
    """Rows of a float32 matrix times ``scale``, a power of two, in ``dtype``."""
    scaled = x * scale
    values = scaled.to(dtype)
    back = values.to(torch.float32)
    # A sum of D squares in float32 is off by a relative D 2^-24 at most, its root by half of that. What underflows
    # where a row is scaled or its differences are squared is less than 2^-60 for each element.
    up, tiny = _UP + x.shape[1] * 2.0**-24, 2.0**-60 * math.sqrt(x.shape[1])
    size = torch.linalg.vector_norm(back, dim=1) * up + tiny
    error = torch.linalg.vector_norm(scaled - back, dim=1) * up + tiny
    return Rounded(values, size, error)


def accumulation_error(dim: int, dtype: torch.dtype) -> float:
    """Error of a product of ``dim`` terms relative to the rows' lengths, from adding up in float32.

    Products of two half-precision numbers are exact in float32. Tensor cores cut digits off where other units round,
    and align each group of terms to its largest, which costs 2^-23 a term and one more in each group, at any order of
    the additions; float32 units round the products and the sums, 2^-24 for each term together with the next order.
    """
    return 1.25 * dim * 2.0**-23 if dtype != torch.float32 else 1.01 * (dim + 1) * 2.0**-24


def multiply(query: Tensor, gallery: Tensor) -> Tensor:
    """(R, C) float32 products of rows in half precision or float32, added up in float32."""
    with torch.no_grad(), full_float32(), _float32_sums(), torch.autocast(query.device.type, enabled=False):
        if query.dtype == torch.float32:
            return torch.mm(query, gallery.t())
        if query.is_cuda:
            return torch.mm(query, gallery.t(), out_dtype=torch.float32)
        return torch.mm(query.float(), gallery.float().t())


@contextlib.contextmanager
def _float32_sums() -> Iterator[None]:
    """No partial sums in half precision, which cuBLAS may use by default. Under the lock of ``full_float32``."""
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_fp16_reduced_precision_reduction, matmul.allow_fp16_accumulation
    try:
        matmul.allow_fp16_reduced_precision_reduction = False
        matmul.allow_fp16_accumulation = False
        yield
    finally:
        matmul.allow_fp16_reduced_precision_reduction, matmul.allow_fp16_accumulation = before
