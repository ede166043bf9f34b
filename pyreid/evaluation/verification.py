"""Same or not by a threshold on the distance: ROC, TPR at a false positive rate, equal error rate. Exact, by counting.

A distance is a non-negative number of 24 significant bits, and those sort as their bits do. One pass over all pairs
counts the distances by their upper bits, 256 bins for each power of two. That says in which bin each wanted threshold
lies; a second pass counts the distances in these bins by the remaining 15 bits, so that every threshold is found to the
last bit, and with it the exact numbers of pairs below. Nothing is sorted and no Q x G matrix is made.

Distances in float64 keep float64's exponent: no distance is too large or too small to count.
"""

from __future__ import annotations

import bisect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyreid._files import write_json
from pyreid.evaluation.distances import distance_strips
from pyreid.evaluation.inputs import JUNK_ID, Sets, as_sets
from pyreid.evaluation.progress import progress_bar
from pyreid.evaluation.ranking import Matches, find_matches
from pyreid.ops._checks import Metric, check_choice, computing_dtype
from pyreid.ops.features import choose_device

_FINE_BITS = 15
_PAIRS_AT_A_TIME = 2**20  # what stays in a cache


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Non-negative numbers of 24 significant bits as integers in the same order: the bits of float32, or of float64
    without the last 29 of its mantissa.

    Attributes:
        dtype: of the distances.
        integers: NumPy's type of the same width.
        dropped: number of bits that are rounded away.
        infinity: what stands for it, and for left-out pairs. Distances are finite.
    """

    dtype: torch.dtype
    integers: type[np.signedinteger[Any]]
    dropped: int
    infinity: int

    @property
    def num_bins(self) -> int:
        """Of all numbers, also those above infinity."""
        return 1 << (8 * self.dtype.itemsize - 1 - self.dropped - _FINE_BITS)

    @property
    def infinity_bin(self) -> int:
        """The first that holds no distances."""
        return self.infinity >> _FINE_BITS

    def bits(self, values: Tensor) -> Tensor:
        """The integers of distances and of infinity. In float64 they are rounded to the nearest, ties to even."""
        if self.dropped == 0:
            return values.view(torch.int32)
        bits = values.view(torch.int64)
        kept = bits >> self.dropped
        rounded = (bits + ((1 << (self.dropped - 1)) - 1) + (kept & 1)) >> self.dropped
        # What is finite stays so, by rounding down.
        return torch.where(kept < self.infinity, rounded.clamp_(max=self.infinity - 1), kept)

    def values(self, bits: Any) -> np.ndarray:
        """The numbers of such integers, float64."""
        floats = np.float32 if self.dropped == 0 else np.float64
        return (np.asarray(bits, dtype=self.integers) << self.dropped).view(floats).astype(np.float64)


_NUMBERS = {
    torch.float32: _Numbers(torch.float32, np.int32, 0, 0x7F800000),
    torch.float64: _Numbers(torch.float64, np.int64, 29, 0x7FF0_0000_0000_0000 >> 29),
}


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class VerificationResult:
    """How well a threshold on the distance tells pairs of one identity from others.

    A pair is accepted if its distance is below the threshold. The true positive rate (TPR) is the share of pairs of one
    identity that are accepted, the false positive rate (FPR) that of pairs of two. The arrays are read-only.

    Attributes:
        fprs: (F,) float64, the false positive rates that were asked for.
        thresholds: (F,) float64, for each of them the largest threshold that does not exceed it.
        tpr: (F,) float64, the TPR at this threshold.
        fpr: (F,) float64, the FPR that it reaches.
        eer: equal error rate: where FPR and 1 - TPR meet on the ROC, its points joined by straight lines.
        eer_threshold: the threshold of the point of the ROC where they differ least.
        roc_thresholds: (P,) float64, ascending: one for each coarse step (256 for each power of two) that occurs.
        roc_tpr: (P,) float64, exact at these thresholds; from 0 to 1.
        roc_fpr: (P,) float64, likewise.
        num_positive: number of pairs of one identity.
        num_negative: number of pairs of two identities.
        settings: the options of the verification.
    """

    fprs: np.ndarray
    thresholds: np.ndarray
    tpr: np.ndarray
    fpr: np.ndarray
    eer: float
    eer_threshold: float
    roc_thresholds: np.ndarray
    roc_tpr: np.ndarray
    roc_fpr: np.ndarray
    num_positive: int
    num_negative: int
    settings: dict[str, Any]

    def __post_init__(self) -> None:
        for array in (
            self.fprs, self.thresholds, self.tpr, self.fpr, self.roc_thresholds, self.roc_tpr, self.roc_fpr
        ):  # fmt: skip
            array.flags.writeable = False

    def __repr__(self) -> str:
        rates = ", ".join(f"TPR@{f:g}={t:.4f}" for f, t in zip(self.fprs, self.tpr, strict=True))
        return f"VerificationResult(eer={self.eer:.4f}, {rates})"

    def tpr_at(self, fpr: float) -> float:
        """TPR at one of the false positive rates that were asked for."""
        return float(self.tpr[self._place(fpr)])

    def threshold_at(self, fpr: float) -> float:
        """Largest threshold that does not exceed one of the false positive rates that were asked for."""
        return float(self.thresholds[self._place(fpr)])

    def _place(self, fpr: float) -> int:
        found = np.flatnonzero(self.fprs == fpr)
        if len(found) == 0:
            raise ValueError(f"fpr: expected one of {self.fprs.tolist()}, as asked for by fprs=, got {fpr}")
        return int(found[0])

    def summary(self) -> str:
        """A small table for people, rates in per cent."""
        rows = [
            f"{'pairs':<12} {self.num_positive} of one identity, {self.num_negative} of two",
            f"{'metric':<12} {self.settings['metric']}",
            f"{'EER':<12} {100 * self.eer:.3f} % at threshold {self.eer_threshold:.6g}",
        ]
        rows += [
            f"{f'TPR@FPR {fpr:g}':<12} {100 * tpr:.2f} % at threshold {threshold:.6g}"
            for fpr, tpr, threshold in zip(self.fprs, self.tpr, self.thresholds, strict=True)
        ]
        return "\n".join(rows)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain Python values."""
        arrays = ("fprs", "thresholds", "tpr", "fpr", "roc_thresholds", "roc_tpr", "roc_fpr")
        numbers = ("eer", "eer_threshold", "num_positive", "num_negative")
        plain: dict[str, Any] = {name: getattr(self, name) for name in numbers}
        return plain | {name: getattr(self, name).tolist() for name in arrays} | {"settings": dict(self.settings)}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write :meth:`to_dict` as JSON. The file appears whole or not at all.

        Raises:
            OSError: if the folder cannot be made or written.
        """
        write_json(Path(path), self.to_dict())


def verify(
    query: Any,
    gallery: Any,
    query_ids: Any,
    gallery_ids: Any,
    query_cams: Any = None,
    gallery_cams: Any = None,
    *,
    metric: Metric = "euclidean",
    fprs: Sequence[float] = (1e-4, 1e-3, 1e-2, 1e-1),
    device: torch.device | str | None = None,
    progress: bool = False,
) -> VerificationResult:
    """Judge distances as a test of "same identity or not", over all pairs of a query and a gallery image.

    Pairs follow the rules of :func:`pyreid.evaluate`: a gallery image of the query's identity from its own camera makes
    no pair, and neither does one with identity -1. All others count, once each.

    The numbers of pairs are exact integers for distances rounded to 24 significant bits, those of float32, found in two
    passes of the same tiles as evaluation; the rounding moves a threshold by less than 1e-7 of its value. Distances of
    float64 features keep the range of float64. How exact the distances are, see
    :func:`pyreid.evaluation.distances.distance_strips`. Memory is that of a strip.

    Args:
        query: (Q, D) features, as for :func:`pyreid.evaluate`.
        gallery: (G, D) features.
        query_ids: (Q,) integers.
        gallery_ids: (G,) integers.
        query_cams: (Q,) integers. None for both cameras: no camera filter.
        gallery_cams: (G,) integers.
        metric: ``"euclidean"``, ``"sqeuclidean"`` or ``"cosine"``; thresholds are in its units.
        fprs: false positive rates, each at least 0 and below 1. At 0 the threshold is the smallest distance of a pair
            of two identities.
        device: where to compute; None: where the features are.
        progress: show a progress bar.

    Raises:
        TypeError: if features are not floating-point, or identities or cameras not integers.
        ValueError: if shapes, lengths or options are wrong, features are NaN, infinite or out of range, or there is no
            pair of one identity or none of two.
    """
    check_choice("metric", metric, Metric)
    wanted = _as_rates(fprs)
    sets = as_sets(query, gallery, query_ids, gallery_ids, query_cams, gallery_cams)
    chosen = choose_device(sets.query, sets.gallery, device)
    matches = find_matches(sets.query_ids, sets.gallery_ids, sets.query_cams, sets.gallery_cams)
    numbers = _NUMBERS[computing_dtype(sets.query, sets.gallery)]

    def count_pairs(bin_of: Callable[[Tensor], Tensor], num_bins: int, title: str) -> tuple[np.ndarray, np.ndarray]:
        return _count(sets, matches, numbers, bin_of, num_bins, metric, chosen, title if progress else None)

    positive, negative = count_pairs(
        lambda bits: bits >> _FINE_BITS, numbers.num_bins, "counting distances, pass 1 of 2"
    )
    coarse = _Histogram.of(positive[: numbers.infinity_bin], negative[: numbers.infinity_bin])
    _check_pairs(coarse, sets)
    places = [coarse.bin_of_negative(_allowed(rate, coarse.num_negative)) for rate in wanted]
    places.append(coarse.bin_of_equal_error())

    bins = sorted(set(places))
    slot = torch.full((numbers.num_bins,), len(bins), dtype=torch.int32, device="cpu")
    slot[bins] = torch.arange(len(bins), dtype=torch.int32, device="cpu")
    slot = slot.to(chosen)
    low_bits = (1 << _FINE_BITS) - 1

    def fine_bin(bits: Tensor) -> Tensor:
        upper = (bits >> _FINE_BITS).flatten()
        return (slot.index_select(0, upper) << _FINE_BITS) + (bits.flatten() & low_bits)

    positive, negative = count_pairs(fine_bin, (len(bins) + 1) << _FINE_BITS, "counting distances, pass 2 of 2")
    fine = {
        place: coarse.refined(place, positive.reshape(-1, low_bits + 1)[i], negative.reshape(-1, low_bits + 1)[i])
        for i, place in enumerate(bins)
    }

    points = []
    for rate, place in zip(wanted, places, strict=False):
        histogram = fine[place]
        found = histogram.bin_of_negative(_allowed(rate, coarse.num_negative))
        value = float(numbers.values((place << _FINE_BITS) + found))
        points.append((value, *histogram.rates_before(found)))
    eer, offset = fine[places[-1]].equal_error()
    thresholds, tpr, fpr = (np.array(column, dtype=np.float64) for column in zip(*points, strict=True))
    return VerificationResult(
        fprs=np.array(wanted),
        thresholds=thresholds,
        tpr=tpr,
        fpr=fpr,
        eer=eer,
        eer_threshold=float(numbers.values((places[-1] << _FINE_BITS) + offset)),
        **coarse.curve(numbers),
        num_positive=coarse.num_positive,
        num_negative=coarse.num_negative,
        settings={
            "metric": metric,
            "camera_filter": sets.query_cams is not None,
            "device": str(chosen),
            "dtype": str(computing_dtype(sets.query, sets.gallery)).removeprefix("torch."),
        },
    )


def _as_rates(fprs: Sequence[float]) -> list[float]:
    rates = [float(rate) for rate in fprs]
    if not rates:
        raise ValueError("fprs: expected at least one false positive rate")
    for rate in rates:
        if not 0 <= rate < 1:
            raise ValueError(f"fprs: expected rates of at least 0 and below 1, got {rate}")
    return rates


def _allowed(rate: float, num_negative: int) -> int:
    """How many negatives may be accepted; of the decimal number that was written, 0.3 of 10 is 3."""
    return int(Fraction(repr(rate)) * num_negative)


def _check_pairs(counts: _Histogram, sets: Sets) -> None:
    if counts.num_positive == 0:
        under = " under another camera" if sets.query_cams is not None else ""
        raise ValueError(f"query_ids: no query has a match in the gallery{under}; there is nothing to accept")
    if counts.num_negative == 0:
        raise ValueError("gallery_ids: no gallery image differs from a query in identity; there is nothing to reject")


def _count(
    sets: Sets,
    matches: Matches,
    numbers: _Numbers,
    bin_of: Callable[[Tensor], Tensor],
    num_bins: int,
    metric: Metric,
    device: torch.device,
    title: str | None,
) -> tuple[np.ndarray, np.ndarray]:
    """(num_bins,) int64 numbers of pairs of one and of two identities, by ``bin_of`` the bits of their distances."""
    all_pairs, same_id, positive = torch.zeros(3, num_bins, dtype=torch.int64, device=device)
    junk = torch.from_numpy(np.flatnonzero(sets.gallery_ids == JUNK_ID)).to(device)
    step = max(1, _PAIRS_AT_A_TIME // len(sets.gallery))
    with progress_bar(title or "", len(sets.query), show=title is not None) as advance:
        for rows, distances in distance_strips(sets.query, sets.gallery, metric=metric, device=device):
            for start in range(rows.start, rows.stop, step):
                part = slice(start, min(start + step, rows.stop))
                values = distances[part.start - rows.start : part.stop - rows.start]
                values[:, junk] = torch.inf
                bits = numbers.bits(values)
                all_pairs += torch.bincount(bin_of(bits).flatten(), minlength=num_bins)
                row, column, is_positive = _same_identity(matches, part)
                own = bits[torch.from_numpy(row).to(device), torch.from_numpy(column).to(device)]
                same_id += torch.bincount(bin_of(own).flatten(), minlength=num_bins)
                own = own[torch.from_numpy(is_positive).to(device)]
                positive += torch.bincount(bin_of(own).flatten(), minlength=num_bins)
            advance(rows.stop - rows.start)
    return positive.cpu().numpy(), (all_pairs - same_id).cpu().numpy()


def _same_identity(matches: Matches, rows: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of one identity: row within ``rows``, gallery index, and whether their cameras differ."""
    starts = matches.starts[rows.start : rows.stop + 1]
    counts = np.diff(starts)
    row = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(starts[-1] - starts[0]) - (starts[:-1] - starts[0])[row]
    column = matches.order[matches.begin[rows][row] + within]
    if matches.query_cams is None or matches.gallery_cams is None:
        return row, column, np.ones(len(row), dtype=bool)
    return row, column, matches.query_cams[rows][row] != matches.gallery_cams[column]


