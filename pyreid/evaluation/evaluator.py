"""Metrics from features, in strips of queries: no query x gallery matrix and no sort."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from pyreid.evaluation.inputs import JUNK_ID, as_max_rank, as_sets
from pyreid.evaluation.progress import progress_bar
from pyreid.evaluation.ranking import Matches, StripRanker, find_matches
from pyreid.evaluation.result import EvaluationResult
from pyreid.evaluation.scores import AveragePrecision, NoMatch, cumulative_match, query_scores
from pyreid.evaluation.screening import rank_by_screening
from pyreid.ops._checks import Metric, check_choice, computing_dtype
from pyreid.ops.distance_tiles import inner_product_tiles, rank_column
from pyreid.ops.features import checked_squared_norms, choose_device

Precision = Literal["exact", "fp32", "fast"]


class Reranker(Protocol):
    """What ``evaluate(rerank=...)`` takes: :class:`pyreid.KReciprocal`, or anything with these two methods."""

    def settings(self) -> dict[str, Any]:
        """Parameters by name, as plain values for JSON."""
        ...

    def strips(
        self, query: Any, gallery: Any, *, metric: Metric, device: torch.device
    ) -> Iterator[tuple[slice, Tensor]]:
        """Pairs of a slice of queries and their (R, G) floating-point distances, none NaN; the slices follow one
        another from the first query to the last."""
        ...


def evaluate(
    query: Any,
    gallery: Any,
    query_ids: Any,
    gallery_ids: Any,
    query_cams: Any = None,
    gallery_cams: Any = None,
    *,
    metric: Metric = "euclidean",
    ap: AveragePrecision = "step",
    no_match: NoMatch = "skip",
    max_rank: int = 50,
    rerank: Reranker | None = None,
    precision: Precision = "exact",
    device: torch.device | str | None = None,
    progress: bool = False,
) -> EvaluationResult:
    """Rank the gallery for every query and compute CMC, mAP and mINP.

    The ranks are exact: those of a stable sort by (distance, gallery index). They are found by counting, for each
    positive, the gallery images that come before it in a strip of inner products. Memory is that of one strip, 64 MiB,
    or of 32 queries if they need more, and 8 bytes for each pair of a query and a gallery image of its identity, with
    as much again for those of the strip, at most twice its size, and 13 MiB, or 50 bytes for each pair of one query; on
    CUDA up to 3.7 GiB more, but for a query with more than eight million images of its identity.

    For a query, gallery images of its identity from its own camera are junk and left out; so are images with identity
    -1 for all queries. Identity 0 is an identity like any other.

    Distances are compared as ``|g|^2 / 2 - q.g`` (Euclidean, squared or not: the order is the same) or ``-q.g / |g|``
    (cosine; a row of zeros has similarity 0 with everything), computed in float32, or in float64 if either side is
    float64. Equal gallery rows are at equal distances. Others that differ by less than the rounding of an inner product
    may change places, as in any computation; features that lie close together far from the origin need float64.

    Args:
        query: (Q, D) features, float16, bfloat16, float32 or float64: a torch tensor, a NumPy array (also
            memory-mapped), anything with DLPack, the path of a ``.npy`` or ``.safetensors`` file
            (:func:`pyreid.evaluation.open_features`), or an iterator of (n, D) chunks, which go through a temporary
            file so that each is asked for once. Not copied as a whole if already in place.
        gallery: (G, D) features; may differ from ``query`` in type.
        query_ids: (Q,) integers.
        gallery_ids: (G,) integers.
        query_cams: (Q,) integers. None for both cameras: no camera filter.
        gallery_cams: (G,) integers.
        metric: ``"euclidean"``, ``"sqeuclidean"`` or ``"cosine"``.
        ap: definition of ``map``: ``"step"`` averages the precision at each positive (torchreid, fast-reid, TransReID),
            ``"trapezoid"`` its mean with the precision one rank before (official Market-1501 Matlab code). The result
            holds both.
        no_match: a query without a match in the gallery is left out (``"skip"``, torchreid) or counts as 0
            (``"zero"``, official Matlab code).
        max_rank: length of the CMC curve. Past the last rank the curve stays at its last value.
        rerank: rank by re-ranked distances: ``pyreid.KReciprocal()``. Images with identity -1 take no part in it, those
            under the query's camera do; a graph that is given to it must be one of the gallery without the former.
            Beside what re-ranking needs, memory is that of a strip of re-ranked distances, never of all.
        precision: of the products, on CUDA devices and for features of 32 bits or less; elsewhere they are float32 (or
            float64) in any case, and re-ranking has its own. ``"exact"`` multiplies in float16 on tensor cores and
            decides in float64 what their rounding, rigorously bounded, leaves open: the ranks are those of float64.
            ``"fp32"`` multiplies in float32. ``"fast"`` takes the float16 products as they are, with features rounded
            to 11 bits, but for the positives.
        device: where to compute; None: where the features are.
        progress: show a progress bar.

    Returns:
        The metrics and the scores of every query. If no query has a match, the means are NaN with
        ``no_match="skip"``, and a warning says so.

    Raises:
        TypeError: if features are not floating-point, or identities or cameras not integers.
        ValueError: if shapes, lengths or options are wrong, cameras are given for one side only, the query or the
            gallery is empty, features are NaN, infinite or out of range, or what ``rerank`` gives is not one distance
            for each pair.
    """
    check_choice("metric", metric, Metric)
    check_choice("ap", ap, AveragePrecision)
    check_choice("no_match", no_match, NoMatch)
    check_choice("precision", precision, Precision)
    max_rank = as_max_rank(max_rank)
    q, g, q_ids, g_ids, q_cams, g_cams = as_sets(query, gallery, query_ids, gallery_ids, query_cams, gallery_cams)
    if rerank is not None and (isinstance(rerank, type) or not hasattr(rerank, "strips")):
        got = f"the class {rerank.__name__}" if isinstance(rerank, type) else type(rerank).__name__
        raise TypeError(f"rerank: expected an object such as pyreid.KReciprocal(), got {got}")
    chosen = choose_device(q, g, device)

    is_junk = g_ids == JUNK_ID
    num_junk = int(is_junk.sum())
    if rerank is not None:
        if num_junk:
            _check_graph(rerank, len(g), num_junk)
            checked_squared_norms("gallery", g, device=chosen, dtype=computing_dtype(q, g))  # for the rows' own numbers
            g, g_ids = g[torch.from_numpy(~is_junk).to(g.device)], g_ids[~is_junk]
            g_cams = None if g_cams is None else g_cams[~is_junk]
        matches = find_matches(q_ids, g_ids, q_cams, g_cams)
        strips = rerank.strips(q, g, metric=metric, device=chosen)
        ranks = _rank_strips(strips, matches, len(g), chosen, progress)
    else:
        matches = find_matches(q_ids, g_ids, q_cams, g_cams)
        screened = is_screened(precision, computing_dtype(q, g), chosen)
        if screened:
            ranks = rank_by_screening(
                q, g, matches, q_ids, g_ids, is_junk, metric, chosen, bounded=precision == "exact", progress=progress
            )
        else:
            ranks = rank_features(q, g, matches, is_junk, metric, chosen, progress=progress)
    settings: dict[str, Any] = {
        "metric": metric,
        "ap": ap,
        "no_match": no_match,
        "max_rank": max_rank,
        "camera_filter": q_cams is not None,
        "device": str(chosen),
        "dtype": str(computing_dtype(q, g)).removeprefix("torch."),
        "num_gallery": int((~is_junk).sum()),
        "num_junk": num_junk,
    }
    if rerank is not None:
        settings["rerank"] = rerank.settings()
    elif screened:
        settings["precision"] = precision
    return summarise(ranks, matches.starts, settings, q_ids, q_cams)


def is_screened(precision: Precision, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether products in half precision come first, for features that are computed with in ``dtype``."""
    return precision != "fp32" and device.type == "cuda" and dtype == torch.float32


