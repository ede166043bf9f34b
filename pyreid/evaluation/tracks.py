"""Tracks: several images of one identity from one camera, ranked or pooled as one thing."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyreid.evaluation.distances import ranking_strips
from pyreid.evaluation.evaluator import summarise
from pyreid.evaluation.inputs import JUNK_ID, as_integers, as_max_rank, as_sets
from pyreid.evaluation.progress import progress_bar
from pyreid.evaluation.ranking import StripRanker, find_matches
from pyreid.evaluation.result import EvaluationResult
from pyreid.evaluation.scores import AveragePrecision, NoMatch
from pyreid.ops._checks import Metric, check_choice, computing_dtype
from pyreid.ops.feature_files import read_features
from pyreid.ops.features import choose_device

Pooling = Literal["mean", "max"]

_NUMBERS_AT_A_TIME = 2**22  # of features that are pooled


class Tracks(NamedTuple):
    """Pooled features and what is known of each track, in the order of the tracks' first images.

    Attributes:
        features: (T, D) float32, or float64 for float64 features.
        tracks: (T,) int64, the track's number.
        ids: (T,) int64, its identity.
        cams: (T,) int64, its camera; None if no cameras were given.
    """

    features: np.ndarray
    tracks: np.ndarray
    ids: np.ndarray
    cams: np.ndarray | None


def evaluate_tracks(
    query: Any,
    gallery: Any,
    query_ids: Any,
    gallery_ids: Any,
    gallery_tracks: Any,
    query_cams: Any = None,
    gallery_cams: Any = None,
    *,
    metric: Metric = "euclidean",
    ap: AveragePrecision = "step",
    no_match: NoMatch = "skip",
    max_rank: int = 50,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> EvaluationResult:
    """Rank the gallery's tracks for every query image: the image-to-track protocol of VeRi-776.

    The distance to a track is that to its nearest image. Tracks of the query's identity from its own camera are left
    out, and those with identity -1 for all queries. Ties are in the order of the tracks' first images. Rank-k is what
    VeRi-776 calls HIT@k. For pooled tracks, see :func:`pool_tracks`.

    Args:
        query: (Q, D) features, as for :func:`pyreid.evaluate`.
        gallery: (G, D) features of single images.
        query_ids: (Q,) integers.
        gallery_ids: (G,) integers.
        gallery_tracks: (G,) integers, the track of each gallery image.
        query_cams: (Q,) integers. None for both cameras: no camera filter.
        gallery_cams: (G,) integers.
        metric: ``"euclidean"``, ``"sqeuclidean"`` or ``"cosine"``.
        ap: definition of AP, see :func:`pyreid.evaluate`.
        no_match: what becomes of a query without a match, likewise.
        max_rank: length of the CMC curve.
        device: where to compute; None: where the features are.
        progress: show a progress bar.

    Returns:
        The metrics; ``settings["num_gallery"]`` is the number of tracks.

    Raises:
        TypeError: if features are not floating-point, or identities, cameras or tracks not integers.
        ValueError: if shapes, lengths or options are wrong, a track has several identities or cameras, or features are
            NaN, infinite or out of range.
    """
    check_choice("metric", metric, Metric)
    check_choice("ap", ap, AveragePrecision)
    check_choice("no_match", no_match, NoMatch)
    max_rank = as_max_rank(max_rank)
    sets = as_sets(query, gallery, query_ids, gallery_ids, query_cams, gallery_cams)
    tracks = as_integers("gallery_tracks", gallery_tracks, len(sets.gallery), "row of gallery")
    chosen = choose_device(sets.query, sets.gallery, device)
    numbers, first, track_of = _number(tracks)
    _check_tracks("gallery_ids", sets.gallery_ids, numbers, first, track_of)
    track_ids, track_cams = sets.gallery_ids[first], None
    if sets.gallery_cams is not None:
        _check_tracks("gallery_cams", sets.gallery_cams, numbers, first, track_of)
        track_cams = sets.gallery_cams[first]

    matches = find_matches(sets.query_ids, track_ids, sets.query_cams, track_cams)
    ranker = StripRanker(matches, chosen)
    columns = torch.from_numpy(track_of).to(chosen)
    junk = torch.from_numpy(track_ids == JUNK_ID).to(chosen)
    with progress_bar("ranking queries", len(sets.query), show=progress) as advance:
        for rows, values in ranking_strips(sets, metric=metric, device=chosen):
            nearest = values.new_full((len(values), len(numbers)), torch.inf)
            nearest.scatter_reduce_(1, columns.expand(len(values), -1), values, "amin")
            nearest[:, junk] = torch.nan
            ranker.rank(nearest, rows)
            advance(rows.stop - rows.start)
    num_junk = int(junk.sum())
    settings = {
        "metric": metric,
        "ap": ap,
        "no_match": no_match,
        "max_rank": max_rank,
        "camera_filter": sets.query_cams is not None,
        "device": str(chosen),
        "dtype": str(computing_dtype(sets.query, sets.gallery)).removeprefix("torch."),
        "num_gallery": len(numbers) - num_junk,
        "num_junk": num_junk,
        "gallery": "tracks",
    }
    return summarise(ranker.ranks, matches.starts, settings, sets.query_ids, sets.query_cams)


def pool_tracks(features: Any, tracks: Any, ids: Any, cams: Any = None, *, mode: Pooling = "mean") -> Tracks:
    """One feature for each track: the mean or the maximum of its images, as MARS is evaluated.

    ``evaluate(query.features, gallery.features, query.ids, gallery.ids, query.cams, gallery.cams)`` then ranks tracks.
    Features are pooled as they are; normalise them before or after if your protocol says so. Means are summed in
    float64.

    Args:
        features: (N, D) features of single images, as for :func:`pyreid.evaluate`; read in blocks.
        tracks: (N,) integers.
        ids: (N,) integers, one identity for each track.
        cams: (N,) integers, one camera for each track, or None.
        mode: ``"mean"`` or ``"max"``.

    Raises:
        TypeError: if features are not floating-point, or the others not integers.
        ValueError: if shapes or lengths are wrong, or a track has several identities or cameras.
    """
    check_choice("mode", mode, Pooling)
    rows = read_features("features", features)
    numbers, first, track_of = _number(as_integers("tracks", tracks, len(rows), "row of features"))
    track_ids = as_integers("ids", ids, len(rows), "row of features")
    _check_tracks("ids", track_ids, numbers, first, track_of)
    track_cams = None if cams is None else as_integers("cams", cams, len(rows), "row of features")
    if track_cams is not None:
        _check_tracks("cams", track_cams, numbers, first, track_of)
        track_cams = track_cams[first]
    return Tracks(_pool(rows, track_of, len(numbers), mode), numbers, track_ids[first], track_cams)


def pool_queries(features: Any, ids: Any, cams: Any, *, mode: Pooling = "mean") -> Tracks:
    """Multi-query: one feature for all query images of an identity from one camera.

    Args:
        features: (N, D) features of single images, as for :func:`pyreid.evaluate`.
        ids: (N,) integers.
        cams: (N,) integers.
        mode: ``"mean"`` or ``"max"``.

    Returns:
        The pooled queries in the order of their first images; ``tracks`` numbers them from 0.

    Raises:
        TypeError: if features are not floating-point, or the others not integers.
        ValueError: if shapes or lengths are wrong.
    """
    rows = read_features("features", features)
    own_ids = as_integers("ids", ids, len(rows), "row of features")
    own_cams = as_integers("cams", cams, len(rows), "row of features")
    _, group = np.unique(np.stack([own_ids, own_cams], axis=1), axis=0, return_inverse=True)
    _, _, in_order = _number(group.reshape(-1))
    return pool_tracks(rows, in_order, own_ids, own_cams, mode=mode)


def _number(tracks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tracks in the order of their first images: (T,) numbers, (T,) first images, and (N,) which each image is of."""
    numbers, first, track_of = np.unique(tracks, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return numbers[order], first[order], place[track_of]


def _check_tracks(name: str, values: np.ndarray, numbers: np.ndarray, first: np.ndarray, track_of: np.ndarray) -> None:
    other = np.flatnonzero(values != values[first][track_of])
    if len(other):
        row = other[0]
        track = track_of[row]
        raise ValueError(
            f"{name}: expected one value for each track, but track {numbers[track]} has {values[first[track]]} at row "
            f"{first[track]} and {values[row]} at row {row}"
        )


def _pool(features: Tensor, track_of: np.ndarray, num_tracks: int, mode: Pooling) -> np.ndarray:
    order = np.argsort(track_of, kind="stable")
    counts = np.bincount(track_of, minlength=num_tracks)
    ends = np.cumsum(counts)
    dtype = np.float64 if features.dtype == torch.float64 else np.float32
    pooled = np.empty((num_tracks, features.shape[1]), dtype=dtype)
    rows_at_a_time = max(1, _NUMBERS_AT_A_TIME // features.shape[1])
    start = 0
    while start < num_tracks:
        begin = ends[start] - counts[start]
        stop = max(start + 1, int(np.searchsorted(ends, begin + rows_at_a_time, side="right")))
        images = torch.from_numpy(order[begin : ends[stop - 1]]).to(features.device)
        block = features[images].to("cpu", torch.float64).numpy()
        within = ends[start:stop] - counts[start:stop] - begin
        if mode == "mean":
            pooled[start:stop] = np.add.reduceat(block, within, axis=0) / counts[start:stop, None]
        else:
            pooled[start:stop] = np.maximum.reduceat(block, within, axis=0)
        start = stop
    return pooled