@dataclass(frozen=True, slots=True)
class _Histogram:
    """Running sums of the numbers of pairs by ascending bin, with those of all bins before these.

    Attributes:
        positive: (B + 1,) int64, pairs of one identity before each bin, and after the last.
        negative: (B + 1,) int64, pairs of two.
        num_positive: of all pairs, also beyond these bins.
        num_negative: likewise.
    """

    positive: np.ndarray
    negative: np.ndarray
    num_positive: int
    num_negative: int

    @staticmethod
    def of(positive: np.ndarray, negative: np.ndarray) -> _Histogram:
        ours, theirs = (np.concatenate([[0], np.cumsum(counts)]) for counts in (positive, negative))
        return _Histogram(ours, theirs, int(ours[-1]), int(theirs[-1]))

    def refined(self, place: int, positive: np.ndarray, negative: np.ndarray) -> _Histogram:
        """The same within one bin, from the numbers of pairs in its parts."""
        ours, theirs = (
            before[place] + np.concatenate([[0], np.cumsum(counts)])
            for before, counts in ((self.positive, positive), (self.negative, negative))
        )
        return _Histogram(ours, theirs, self.num_positive, self.num_negative)

    def bin_of_negative(self, index: int) -> int:
        """The bin of the negative pair with this 0-based place in the order of distances."""
        return int(np.searchsorted(self.negative, index, side="right")) - 1

    def bin_of_equal_error(self) -> int:
        """The first bin after which the FPR is at least 1 - TPR."""
        # In integers, which Python does not let overflow.
        return bisect.bisect_left(range(len(self.positive) - 1), True, key=lambda b: self._excess(b + 1) >= 0)

    def _excess(self, place: int) -> int:
        """FPR - (1 - TPR) before a bin, times the numbers of both kinds of pairs."""
        missed = self.num_positive - int(self.positive[place])
        return int(self.negative[place]) * self.num_positive - missed * self.num_negative

    def rates_before(self, place: int) -> tuple[float, float]:
        """TPR and FPR of the threshold that is a bin's lower end."""
        return int(self.positive[place]) / self.num_positive, int(self.negative[place]) / self.num_negative

    def equal_error(self) -> tuple[float, int]:
        """The equal error rate, and the bin whose lower end is the threshold nearest to it."""
        place = self.bin_of_equal_error()
        short, over = -self._excess(place), self._excess(place + 1)
        before, after = (Fraction(int(self.negative[p]), self.num_negative) for p in (place, place + 1))
        rate = before + (after - before) * Fraction(short, short + over)
        return float(rate), place if short <= over else place + 1

    def curve(self, numbers: _Numbers) -> dict[str, np.ndarray]:
        """Thresholds and rates at the lower end of the first bin that is not empty and at the upper end of each."""
        filled = np.flatnonzero((np.diff(self.positive) > 0) | (np.diff(self.negative) > 0))
        ends = np.concatenate([filled[:1], filled + 1])
        return {
            "roc_thresholds": numbers.values(ends << _FINE_BITS),
            "roc_tpr": self.positive[ends] / self.num_positive,
            "roc_fpr": self.negative[ends] / self.num_negative,
        }
