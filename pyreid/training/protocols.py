"""Evaluation of test features by the rule of their data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pyreid.training.features import TestFeatures

if TYPE_CHECKING:
    import torch

    from pyreid.data.protocol import Protocol
    from pyreid.evaluation import EvaluationResult, RepeatedResult
    from pyreid.evaluation.evaluator import Reranker
    from pyreid.ops._checks import Metric


def can_rerank(protocol: Protocol) -> bool:
    """Whether the protocol ranks a gallery by distances, which can be re-ranked."""
    return protocol.function in ("evaluate", "pool_tracks")


def evaluate_protocol(
    features: TestFeatures,
    protocol: Protocol,
    *,
    metric: Metric = "euclidean",
    max_rank: int = 50,
    seed: int = 0,
    rerank: Reranker | None = None,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> EvaluationResult | RepeatedResult:
    """Evaluate as the protocol of a data set says: ``dataset.protocol``, or one of ``dataset.alternatives``.

    Args:
        features: from :func:`pyreid.training.features.extract_test_features`.
        protocol: which function of :mod:`pyreid.evaluation` to call, and its AP and no-match rules.
        metric: as for :func:`pyreid.evaluate`.
        max_rank: length of the CMC curve.
        seed: of the random galleries.
        rerank: ranks by another distance; images and pooled tracks only.
        device: where to compute.
        progress: show a progress bar.

    Raises:
        ValueError: the protocol needs tracks and the data set has none, or it cannot be re-ranked.
    """
    from pyreid.evaluation import evaluate, evaluate_random_gallery, evaluate_tracks, pool_tracks

    if rerank is not None and not can_rerank(protocol):
        raise ValueError(f"rerank: the protocol {protocol.name!r} has no re-ranking, expected None")
    if protocol.function == "evaluate_random_gallery":
        return evaluate_random_gallery(
            np.concatenate([features.query, features.gallery]),
            np.concatenate([features.query_ids, features.gallery_ids]),
            repeats=protocol.repeats,
            seed=seed,
            metric=metric,
            ap=protocol.ap,
            max_rank=max_rank,
            device=device,
        )
    query_cams = features.query_cams if protocol.camera_filter else None
    gallery_cams = features.gallery_cams if protocol.camera_filter else None
    query, gallery = features.query, features.gallery
    query_ids, gallery_ids = features.query_ids, features.gallery_ids
    if protocol.function in ("evaluate_tracks", "pool_tracks"):
        if features.query_tracks is None or features.gallery_tracks is None:
            raise ValueError(f"features: the protocol {protocol.name!r} needs tracks, which the data set does not have")
        if protocol.function == "evaluate_tracks":
            return evaluate_tracks(
                query,
                gallery,
                query_ids,
                gallery_ids,
                features.gallery_tracks,
                query_cams,
                gallery_cams,
                metric=metric,
                ap=protocol.ap,
                no_match=protocol.no_match,
                max_rank=max_rank,
                device=device,
                progress=progress,
            )
        pooled_query = pool_tracks(query, features.query_tracks, query_ids, query_cams, mode=protocol.pooling)
        pooled = pool_tracks(gallery, features.gallery_tracks, gallery_ids, gallery_cams, mode=protocol.pooling)
        query, query_ids, query_cams = pooled_query.features, pooled_query.ids, pooled_query.cams
        gallery, gallery_ids, gallery_cams = pooled.features, pooled.ids, pooled.cams
    return evaluate(
        query,
        gallery,
        query_ids,
        gallery_ids,
        query_cams,
        gallery_cams,
        metric=metric,
        ap=protocol.ap,
        no_match=protocol.no_match,
        max_rank=max_rank,
        rerank=rerank,
        device=device,
        progress=progress,
    )
