"""The protocol of VehicleID: one random image of each identity is the gallery, all others are queries."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pyreid.evaluation.evaluator import evaluate
from pyreid.evaluation.inputs import JUNK_ID, as_count, as_integers
from pyreid.evaluation.repeats import RepeatedResult
from pyreid.evaluation.scores import AveragePrecision
from pyreid.ops._checks import Metric, computing_dtype
from pyreid.ops.feature_files import read_features
from pyreid.ops.features import checked_squared_norms, choose_device


def evaluate_random_gallery(
    features: Any,
    ids: Any,
    *,
    repeats: int = 10,
    seed: int = 0,
    metric: Metric = "euclidean",
    ap: AveragePrecision = "step",
    max_rank: int = 50,
    device: torch.device | str | None = None,
) -> RepeatedResult:
    """Evaluate one set of images as VehicleID is: split it at random into gallery and queries, repeatedly.

    In each repeat one random image of each identity is the gallery and the others are queries; there is no camera
    filter. Images with identity -1 take no part. An identity of one image is in the gallery only. Every query has
    exactly one match, so that step AP is its reciprocal rank. Each repeat copies the queries' rows.

    Args:
        features: (N, D) features of the whole test set, as for :func:`pyreid.evaluate`.
        ids: (N,) integers.
        repeats: how many splits.
        seed: of the splits; see :func:`random_gallery_split`.
        metric: ``"euclidean"``, ``"sqeuclidean"`` or ``"cosine"``.
        ap: definition of AP.
        max_rank: length of the CMC curve.
        device: where to compute; None: where the features are.

    Raises:
        TypeError: if features are not floating-point, or identities not integers.
        ValueError: if shapes, lengths or options are wrong, features are NaN, infinite or out of range, or no identity
            has two images.
    """
    repeats, seed = as_count("repeats", repeats, least=1), as_count("seed", seed, least=0)
    rows = read_features("features", features)
    labels = as_integers("ids", ids, len(rows), "row of features")
    # Before they become queries and gallery, so that errors tell their own name and row.
    checked_squared_norms("features", rows, device=choose_device(rows, rows, device), dtype=computing_dtype(rows, rows))
    results = []
    for repeat in range(repeats):
        queries, gallery = random_gallery_split(labels, seed=seed, repeat=repeat)
        if len(queries) == 0:
            raise ValueError("ids: no identity has two images, one for the gallery and one for a query")
        results.append(
            evaluate(
                rows[torch.from_numpy(queries).to(rows.device)],
                rows[torch.from_numpy(gallery).to(rows.device)],
                labels[queries],
                labels[gallery],
                metric=metric,
                ap=ap,
                max_rank=max_rank,
                device=device,
            )
        )
    return RepeatedResult(
        maps=np.array([result.map for result in results]),
        cmcs=np.stack([result.cmc for result in results]),
        num_queries=np.array([result.num_queries for result in results]),
        seed=seed,
        settings=dict(results[0].settings),
    )


def random_gallery_split(ids: Any, *, seed: int = 0, repeat: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """One split of :func:`evaluate_random_gallery`, the same wherever and however often it is drawn.

    Args:
        ids: (N,) integers; images with identity -1 take no part.
        seed: of all splits.
        repeat: which of them, from 0.

    Returns:
        ``(queries, gallery)``: ascending int64 indices; the gallery has one image of each identity.
    """
    seed, repeat = as_count("seed", seed, least=0), as_count("repeat", repeat, least=0)
    labels = as_integers("ids", ids, len(ids), "image")
    kept = np.flatnonzero(labels != JUNK_ID)
    order = kept[np.argsort(labels[kept], kind="stable")]
    _, begins, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    drawn = np.random.default_rng((seed, repeat)).integers(0, sizes) if len(sizes) else sizes
    gallery = np.sort(order[begins + drawn])
    return np.setdiff1d(kept, gallery, assume_unique=True), gallery
