"""From identities and cameras to the ranks of every query's positives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pyreid.ops.rank_positives import rank_positives


@dataclass(frozen=True, slots=True)
class Matches:
    """The gallery items of each query's identity; all arrays are int64.

    Attributes:
        order: (G,) gallery indices sorted by (identity, index).
        begin: (Q,) where the query's identity begins in ``order``.
        starts: (Q + 1,) running sum of the number of gallery items of each query's identity: the query's slots.
        query_cams: (Q,), or None for no camera filter.
        gallery_cams: (G,), or None.
    """

    order: np.ndarray
    begin: np.ndarray
    starts: np.ndarray
    query_cams: np.ndarray | None
    gallery_cams: np.ndarray | None

    def of(self, rows: slice) -> Matches:
        """Those of some of the queries."""
        starts = self.starts[rows.start : rows.stop + 1]
        cams = None if self.query_cams is None else self.query_cams[rows]
        return Matches(self.order, self.begin[rows], starts - starts[0], cams, self.gallery_cams)


def find_matches(
    query_ids: np.ndarray,
    gallery_ids: np.ndarray,
    query_cams: np.ndarray | None,
    gallery_cams: np.ndarray | None,
) -> Matches:
    """Look up every query's identity in the gallery."""
    order = np.argsort(gallery_ids, kind="stable")
    by_id = gallery_ids[order]
    begin = np.searchsorted(by_id, query_ids, side="left")
    counts = np.searchsorted(by_id, query_ids, side="right") - begin
    starts = np.concatenate([[0], np.cumsum(counts)])
    return Matches(order, begin, starts, query_cams, gallery_cams)


class StripRanker:
    """Ranks strips of queries on one device.

    ``ranks`` (slots,) fills up: for each query its positives' ranks, ascending, then -1 for its other slots.
    """

    def __init__(
        self, matches: Matches, device: torch.device, *, offset: Tensor | None = None, scale: Tensor | None = None
    ) -> None:
        self.ranks = np.full(int(matches.starts[-1]), -1, dtype=np.int64)
        self._matches = matches
        self._device = device
        self._offset, self._scale = offset, scale
        self._order = self._move(matches.order)
        self._gallery_cams = None if matches.gallery_cams is None else self._move(matches.gallery_cams)

    def rank(self, values: Tensor, rows: slice) -> np.ndarray:
        """Rank the queries ``rows`` by their values (R, G); returns the number of NaN in each row."""
        starts = self._matches.starts[rows.start : rows.stop + 1]
        cams = self._matches.query_cams
        ranks, nans = rank_positives(
            values,
            order=self._order,
            begin=self._move(self._matches.begin[rows]),
            starts=self._move(starts - starts[0]),
            slots=int(starts[-1] - starts[0]),
            offset=self._offset,
            scale=self._scale,
            query_cams=None if cams is None else self._move(cams[rows]),
            gallery_cams=self._gallery_cams,
        )
        self.ranks[starts[0] : starts[-1]] = ranks.cpu().numpy()
        return nans.cpu().numpy()

    def _move(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self._device)
