"""Ranks of every query's positives from products in half precision, as float64 has them: what the products' error
leaves open is decided by products in float64.

The gallery goes by in blocks: for its norms, for the positives, and for all pairs. Each block's products with a strip
of queries on tensor cores say for nearly all pairs whether the item comes before a positive, with a bound of the
rounding (:mod:`pyreid.ops.low_precision`). The pairs within the bound, some in a thousand, and the positives themselves
are multiplied in float64. Where half precision leaves too much open, because features lie close together far from the
origin, products in float32 take over.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pyreid.evaluation.progress import progress_bar
from pyreid.evaluation.ranking import Matches
from pyreid.ops._checks import Metric
from pyreid.ops.feature_blocks import feature_blocks
from pyreid.ops.features import checked_squared_norms
from pyreid.ops.low_precision import Rounded, accumulation_error, multiply, rounded, unit_scale
from pyreid.ops.pair_products import pair_products
from pyreid.ops.screen_negatives import screen_negatives_

_MIB = 2**20
_BLOCK_BYTES = 256 * _MIB  # of gallery rows in float32
_TILE_BYTES = 512 * _MIB  # of products
_QUERY_BYTES = 1024 * _MIB  # of query rows in float32
_SLOTS = 1 << 23  # pairs of a query and an item of its identity that are looked at together, of 140 bytes each
_GATHER_PAIRS = 1 << 22  # pairs of one call
_CAPACITY = 32  # one in so many items of a query can be listed as undecided
_TOO_MANY_OPEN = 0.02  # undecided pairs of a tile, from which on float32 products pay

_TINY = 2.0**-100  # underflow
_SLACK = 2.0**-21  # roundings of a value, of its offset or scale, and of its error, relative to their size


def rank_by_screening(
    query: Tensor,
    gallery: Tensor,
    matches: Matches,
    query_ids: np.ndarray,
    gallery_ids: np.ndarray,
    is_junk: np.ndarray,
    metric: Metric,
    device: torch.device,
    *,
    bounded: bool = True,
    products: torch.dtype = torch.float16,
    progress: bool = False,
) -> np.ndarray:
    """As :class:`pyreid.evaluation.ranking.StripRanker` fills ``ranks``, by the order of float64 distances.

    Args:
        query: (Q, D) features, float16, bfloat16 or float32.
        gallery: (G, D) features, likewise.
        matches: of identities and cameras.
        query_ids: (Q,) int64.
        gallery_ids: (G,) int64.
        is_junk: (G,) bool, items that are left out.
        metric: what ranks.
        device: where to compute.
        bounded: False takes the products of negatives as if they were exact.
        products: dtype of the products that screen, to begin with.
        progress: show a progress bar.

    Returns:
        (slots,) int64: for each query its positives' ranks, ascending, then -1 for its other slots.
    """
    query_norms = checked_squared_norms("query", query, device=device, dtype=torch.float32)
    gallery_norms = checked_squared_norms("gallery", gallery, device=device, dtype=torch.float32)
    # One scale for both: neither a product nor half a squared norm then exceeds 1.
    scale = min(unit_scale(query_norms), unit_scale(gallery_norms))
    screening = _Screening(
        gallery,
        torch.from_numpy(gallery_ids).to(device),
        torch.from_numpy(is_junk).to(device),
        metric,
        device,
        scale,
        bounded,
    )
    ranks = np.full(int(matches.starts[-1]), -1, dtype=np.int64)
    parts = _parts(matches.starts, max(1, _QUERY_BYTES // (4 * query.shape[1])))
    with progress_bar("ranking", len(parts) * len(gallery), show=progress) as advance:
        for rows in parts:
            part = query[rows].to(device=device, dtype=torch.float32).contiguous()
            positives = _positives(part, gallery, matches, rows, screening)
            ids = torch.from_numpy(query_ids[rows]).to(device)
            begin = 0
            for block in screening.blocks():
                products = _screen_block(part, ids, block, positives, screening, products)
                advance(block.rows.stop - begin)
                begin = block.rows.stop
            starts = matches.starts[rows.start : rows.stop + 1]
            ranks[starts[0] : starts[-1]] = (
                positives.ranks(torch.from_numpy(starts - starts[0]).to(device)).cpu().numpy()
            )
    return ranks


def _parts(starts: np.ndarray, height: int) -> list[slice]:
    """All queries, in slices of at most ``height``, and of at most ``_SLOTS`` slots or one query."""
    parts, begin = [], 0
    while begin < len(starts) - 1:
        fits = int(np.searchsorted(starts, starts[begin] + _SLOTS, side="right")) - 1
        parts.append(slice(begin, min(max(fits, begin + 1), begin + height, len(starts) - 1)))
        begin = parts[-1].stop
    return parts


@dataclass(frozen=True, slots=True)
class _Block:
    """Gallery rows ``rows`` in float32, and what turns a product with them into a value, exact in float64."""

    rows: slice
    features: Tensor
    ids: Tensor
    offset: Tensor | None  # |g|^2 / 2, NaN for an item that is left out
    scale: Tensor | None  # 1 / |g|, likewise

    def values(self, products: Tensor, items: Tensor) -> Tensor:
        """Of pairs with the block's rows ``items``, from float64 products."""
        if self.offset is not None:
            return self.offset[items] - products
        assert self.scale is not None
        return -(products * self.scale[items])