def rank_features(
    query: Tensor,
    gallery: Tensor,
    matches: Matches,
    is_junk: np.ndarray,
    metric: Metric,
    device: torch.device,
    *,
    blocks: Sequence[slice] | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Ranks of the positives by products, see :class:`StripRanker`; -1 for queries that are in none of ``blocks``."""
    dtype = computing_dtype(query, gallery)
    checked_squared_norms("query", query, device=device, dtype=dtype)
    norms = checked_squared_norms("gallery", gallery, device=device, dtype=dtype)
    column = rank_column(norms, metric)
    if is_junk.any():
        for values in column.values():
            values[torch.from_numpy(is_junk).to(device)] = torch.nan  # nothing compares with NaN: out of the gallery
    ranker = StripRanker(matches, device, **column)
    with progress_bar("ranking queries", len(query), show=progress) as advance:
        for rows, _, products in inner_product_tiles(query, gallery, device=device, dtype=dtype, blocks=blocks):
            ranker.rank(products, rows)
            advance(rows.stop - rows.start)
    return ranker.ranks


def _rank_strips(
    strips: Iterator[tuple[slice, Tensor]], matches: Matches, num_gallery: int, device: torch.device, progress: bool
) -> np.ndarray:
    """Ranks of the positives by given distances.

    Raises:
        TypeError: if a strip is no pair of a slice and a tensor of floating-point numbers.
        ValueError: if the strips do not hold each query once, in order, or distances are NaN or not (R, G).
    """
    num_query, end = len(matches.begin), 0
    ranker = StripRanker(matches, device)
    with progress_bar("ranking queries", num_query, show=progress) as advance:
        for strip in strips:
            rows, distances = _checked_strip(strip, end, num_query, num_gallery)
            nans = ranker.rank(distances.to(device, computing_dtype(distances)), rows)
            if nans.any():
                row = rows.start + int(np.flatnonzero(nans)[0])
                raise ValueError(f"rerank: {int(nans.sum())} NaN distances in a strip, the first of query {row}")
            advance(rows.stop - rows.start)
            end = rows.stop
    if end < num_query and num_gallery:
        raise ValueError(f"rerank: expected strips of all {num_query} queries, got none from query {end} on")
    return ranker.ranks


def _checked_strip(strip: Any, begin: int, num_query: int, num_gallery: int) -> tuple[slice, Tensor]:
    if not (
        isinstance(strip, tuple) and len(strip) == 2 and isinstance(strip[0], slice) and isinstance(strip[1], Tensor)
    ):
        raise TypeError(f"rerank: expected strips (slice of queries, tensor of distances), got {type(strip).__name__}")
    rows, distances = strip
    if rows.start != begin or not isinstance(rows.stop, int) or not begin < rows.stop <= num_query or rows.step:
        raise ValueError(
            f"rerank: expected the next strip to be slice({begin}, stop) with stop up to {num_query}, got {rows}"
        )
    if tuple(distances.shape) != (rows.stop - begin, num_gallery):
        raise ValueError(
            f"rerank: expected distances of shape {(rows.stop - begin, num_gallery)} for queries {begin} to "
            f"{rows.stop}, got {tuple(distances.shape)}"
        )
    if not distances.is_floating_point():
        raise TypeError(f"rerank: expected distances of floating-point numbers, got {distances.dtype}")
    return rows, distances


def _check_graph(rerank: Reranker, num_gallery: int, num_junk: int) -> None:
    graph = getattr(rerank, "graph", None)
    if graph is not None and graph.num_items - graph.num_query == num_gallery:
        raise ValueError(
            f"rerank: its graph holds all {num_gallery} gallery images, but the {num_junk} with identity {JUNK_ID} "
            f"take no part; make the graph of gallery[gallery_ids != {JUNK_ID}]"
        )


def summarise(
    ranks: np.ndarray,
    starts: np.ndarray,
    settings: dict[str, Any],
    query_ids: np.ndarray,
    query_cams: np.ndarray | None,
) -> EvaluationResult:
    """The result, from the ranks of each query's positives; a warning if no query has one."""
    scores = query_scores(ranks, starts)
    num_queries, num_matched = len(scores.matched), int(scores.matched.sum())
    if num_matched == 0:
        warnings.warn(
            f"none of the {num_queries} queries has a match in the gallery"
            + (" under another camera" if settings["camera_filter"] else "")
            + "; check the identities"
            + (" and cameras, or pass no cameras" if settings["camera_filter"] else ""),
            stacklevel=3,
        )
    scored = np.ones(num_queries, dtype=bool) if settings["no_match"] == "zero" else scores.matched
    means = {"step": _mean(scores.step[scored]), "trapezoid": _mean(scores.trapezoid[scored])}
    average_precision = scores.step if settings["ap"] == "step" else scores.trapezoid
    return EvaluationResult(
        map=means[settings["ap"]],
        cmc=cumulative_match(scores.first_match_rank, settings["max_rank"], int(scored.sum())),
        minp=_mean(scores.inverse_negative_penalty[scored]),
        map_step=means["step"],
        map_trapezoid=means["trapezoid"],
        average_precision=np.where(scored, average_precision, np.nan),
        inverse_negative_penalty=np.where(scored, scores.inverse_negative_penalty, np.nan),
        first_match_rank=scores.first_match_rank,
        num_queries=num_queries,
        num_skipped=num_queries - num_matched,
        settings=settings,
        query_ids=query_ids.copy(),
        query_cams=None if query_cams is None else query_cams.copy(),
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
