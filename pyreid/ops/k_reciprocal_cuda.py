"""Stages of k-reciprocal re-ranking on CUDA: kernels, and between them torch's sorts. Internal.

Where a thread of the CPU has an array over all items, entries are sorted here by (row, column) as one integer of 64
bits, a part of the rows at a time: memory beside the results is bounded. Sorts are stable and sums run in the order of
the lists, so that results have the bits of the CPU's where its arithmetic is the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

_NO_ITEM = 2**31 - 1  # kNoItem of csrc/cuda/k_reciprocal.cuh
_ENTRIES_AT_A_TIME = 2**21  # of up to 100 bytes each while they are sorted
_COLUMN_BITS = 32


def reciprocal_sets(neighbors: Tensor, forward: int, half: int) -> tuple[Tensor, Tensor]:
    """As :func:`pyreid.ops.k_reciprocal.reciprocal_sets`."""
    own, theirs = _ascending_sets(neighbors, forward), _ascending_sets(neighbors, half)
    sizes = torch.ops.pyreid.reciprocal_expansions(own, theirs)
    return joined_sets(own, theirs, sizes)


def _ascending_sets(neighbors: Tensor, k: int) -> Tensor:
    """(N, k) int32: R(i, k) of each item, ascending, filled up with ``_NO_ITEM``."""
    sets: Tensor = torch.ops.pyreid.reciprocal_neighbors(neighbors, k)
    for rows in sets.split(max(1, _ENTRIES_AT_A_TIME // k)):
        rows.copy_(rows.sort(dim=1).values)
    return sets


def joined_sets(own: Tensor, theirs: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """The union of each row of ``own`` with the rows of ``theirs`` that join it.

    Args:
        own: (N, F) int32, ascending, filled up with ``_NO_ITEM``.
        theirs: (N, H) int32, the same.
        sizes: (N, F) int32: how many items of the row ``own[i, a]`` of ``theirs``, all or none, join row i.

    Returns:
        ``(starts, columns)`` as in :class:`pyreid.ops.k_reciprocal.SparseRows`.
    """
    length = theirs.shape[1]
    is_item = own != _NO_ITEM
    counts = is_item.sum(dim=1) + sizes.sum(dim=1)
    starts, parts = [counts.new_zeros(1)], []
    for rows in _parts(counts):
        candidates = own[rows]
        row, place = is_item[rows].nonzero(as_tuple=True)
        keys = row << _COLUMN_BITS | candidates[row, place].long()
        pair, within = ranges(sizes[rows].flatten())
        joining = theirs.view(-1)[candidates.flatten()[pair].long() * length + within]
        joining_keys = pair // own.shape[1] << _COLUMN_BITS | joining.long()
        unique = torch.cat([keys, joining_keys]).sort().values
        unique = unique[_runs(unique)[:-1]]
        parts.append(_columns(unique))
        starts.append(starts[-1][-1:] + _ends(unique, rows.stop - rows.start))
    columns = torch.cat(parts) if parts else own.new_empty(0)
    return torch.cat(starts), columns


def mean_rows(
    starts: Tensor, columns: Tensor, weights: Tensor, neighbors: Tensor, k2: int
) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`pyreid.ops.k_reciprocal.mean_rows`: entries in the order of the lists, sorted stably by their place."""
    lists = neighbors[:, :k2].long()
    lengths = starts.diff()
    counts = torch.cat([lengths[block].sum(dim=1) for block in lists.split(max(1, _ENTRIES_AT_A_TIME // k2))])
    new_starts, new_columns, new_weights = [starts.new_zeros(1)], [], []
    for rows in _parts(counts):
        averaged = lists[rows].flatten()
        pair, within = ranges(lengths[averaged])
        entry = starts[averaged[pair]] + within
        ranking = (pair // k2 << _COLUMN_BITS | columns[entry].long()).sort(stable=True)
        runs = _runs(ranking.values)
        new_weights.append(torch.ops.pyreid.run_means(weights[entry[ranking.indices]], runs, k2))
        keys = ranking.values[runs[:-1]]
        new_columns.append(_columns(keys))
        new_starts.append(new_starts[-1][-1:] + _ends(keys, rows.stop - rows.start))
    if not new_columns:
        return starts, columns, weights
    return torch.cat(new_starts), torch.cat(new_columns), torch.cat(new_weights)


def by_columns(starts: Tensor, columns: Tensor, weights: Tensor, first: int) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`pyreid.ops.k_reciprocal.by_columns`."""
    items = len(starts) - 1
    begin = int(starts[first])
    sizes = starts[first:].diff()
    item = torch.arange(items - first, device=starts.device, dtype=torch.int32).repeat_interleave(sizes)
    ranking = columns[begin : begin + len(item)].sort(stable=True)
    bounds = torch.arange(items + 1, device=starts.device, dtype=torch.int32)
    by_column = torch.searchsorted(ranking.values, bounds)
    return by_column, item[ranking.indices], weights[begin + ranking.indices]


def _parts(counts: Tensor) -> Iterator[slice]:
    """Slices of rows, of about ``_ENTRIES_AT_A_TIME`` entries, or of one row with more."""
    ends = counts.cumsum(0).cpu()
    first, before = 0, 0
    while first < len(ends):
        last = int(torch.searchsorted(ends, before + _ENTRIES_AT_A_TIME, right=True))
        last = max(last, first + 1)
        yield slice(first, last)
        first, before = last, int(ends[last - 1])


def ranges(lengths: Tensor) -> tuple[Tensor, Tensor]:
    """0, 1, ... below each of the (P,) ``lengths``, behind one another: the range's number, and the place in it."""
    lengths = lengths.long()
    number = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
    before = lengths.cumsum(0) - lengths
    return number, torch.arange(len(number), device=lengths.device) - before[number]


def _runs(keys: Tensor) -> Tensor:
    """(runs + 1,) places where runs of equal keys begin, and the end of the last."""
    is_first = torch.ones_like(keys, dtype=torch.bool)
    torch.ne(keys[1:], keys[:-1], out=is_first[1:])
    begins = is_first.nonzero().flatten()
    return torch.cat([begins, begins.new_full((1,), len(keys))])


def _columns(keys: Tensor) -> Tensor:
    return (keys & (1 << _COLUMN_BITS) - 1).int()


def _ends(keys: Tensor, rows: int) -> Tensor:
    """(rows,) where each row's keys, ascending, end."""
    bounds = torch.arange(1, rows + 1, device=keys.device) << _COLUMN_BITS
    return torch.searchsorted(keys, bounds)
