"""Evaluation by several processes over torch.distributed: features come in shards, the work is divided by queries."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from pyreid.evaluation.evaluator import Precision, is_screened, rank_features, summarise
from pyreid.evaluation.inputs import JUNK_ID, Sets, as_cameras, as_integers, as_max_rank
from pyreid.evaluation.ranking import Matches, find_matches
from pyreid.evaluation.result import EvaluationResult
from pyreid.evaluation.scores import AveragePrecision, NoMatch
from pyreid.evaluation.screening import rank_by_screening
from pyreid.ops._checks import Metric, check_choice, computing_dtype
from pyreid.ops.feature_files import read_features, spool
from pyreid.ops.features import checked_squared_norms, choose_device
from pyreid.ops.shards import exchange, gather_facts, gather_rows, message_buffer, own_blocks, require_ranks, wire


def evaluate_sharded(
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
    precision: Precision = "exact",
    device: torch.device | str | None = None,
    group: dist.ProcessGroup | None = None,
) -> EvaluationResult:
    """:func:`pyreid.evaluate` of features that are spread over the ranks of torch.distributed.

    Every rank calls it with its share of the queries and of the gallery, in any uneven way: shares may be empty,
    (0, D). The sets are the shares one after the other in the order of the ranks. The shares go from rank to rank in
    chunks, into a temporary file of each rank (``TMPDIR``; it needs the size of all features), so that memory stays
    that of a strip. Then each rank ranks its part of the queries, and one all-reduce puts the integer ranks together.

    The result is the same, to the bit, for any number of ranks and any division, with the same number of threads for
    each rank; ``precision="fast"`` keeps this to the rounding of its products. From that of :func:`pyreid.evaluate` it
    differs at most where two distances differ by less than the rounding of an inner product.

    Args:
        query: (Q_r, D) features of this rank.
        gallery: (G_r, D) features of this rank.
        query_ids: (Q_r,) integers.
        gallery_ids: (G_r,) integers.
        query_cams: (Q_r,) integers; None on all ranks for no camera filter.
        gallery_cams: (G_r,) integers.
        metric: as for :func:`pyreid.evaluate`, as all that follow, and the same on all ranks.
        ap: definition of AP.
        no_match: what becomes of a query without a match.
        max_rank: length of the CMC curve.
        precision: of the products on CUDA.
        device: where this rank computes; None: where its features are.
        group: the ranks that take part; None: all.

    Returns:
        The metrics of all queries, on every rank.

    Raises:
        RuntimeError: if torch.distributed is not initialised.
        TypeError: as by :func:`pyreid.evaluate`.
        ValueError: as by :func:`pyreid.evaluate`, or if the ranks disagree about the number of columns, the type of the
            features, cameras or options. An error on one rank is an error on every rank; none waits for it. A rank that
            is not in ``group`` gets one at once, by itself.
    """
    require_ranks("evaluate_sharded", "evaluate", group)
    own, chosen, screened, error = None, torch.device("cpu"), False, None
    buffer = torch.empty(0)
    facts: dict[str, Any] = {}
    try:
        check_choice("metric", metric, Metric)
        check_choice("ap", ap, AveragePrecision)
        check_choice("no_match", no_match, NoMatch)
        check_choice("precision", precision, Precision)
        max_rank = as_max_rank(max_rank)
        own = _read_share(query, gallery, query_ids, gallery_ids, query_cams, gallery_cams)
        chosen = choose_device(own.query, own.gallery, device)
        for name, features in (("query", own.query), ("gallery", own.gallery)):
            if len(features):
                checked_squared_norms(name, features, device=chosen, dtype=computing_dtype(own.query, own.gallery))
        # One rank on the CPU would rank otherwise than the GPUs of the others.
        screened = is_screened(precision, computing_dtype(own.query, own.gallery), chosen)
        options = {"metric": metric, "ap": ap, "no_match": no_match, "max_rank": max_rank, "precision": precision}
        buffer = message_buffer(group, own.query, own.gallery, torch.from_numpy(own.query_ids)[:, None])
        facts = _facts(own, options | {"screened": screened})
    except Exception as problem:
        error = problem
    shares = _agree(facts, error, group)
    assert own is not None
    sets = _exchange(own, shares, group, buffer)

    ranks, starts = torch.empty(0), np.empty(0)
    try:
        matches = find_matches(sets.query_ids, sets.gallery_ids, sets.query_cams, sets.gallery_cams)
        starts = matches.starts
        if screened:
            own_ranks = _screen_share(sets, matches, metric, chosen, group, bounded=precision == "exact")
        else:
            is_junk = sets.gallery_ids == JUNK_ID
            blocks = own_blocks(len(sets.query), group)
            own_ranks = rank_features(sets.query, sets.gallery, matches, is_junk, metric, chosen, blocks=blocks)
        ranks = torch.from_numpy(own_ranks).to(wire(group))
    except Exception as problem:
        error = problem
    _agree({}, error, group)
    dist.all_reduce(ranks, dist.ReduceOp.MAX, group=group)  # a rank that did not rank a query has -1 for it
    num_junk = int((sets.gallery_ids == JUNK_ID).sum())
    settings = {
        "metric": metric,
        "ap": ap,
        "no_match": no_match,
        "max_rank": max_rank,
        "camera_filter": sets.query_cams is not None,
        "device": chosen.type,
        "dtype": str(computing_dtype(sets.query, sets.gallery)).removeprefix("torch."),
        "num_gallery": len(sets.gallery) - num_junk,
        "num_junk": num_junk,
    }
    if screened:
        settings["precision"] = precision
    return summarise(ranks.cpu().numpy(), starts, settings, sets.query_ids, sets.query_cams)


def _screen_share(
    sets: Sets,
    matches: Matches,
    metric: Metric,
    device: torch.device,
    group: dist.ProcessGroup | None,
    *,
    bounded: bool,
) -> np.ndarray:
    """Ranks of the n-th part of the queries; -1 for the others. They are float64's, however the queries are divided."""
    count, rank, world = len(sets.query), dist.get_rank(group), dist.get_world_size(group)
    rows = slice(rank * count // world, (rank + 1) * count // world)
    ranks = np.full(int(matches.starts[-1]), -1, dtype=np.int64)
    if rows.start < rows.stop:
        ranks[matches.starts[rows.start] : matches.starts[rows.stop]] = rank_by_screening(
            sets.query[rows],
            sets.gallery,
            matches.of(rows),
            sets.query_ids[rows],
            sets.gallery_ids,
            sets.gallery_ids == JUNK_ID,
            metric,
            device,
            bounded=bounded,
        )
    return ranks


def _read_share(query: Any, gallery: Any, query_ids: Any, gallery_ids: Any, query_cams: Any, gallery_cams: Any) -> Sets:
    q = read_features("query", query, may_be_empty=True)
    g = read_features("gallery", gallery, may_be_empty=True)
    return Sets(
        q,
        g,
        as_integers("query_ids", query_ids, len(q), "row of query"),
        as_integers("gallery_ids", gallery_ids, len(g), "row of gallery"),
        *as_cameras("query_cams", query_cams, len(q), "gallery_cams", gallery_cams, len(g)),
    )


def _facts(own: Sets, options: dict[str, Any]) -> dict[str, Any]:
    return {
        "rows": (len(own.query), len(own.gallery)),
        "columns": (own.query.shape[1], own.gallery.shape[1]),
        "types": (str(own.query.dtype), str(own.gallery.dtype)),
        "cameras": own.query_cams is not None,
        "options": options,
    }


def _agree(facts: dict[str, Any], error: Exception | None, group: dist.ProcessGroup | None) -> list[dict[str, Any]]:
    """The facts of every rank. All ranks come here, also those with an error, and all leave in the same way.

    Raises:
        ValueError: if a rank has an error (there it is raised itself), or the facts do not fit together.
    """
    shares = gather_facts(facts, error, group)
    first = shares[0]
    if not first:
        return shares
    for rank, share in enumerate(shares):
        for what in ("columns", "types", "cameras", "options"):
            if share[what] != first[what]:
                raise ValueError(
                    f"rank {rank}: expected the {what} of rank 0, {first[what]}, but this one has {share[what]}"
                )
    if first["columns"][0] != first["columns"][1]:
        raise ValueError(f"gallery: expected {first['columns'][0]} columns to match query, got {first['columns'][1]}")
    for name, rows in zip(("query", "gallery"), zip(*(share["rows"] for share in shares), strict=True), strict=True):
        if sum(rows) == 0:
            raise ValueError(f"{name}: expected at least one row on some rank")
    return shares


def _exchange(own: Sets, shares: list[dict[str, Any]], group: dist.ProcessGroup | None, buffer: Tensor) -> Sets:
    """The whole sets on every rank, the features in temporary files."""
    num_query, num_gallery = ([share["rows"][side] for share in shares] for side in (0, 1))
    sides = (num_query, num_gallery, num_query, num_gallery)
    labels: list[np.ndarray | None] = []
    features: list[Tensor] = []
    error: Exception | None = None
    # After an error the others still send and receive all of it; so must this rank.
    for array, rows in zip((own.query_ids, own.gallery_ids, own.query_cams, own.gallery_cams), sides, strict=True):
        try:
            if array is None:
                labels.append(None)
            else:
                labels.append(gather_rows(torch.from_numpy(array)[:, None], rows, group, buffer)[:, 0].numpy())
        except Exception as problem:
            error = error or problem
    for name, share, rows in (("query", own.query, num_query), ("gallery", own.gallery, num_gallery)):
        try:
            features.append(exchange(share, rows, group, buffer, functools.partial(spool, name)))
        except Exception as problem:
            error = error or problem
    _agree({}, error, group)
    query_ids, gallery_ids, query_cams, gallery_cams = labels
    assert query_ids is not None
    assert gallery_ids is not None
    query, gallery = features
    return Sets(query, gallery, query_ids, gallery_ids, query_cams, gallery_cams)
