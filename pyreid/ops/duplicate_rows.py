"""Rows of a matrix that repeat an earlier one. Internal: ranking gives them one value, so that they tie exactly."""

from __future__ import annotations

import torch
from torch import Tensor

_ROWS_AT_A_TIME = 8192


@torch.library.register_fake("pyreid::row_hashes")
def _fake(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], dtype=torch.int64)


def duplicate_rows(x: Tensor) -> tuple[Tensor, Tensor] | None:
    """Find the rows that are equal to an earlier row, element by element.

    One pass over the matrix hashes the rows; only rows whose hashes meet are compared.

    Args:
        x: (N, D) floating-point.

    Returns:
        ``(rows, originals)``, two (M,) int64 tensors on the device of ``x``: ``x[rows[i]] == x[originals[i]]``, where
        ``originals`` are first occurrences. None if no row repeats another.
    """
    hashes = torch.cat([torch.ops.pyreid.row_hashes(block) for block in x.split(_ROWS_AT_A_TIME)])
    # Stable: rows of equal hash stay in their order, the first of a group is its earliest.
    sorted_hashes, order = torch.sort(hashes, stable=True)
    repeats = sorted_hashes[1:] == sorted_hashes[:-1]
    if not bool(repeats.any()):
        return None
    is_first = torch.cat([repeats.new_ones(1), ~repeats])
    first_of = order[is_first.nonzero().flatten()][is_first.cumsum(0) - 1]
    rows, originals = order[~is_first], first_of[~is_first]
    # Different rows of one hash are possible, if unlikely. They are left out: they do not tie.
    same = torch.cat(
        [
            (x[a] == x[b]).all(1)
            for a, b in zip(rows.split(_ROWS_AT_A_TIME), originals.split(_ROWS_AT_A_TIME), strict=True)
        ]
    )
    return (rows[same], originals[same]) if bool(same.any()) else None
