"""torchreid's ``evaluate_rank``: metrics from a given distance matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyreid.evaluation.inputs import as_integers, as_max_rank
from pyreid.evaluation.ranking import Matches, StripRanker, find_matches
from pyreid.evaluation.scores import cumulative_match, query_scores
from pyreid.evaluation.single_shot import single_shot_match
from pyreid.ops.features import as_features

_ROWS_AT_A_TIME = 1024


def evaluate_rank(
    distmat: Any,
    q_pids: Any,
    g_pids: Any,
    q_camids: Any,
    g_camids: Any,
    max_rank: int = 50,
    use_metric_cuhk03: bool = False,
    *,
    seed: int = 0,
) -> tuple[np.ndarray, float]:
    """CMC and mAP from a distance matrix: a drop-in for torchreid's function of this name.

    As there: gallery images with the query's identity and camera are left out, a query without a match is skipped, AP
    is the mean of the precision at each positive over the whole ranking, and no identity has a special meaning. Unlike
    there: ties are in the order of the gallery, a CMC longer than the gallery goes on at its last value instead of
    being cut, AP is summed in float64, and NaN is an error.

    Args:
        distmat: (Q, G) distances, float16, float32 or float64, a torch tensor on the CPU or CUDA, a NumPy array or
            anything with DLPack. It is not copied and not changed.
        q_pids: (Q,) integers, identities.
        g_pids: (G,) integers.
        q_camids: (Q,) integers, cameras.
        g_camids: (G,) integers.
        max_rank: length of the CMC curve.
        use_metric_cuhk03: single-gallery-shot CMC of the old CUHK03 protocol: each identity of the gallery is
            represented by one random image, 10 times over. mAP is that of the whole gallery.
        seed: of these random images.

    Returns:
        ``(cmc, mAP)``: (max_rank,) float32, of which ``cmc[k - 1]`` is rank-k, and a float.

    Raises:
        TypeError: if distances are not floating-point, or identities or cameras not integers.
        ValueError: if shapes or lengths are wrong, distances are NaN, or no query has a match in the gallery under
            another camera (torchreid: AssertionError).
    """
    max_rank = as_max_rank(max_rank)
    distances = as_features("distmat", distmat)
    num_query, num_gallery = distances.shape
    gallery_ids = as_integers("g_pids", g_pids, num_gallery, "column of distmat")
    matches = find_matches(
        as_integers("q_pids", q_pids, num_query, "row of distmat"),
        gallery_ids,
        as_integers("q_camids", q_camids, num_query, "row of distmat"),
        as_integers("g_camids", g_camids, num_gallery, "column of distmat"),
    )
    scores = query_scores(_rank_distances(distances, matches), matches.starts)
    num_matched = int(scores.matched.sum())
    if num_matched == 0:
        raise ValueError(
            f"q_pids: none of the {num_query} queries has a match in the gallery under another camera; check the "
            "identities and cameras (a data set without cameras can be evaluated with pyreid.evaluate)"
        )
    if use_metric_cuhk03:
        cmc = single_shot_match(distances, gallery_ids, matches, max_rank=max_rank, seed=seed)
    else:
        cmc = cumulative_match(scores.first_match_rank, max_rank, num_matched)
    return cmc.astype(np.float32), float(scores.step[scores.matched].mean())


def _rank_distances(distances: Tensor, matches: Matches) -> np.ndarray:
    ranker = StripRanker(matches, distances.device)
    nans = np.zeros(len(distances), dtype=np.int64)
    for start in range(0, len(distances), _ROWS_AT_A_TIME):
        rows = slice(start, min(start + _ROWS_AT_A_TIME, len(distances)))
        strip = distances[rows]
        nans[rows] = ranker.rank(strip if strip.dtype == torch.float64 else strip.float(), rows)
    if nans.any():
        row = int(np.flatnonzero(nans)[0])
        column = int(torch.isnan(distances[row]).nonzero()[0])
        raise ValueError(f"distmat: {nans.sum()} NaN distances, the first at row {row}, column {column}")
    return ranker.ranks