@dataclass(frozen=True, slots=True)
class _Screening:
    """The gallery, and how it is ranked. Times ``scale`` no row of query or gallery is longer than 1."""

    gallery: Tensor
    ids: Tensor
    is_junk: Tensor
    metric: Metric
    device: torch.device
    scale: float
    bounded: bool
    norms: dict[int, Tensor] = field(default_factory=dict)  # squared, of the blocks so far, by their first rows

    def blocks(self) -> Iterator[_Block]:
        """Blocks of the gallery in their order."""
        height = max(1, _BLOCK_BYTES // (4 * self.gallery.shape[1]))
        for rows, features in feature_blocks(
            self.gallery, device=self.device, dtype=torch.float32, rows_per_block=height
        ):
            if rows.start not in self.norms:
                each = torch.arange(len(features), device=self.device)
                self.norms[rows.start] = pair_products(features, features, each, each)
            norms = self.norms[rows.start]
            offset = scale = None
            if self.metric == "cosine":
                scale = torch.where(norms > 0, norms.sqrt().reciprocal(), 0.0)
                scale[self.is_junk[rows]] = torch.nan
            else:
                offset = norms / 2
                offset[self.is_junk[rows]] = torch.nan
            yield _Block(rows, features, self.ids[rows], offset, scale)

    @property
    def unit(self) -> float:
        """What values are multiplied by where scaled products are compared: a power of two."""
        return self.scale if self.metric == "cosine" else self.scale**2


@dataclass(frozen=True, slots=True)
class _Positives:
    """The positives of a part of the queries, those of each query by (value, gallery index).

    Attributes:
        starts: (R + 1,) where each query's begin.
        bounds: the same on the CPU.
        items: (P,) gallery indices.
        values: (P,) float64.
        below: (P,) float32, the values times ``unit`` rounded down.
        above: (P,) float32, likewise rounded up.
        entered: (P,) int64, negatives that precede this positive, and none before it.
    """

    starts: Tensor
    bounds: Tensor
    items: Tensor
    values: Tensor
    below: Tensor
    above: Tensor
    entered: Tensor

    def enter(self, rows: Tensor, values: Tensor, items: Tensor) -> None:
        """Enter negatives, given by query row, exact value and gallery index, at the first positive they precede."""
        first, last = self.starts[rows], self.starts[rows + 1]
        low, high = first, last
        for _ in range(int((last - first).max()).bit_length() if len(rows) else 0):
            middle = (low + high) // 2
            inside = low < high
            at = middle.clamp(max=len(self.values) - 1)
            threshold = self.values[at]
            precedes = (values < threshold) | ((values == threshold) & (items < self.items[at]))
            high = torch.where(inside & precedes, middle, high)
            low = torch.where(inside & ~precedes, middle + 1, low)
        counts = (low < last).to(torch.int64)
        self.entered.index_add_(0, torch.where(low < last, low, 0), counts)

    def ranks(self, slots: Tensor) -> Tensor:
        """(slots[-1],) ranks, in the first slots of each query; ``slots`` (R + 1,) is where they begin."""
        rows = _rows_of(self.starts)
        place = torch.arange(len(self.items), device=self.items.device) - self.starts[rows]
        entered = torch.cat([self.entered.new_zeros(1), self.entered.cumsum(0)])
        ranks = slots.new_full((int(slots[-1]),), -1)
        ranks[slots[rows] + place] = entered[1:] - entered[self.starts[rows]] + place
        return ranks


def _rows_of(starts: Tensor) -> Tensor:
    return torch.repeat_interleave(torch.arange(len(starts) - 1, device=starts.device), starts.diff())


def _positives(query: Tensor, gallery: Tensor, matches: Matches, rows: slice, screening: _Screening) -> _Positives:
    device = screening.device

    def move(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(device)

    slots = move(matches.starts[rows.start : rows.stop + 1] - matches.starts[rows.start])
    owners = _rows_of(slots)
    place = torch.arange(len(owners), device=device) - slots[owners]
    items = move(matches.order)[move(matches.begin[rows])[owners] + place]
    valid = ~screening.is_junk[items]
    if matches.query_cams is not None and matches.gallery_cams is not None:
        valid &= move(matches.query_cams[rows])[owners] != move(matches.gallery_cams)[items]
    owners, items = owners[valid], items[valid]

    values = torch.empty(len(items), dtype=torch.float64, device=device)
    for block in screening.blocks():
        here = ((items >= block.rows.start) & (items < block.rows.stop)).nonzero().flatten()
        for chosen in here.split(_GATHER_PAIRS):
            local = items[chosen] - block.rows.start
            values[chosen] = block.values(pair_products(query, block.features, owners[chosen], local), local)
    # Both sorts are stable, and the items of a query ascend: the order is (query, value, gallery index).
    order = values.argsort(stable=True)
    order = order[owners[order].argsort(stable=True)]
    counts = torch.bincount(owners, minlength=len(query))
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    values, items = values[order], items[order]
    scaled = values * screening.unit
    near = scaled.to(torch.float32)
    below = torch.where(near.to(torch.float64) > scaled, torch.nextafter(near, near.new_tensor(-math.inf)), near)
    above = torch.where(near.to(torch.float64) < scaled, torch.nextafter(near, near.new_tensor(math.inf)), near)
    return _Positives(starts, starts.cpu(), items, values, below, above, torch.zeros_like(items))


@dataclass(frozen=True, slots=True)
class _Screen:
    """A block of the gallery as approximate products need it: what :func:`screen_negatives_` takes of its items."""

    rounded: Rounded
    errors: Tensor  # (3, C)
    columns: dict[str, Tensor]  # offset or scale


def _screen_of(block: _Block, screening: _Screening, products: torch.dtype) -> _Screen:
    gallery = rounded(block.features, screening.scale, products)
    # |q - q'| |g|, and |q'| times the rest: the rounding of g, the additions, and the rounding of the value itself.
    relative = accumulation_error(block.features.shape[1], products) + _SLACK
    errors = torch.stack([gallery.size + gallery.error, gallery.error + relative * gallery.size, gallery.size * 0])
    if block.offset is not None:
        columns = {"offset": (block.offset * screening.unit).to(torch.float32)}
        errors[2] = columns["offset"].nan_to_num() * _SLACK + _TINY
    else:
        assert block.scale is not None
        columns = {"scale": (block.scale / screening.scale).to(torch.float32)}
        errors *= columns["scale"].nan_to_num()
    return _Screen(gallery, errors * (1 + _SLACK) if screening.bounded else errors * 0, columns)


def _screen_block(
    query: Tensor, query_ids: Tensor, block: _Block, positives: _Positives, screening: _Screening, products: torch.dtype
) -> torch.dtype:
    """Enter the negatives of a block; returns the dtype in which the next one's products should be."""
    screen = _screen_of(block, screening, products)
    reach = screen.errors.amax(dim=1)
    height = max(1, _TILE_BYTES // (4 * len(block.features)))
    num_open = 0
    for begin in range(0, len(query), height):
        rows = slice(begin, min(begin + height, len(query)))
        strip = rounded(query[rows], screening.scale, products)
        errors = torch.stack([strip.error, strip.size], dim=1)
        owners, items = _enter_decided(
            multiply(strip.values, screen.rounded.values),
            screen,
            positives,
            rows,
            query_error=errors,
            # element by element: autocast would round a matrix product, and not upwards
            reach=(errors[:, 0] * reach[0] + errors[:, 1] * reach[1] + reach[2]) * (1 + _SLACK),
            query_ids=query_ids[rows],
            gallery_ids=block.ids,
        )
        num_open += len(owners)
        for some, of_them in zip(owners.split(_GATHER_PAIRS), items.split(_GATHER_PAIRS), strict=True):
            values = block.values(pair_products(query, block.features, some, of_them), of_them)
            positives.enter(some, values, of_them + block.rows.start)
    share = num_open / (len(query) * len(block.features))
    return torch.float32 if share > _TOO_MANY_OPEN else products


def _enter_decided(
    tile: Tensor, screen: _Screen, positives: _Positives, rows: slice, **arguments: Tensor
) -> tuple[Tensor, Tensor]:
    """Enter what the products of a tile decide; returns the other pairs, as query rows and as items of the block."""
    (first, last), width = positives.bounds[[rows.start, rows.stop]].tolist(), tile.shape[1]
    mine = slice(first, last)
    thresholds = {"below": positives.below[mine], "above": positives.above[mine]}
    starts = positives.starts[rows.start : rows.stop + 1] - first
    capacity = max(1, width // _CAPACITY)
    listed, undecided = screen_negatives_(
        tile,
        gallery_error=screen.errors,
        starts=starts,
        entered=positives.entered[mine],
        capacity=capacity,
        **screen.columns,
        **thresholds,
        **arguments,
    )
    fits = undecided <= capacity
    owners, items = _listed(listed, torch.where(fits, undecided, 0))
    found = [(owners + rows.start, items)]
    if not bool(fits.all()):
        # Lists that are too short are made anew, for a slice of items at a time that fits in any case.
        crowded = (~fits).nonzero().flatten()
        counts = starts.diff()[crowded]
        where = torch.repeat_interleave(starts[crowded] - counts.cumsum(0) + counts, counts)
        places = where + torch.arange(len(where), device=where.device)
        for begin in range(0, width, capacity):
            columns = slice(begin, min(begin + capacity, width))
            listed, undecided = screen_negatives_(
                tile[crowded, columns],
                query_error=arguments["query_error"][crowded],
                gallery_error=screen.errors[:, columns].contiguous(),
                reach=arguments["reach"][crowded],
                query_ids=arguments["query_ids"][crowded],
                gallery_ids=arguments["gallery_ids"][columns],
                starts=torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
                entered=torch.zeros_like(places),  # the first call has entered them
                capacity=capacity,
                **{name: values[columns] for name, values in screen.columns.items()},
                **{name: values[places] for name, values in thresholds.items()},
            )
            owners, items = _listed(listed, undecided)
            found.append((crowded[owners] + rows.start, items + begin))
    return torch.cat([owners for owners, _ in found]), torch.cat([items for _, items in found])


def _listed(lists: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """The entries of lists (R, capacity) up to each one's length: their rows, ascending, and what they are."""
    present = torch.arange(lists.shape[1], device=lists.device) < lengths[:, None]
    return present.nonzero()[:, 0], lists[present].to(torch.int64)
