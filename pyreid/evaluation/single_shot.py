"""The single-gallery-shot protocol of CUHK03's first version: one image of each identity in the gallery."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyreid.evaluation.distances import ranking_strips
from pyreid.evaluation.inputs import JUNK_ID, as_count, as_max_rank, as_sets
from pyreid.evaluation.progress import progress_bar
from pyreid.evaluation.ranking import Matches, StripRanker, find_matches
from pyreid.evaluation.repeats import RepeatedResult
from pyreid.evaluation.scores import AveragePrecision, query_scores
from pyreid.ops._checks import Metric, check_choice, computing_dtype
from pyreid.ops.features import choose_device

REPEATS = 10


def evaluate_single_shot(
    query: Any,
    gallery: Any,
    query_ids: Any,
    gallery_ids: Any,
    query_cams: Any = None,
    gallery_cams: Any = None,
    *,
    repeats: int = REPEATS,
    seed: int = 0,
    metric: Metric = "euclidean",
    ap: AveragePrecision = "step",
    max_rank: int = 50,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> RepeatedResult:
    """CMC by the first protocol of CUHK03 (100 test identities): one random gallery image stands for each identity.

    For each query, after images of its identity and camera and images with identity -1 are left out, one image of each
    identity of the gallery is drawn, ``repeats`` times over; the CMC is that of these short galleries. mAP is that of
    the whole gallery, and so the same in all repeats, as in torchreid (``use_metric_cuhk03``). Queries without a match
    are skipped. Seeded draws make it repeatable, which peers are not.

    Args:
        query: (Q, D) features, as for :func:`pyreid.evaluate`.
        gallery: (G, D) features.
        query_ids: (Q,) integers.
        gallery_ids: (G,) integers.
        query_cams: (Q,) integers. None for both cameras: no camera filter.
        gallery_cams: (G,) integers.
        repeats: number of draws for each query.
        seed: of the draws.
        metric: ``"euclidean"``, ``"sqeuclidean"`` or ``"cosine"``.
        ap: definition of AP.
        max_rank: length of the curve; past the number of identities it stays at its last value.
        device: where to compute; None: where the features are.
        progress: show a progress bar.

    Raises:
        TypeError: if features are not floating-point, or identities or cameras not integers.
        ValueError: if shapes, lengths or options are wrong, features are NaN, infinite or out of range, or no query has
            a match.
    """
    check_choice("metric", metric, Metric)
    check_choice("ap", ap, AveragePrecision)
    repeats, seed = as_count("repeats", repeats, least=1), as_count("seed", seed, least=0)
    max_rank = as_max_rank(max_rank)
    sets = as_sets(query, gallery, query_ids, gallery_ids, query_cams, gallery_cams)
    chosen = choose_device(sets.query, sets.gallery, device)
    matches = find_matches(sets.query_ids, sets.gallery_ids, sets.query_cams, sets.gallery_cams)
    ranker = StripRanker(matches, chosen)
    shots = SingleShots(sets.gallery_ids, matches, max_rank=max_rank, repeats=repeats, seed=seed, left_out_id=JUNK_ID)
    with progress_bar("ranking queries", len(sets.query), show=progress) as advance:
        for rows, values in ranking_strips(sets, metric=metric, device=chosen):
            ranker.rank(values, rows)
            for row in range(rows.start, rows.stop):
                shots.draw(row, values[row - rows.start])
            advance(rows.stop - rows.start)
    scores = query_scores(ranker.ranks, matches.starts)
    if shots.num_matched == 0:
        raise ValueError(f"query_ids: none of the {len(sets.query)} queries has a match in the gallery")
    average_precision = scores.step if ap == "step" else scores.trapezoid
    return RepeatedResult(
        maps=np.full(repeats, average_precision[scores.matched].mean()),
        cmcs=shots.curves(),
        num_queries=np.full(repeats, shots.num_matched),
        seed=seed,
        settings={
            "metric": metric,
            "ap": ap,
            "max_rank": max_rank,
            "camera_filter": sets.query_cams is not None,
            "device": str(chosen),
            "dtype": str(computing_dtype(sets.query, sets.gallery)).removeprefix("torch."),
        },
    )


def single_shot_match(
    distances: Tensor, gallery_ids: np.ndarray, matches: Matches, *, max_rank: int, seed: int
) -> np.ndarray:
    """CMC when one random image stands for each identity of the gallery, averaged over 10 draws per query.

    Args:
        distances: (Q, G).
        gallery_ids: (G,).
        matches: with cameras; images of the query's identity and camera are left out of the draw.
        max_rank: length of the curve; past the number of identities it stays at its last value.
        seed: of the draws.

    Returns:
        (max_rank,) float64, the mean over the queries that have a match.
    """
    shots = SingleShots(gallery_ids, matches, max_rank=max_rank, repeats=REPEATS, seed=seed)
    for query in range(len(distances)):
        shots.draw(query, distances[query])
    return shots.curves().mean(axis=0)


class SingleShots:
    """Draws short galleries for one query after the other, and counts at which rank they hold its match.

    Attributes:
        num_matched: how many of the queries so far have a match.
    """

    def __init__(
        self,
        gallery_ids: np.ndarray,
        matches: Matches,
        *,
        max_rank: int,
        repeats: int,
        seed: int,
        left_out_id: int | None = None,
    ) -> None:
        self.num_matched = 0
        self._matches = matches
        self._rng = np.random.default_rng(seed)
        ids, sizes = np.unique(gallery_ids, return_counts=True)
        begins = np.cumsum(sizes) - sizes  # where each identity begins in matches.order
        kept = np.ones(len(ids), dtype=bool) if left_out_id is None else ids != left_out_id
        self._begins, self._sizes = begins[kept], sizes[kept]
        self._hits = np.zeros((repeats, max_rank), dtype=np.int64)

    def draw(self, query: int, values: Tensor) -> None:
        """Draw for one query, by its (G,) values: the smaller, the nearer."""
        matches = self._matches
        begin, slots = matches.begin[query], matches.starts[query + 1] - matches.starts[query]
        place = np.searchsorted(self._begins, begin)
        if slots == 0 or place == len(self._begins) or self._begins[place] != begin:  # no match, or an id left out
            return
        positives = matches.order[begin : begin + slots]
        if matches.query_cams is not None and matches.gallery_cams is not None:
            positives = positives[matches.gallery_cams[positives] != matches.query_cams[query]]
        if len(positives) == 0:
            return
        self.num_matched += 1
        row = values.cpu().numpy()
        repeats, max_rank = self._hits.shape
        drawn = (self._rng.random((repeats, len(self._begins))) * self._sizes).astype(np.int64)
        shots = matches.order[self._begins + drawn]
        own = self._rng.choice(positives, size=repeats)
        shots[:, place] = own
        own = own[:, None]
        nearer = (row[shots] < row[own]) | ((row[shots] == row[own]) & (shots < own))
        ranks = nearer.sum(axis=1)
        within = np.flatnonzero(ranks < max_rank)
        self._hits[within, ranks[within]] += 1

    def curves(self) -> np.ndarray:
        """(repeats, max_rank) float64: CMC of each repeat, over the queries that have a match."""
        return self._hits.cumsum(axis=1) / self.num_matched
