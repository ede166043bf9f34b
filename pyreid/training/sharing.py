"""Test features of a model, and their evaluation, divided among the processes of a run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from pyreid.ops.shards import gather_rows, message_buffer
from pyreid.training.features import (
    OnBatch,
    TestFeatures,
    choose_protocol,
    evaluate_features,
    extract_part,
    images_of_test,
)
from pyreid.training.processes import agree, from_first, gather, several

if TYPE_CHECKING:
    from pyreid.data import ReIDDataset
    from pyreid.data.protocol import Protocol
    from pyreid.evaluation import EvaluationResult, RepeatedResult
    from pyreid.evaluation.evaluator import Reranker
    from pyreid.inference.images import ImageInput
    from pyreid.models.base import ReIDModel
    from pyreid.training.settings.trainer import EvaluationSettings


def own_part(dataset: ReIDDataset, batch_size: int) -> range:
    """Which of the test images, queries and then gallery, this rank embeds.

    Whole batches of those that one process would make, so that every embedding comes out of the same batch.
    """
    total = len(images_of_test(dataset))
    rank, world = (dist.get_rank(), dist.get_world_size()) if several() else (0, 1)
    batches = -(-total // batch_size)
    begin, end = (min(total, batches * number // world * batch_size) for number in (rank, rank + 1))
    return range(begin, end)


def extract_own_features(
    model: ReIDModel,
    dataset: ReIDDataset,
    settings: EvaluationSettings,
    *,
    images: ImageInput,
    workers: int = 0,
    on_batch: OnBatch | None = None,
) -> TestFeatures:
    """The features of this rank's part; all of them in one process. All ranks call it.

    Raises:
        Exception: what was raised on any rank, on all ranks.
    """
    features, error = None, None
    try:
        features = extract_part(
            model,
            dataset,
            own_part(dataset, settings.batch_size),
            images=images,
            flip=settings.flip,
            crops=settings.crops,
            batch_size=settings.batch_size,
            workers=workers,
            on_batch=on_batch,
        )
    except Exception as problem:
        error = problem
    agree(error)
    assert features is not None
    # A rank without an image does not know how long embeddings are.
    columns = max(gather(features.query.shape[1]))
    if features.query.shape[1] != columns:
        nothing = np.zeros((0, columns), dtype=np.float32)
        features = replace(features, query=nothing, gallery=nothing)
    return features


def evaluate_own_features(
    features: TestFeatures,
    settings: EvaluationSettings,
    dataset: ReIDDataset,
    *,
    seed: int = 0,
    device: torch.device | None = None,
    rerank: Reranker | None = None,
) -> EvaluationResult | RepeatedResult:
    """The evaluation of the features of all ranks, on every rank: sharded where the protocol ranks images.

    Other protocols, and re-ranked distances, are computed by rank 0, with the features of all.
    """
    from pyreid.evaluation import evaluate_sharded

    protocol = choose_protocol(dataset, settings)
    if not several():
        return evaluate_features(features, settings, protocol=protocol, seed=seed, device=device, rerank=rerank)
    if protocol.function == "evaluate" and rerank is None:
        return evaluate_sharded(
            features.query,
            features.gallery,
            features.query_ids,
            features.gallery_ids,
            features.query_cams if protocol.camera_filter else None,
            features.gallery_cams if protocol.camera_filter else None,
            metric=settings.metric,
            ap=protocol.ap,
            no_match=protocol.no_match,
            max_rank=settings.max_rank,
            device=device,
        )
    return _by_first(_all_features(features), settings, protocol, seed, device, rerank)


def _by_first(
    features: TestFeatures,
    settings: EvaluationSettings,
    protocol: Protocol,
    seed: int,
    device: torch.device | None,
    rerank: Reranker | None,
) -> EvaluationResult | RepeatedResult:
    result: Any = None
    error = None
    if dist.get_rank() == 0:
        try:
            result = evaluate_features(features, settings, protocol=protocol, seed=seed, device=device, rerank=rerank)
        except Exception as problem:
            error = problem
    agree(error)
    found: EvaluationResult | RepeatedResult = from_first(result)
    return found


def _all_features(features: TestFeatures) -> TestFeatures:
    """The features of all ranks, one rank after the other."""
    return TestFeatures(
        **{
            f"{side}{what}": _whole(getattr(features, f"{side}{what}"))
            for side in ("query", "gallery")
            for what in ("", "_ids", "_cams", "_tracks")
        }
    )


def _whole(share: NDArray[Any] | None) -> Any:
    if share is None:
        return None
    rows = gather(len(share))
    own = whole = buffer = torch.empty(0)
    error: Exception | None = None
    try:
        own = torch.from_numpy(np.ascontiguousarray(share))
        own = own if own.ndim == 2 else own[:, None]
        buffer = message_buffer(None, own)
    except Exception as problem:
        error = problem
    agree(error)
    try:
        whole = gather_rows(own, rows, None, buffer)
    except Exception as problem:
        error = problem
    agree(error)
    return (whole if share.ndim == 2 else whole[:, 0]).numpy()
