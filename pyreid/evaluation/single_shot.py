"""The single-gallery-shot protocol of CUHK03's first version: one image of each identity in the gallery."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from pyreid.evaluation.ranking import Matches

REPEATS = 10


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
    assert matches.query_cams is not None
    assert matches.gallery_cams is not None
    rng = np.random.default_rng(seed)
    _, sizes = np.unique(gallery_ids, return_counts=True)
    begins = np.cumsum(sizes) - sizes  # where each identity begins in matches.order
    hits = np.zeros(max_rank)
    num_matched = 0
    for query in range(len(distances)):
        begin, slots = matches.begin[query], matches.starts[query + 1] - matches.starts[query]
        same_id = matches.order[begin : begin + slots]
        positives = same_id[matches.gallery_cams[same_id] != matches.query_cams[query]]
        if len(positives) == 0:
            continue
        num_matched += 1
        row = distances[query].cpu().numpy()
        shots = matches.order[begins + (rng.random((REPEATS, len(begins))) * sizes).astype(np.int64)]
        own = rng.choice(positives, size=REPEATS)
        shots[:, np.searchsorted(begins, begin)] = own
        own = own[:, None]
        nearer = (row[shots] < row[own]) | ((row[shots] == row[own]) & (shots < own))
        ranks = nearer.sum(axis=1)
        hits += np.bincount(ranks[ranks < max_rank], minlength=max_rank)
    return hits.cumsum() / (REPEATS * num_matched)
