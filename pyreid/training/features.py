"""Embeddings of image files from a model, and the evaluation of a model on a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from pyreid.data import ImageRecord, ReIDDataset
from pyreid.data.records import JUNK_PID
from pyreid.evaluation.progress import progress_bar
from pyreid.inference.embedding import Flip, device_of
from pyreid.inference.extractor import FeatureExtractor
from pyreid.inference.images import ImageInput
from pyreid.models.base import ReIDModel
from pyreid.training.datamodule import image_input
from pyreid.training.settings.trainer import EvaluationSettings

if TYPE_CHECKING:
    from pyreid.evaluation import EvaluationResult
    from pyreid.evaluation.evaluator import Reranker

OnBatch = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class TestFeatures:
    """Features, identities and cameras of the query and gallery splits, as :func:`pyreid.evaluate` takes them.

    The cameras are None where the data set has none or its protocol does not filter by camera, the tracks where it has
    none.
    """

    __test__ = False  # not a test class, whatever pytest thinks of the name

    query: NDArray[np.float32]
    gallery: NDArray[np.float32]
    query_ids: NDArray[np.int64]
    gallery_ids: NDArray[np.int64]
    query_cams: NDArray[np.int64] | None
    gallery_cams: NDArray[np.int64] | None
    query_tracks: NDArray[np.int64] | None = None
    gallery_tracks: NDArray[np.int64] | None = None


def extract_features(
    model: ReIDModel,
    records: Sequence[ImageRecord],
    *,
    images: ImageInput | None = None,
    flip: Flip = "none",
    batch_size: int = 64,
    workers: int = 0,
    device: torch.device | str | None = None,
    progress: bool = False,
    on_batch: OnBatch | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Embed images file by file, in batches.

    The model runs in evaluation mode and without gradients; afterwards every module is in the mode and on the device it
    was. The global random state is not touched.

    Args:
        model: maps images (N, 3, H, W) to embeddings (N, D) in ``eval()``.
        records: the images, for example ``dataset.query``.
        images: size and normalisation; by default the model's own.
        flip: ``"mean"`` adds the embedding of the mirror image and normalises the sum; ``"concat"`` concatenates both
            and normalises (RMNet, Sect. VI); ``"none"`` uses the image as it is.
        batch_size: images per forward pass.
        workers: processes that decode images; 0 decodes in this one.
        device: where to compute; by default where the model is.
        progress: show a progress bar.
        on_batch: called after each batch with its number of images.

    Returns:
        Features (N, D) float32, identities (N,) int64 and 0-based cameras (N,) int64, -1 for none, in the order of
        ``records``.

    Raises:
        ValueError: ``records`` is empty, an argument is out of range, or an embedding is NaN or infinite.
        DatasetError: an image cannot be read.
    """
    if not records:
        raise ValueError("records: got no image, expected at least one")
    look = images or image_input(model)
    extractor = FeatureExtractor(
        model,
        device=device,
        batch_size=batch_size,
        size=look.size,
        mean=look.mean,
        std=look.std,
        flip=flip,
        workers=workers,
    )
    with progress_bar("Extracting features", len(records), show=progress) as advance:

        def count(number: int) -> None:
            advance(number)
            if on_batch is not None:
                on_batch(number)

        features = extractor([record.path for record in records], on_batch=count)
    pids = np.array([record.pid for record in records], dtype=np.int64)
    camids = np.array([record.camid for record in records], dtype=np.int64)
    return features, pids, camids


def extract_test_features(
    model: ReIDModel,
    dataset: ReIDDataset,
    *,
    images: ImageInput | None = None,
    flip: Flip = "none",
    batch_size: int = 64,
    workers: int = 0,
    device: torch.device | str | None = None,
    progress: bool = False,
    on_batch: OnBatch | None = None,
) -> TestFeatures:
    """Features of the query and gallery splits; junk gallery images (identity -1) are left out.

    Arguments as for :func:`extract_features`.
    """
    gallery = [record for record in dataset.gallery if record.pid != JUNK_PID]
    features, pids, camids = extract_features(
        model,
        [*dataset.query, *gallery],
        images=images,
        flip=flip,
        batch_size=batch_size,
        workers=workers,
        device=device,
        progress=progress,
        on_batch=on_batch,
    )
    split = len(dataset.query)
    filtered = dataset.protocol.camera_filter and dataset.has_cameras
    tracked = dataset.has_tracks
    return TestFeatures(
        query=features[:split],
        gallery=features[split:],
        query_ids=pids[:split],
        gallery_ids=pids[split:],
        query_cams=camids[:split] if filtered else None,
        gallery_cams=camids[split:] if filtered else None,
        query_tracks=_tracks(dataset.query) if tracked else None,
        gallery_tracks=_tracks(gallery) if tracked else None,
    )


def _tracks(records: Sequence[ImageRecord]) -> NDArray[np.int64]:
    return np.array([record.track for record in records], dtype=np.int64)


def evaluate_model(
    model: ReIDModel,
    dataset: ReIDDataset,
    *,
    settings: EvaluationSettings | None = None,
    images: ImageInput | None = None,
    workers: int = 0,
    device: torch.device | str | None = None,
    progress: bool = False,
    on_batch: OnBatch | None = None,
) -> EvaluationResult:
    """CMC, mAP and mINP of a model on the query and gallery splits of a data set.

    Args:
        model: see :func:`extract_features`.
        dataset: see :func:`pyreid.data.load_dataset`.
        settings: the ``evaluation`` part of a recipe; by default its defaults.
        images: size and normalisation; by default the model's own.
        workers: processes that decode images.
        device: where to compute; by default where the model is.
        progress: show a progress bar.
        on_batch: called after each batch with its number of images.
    """
    chosen = settings or EvaluationSettings()
    features = extract_test_features(
        model,
        dataset,
        images=images,
        flip=chosen.flip,
        batch_size=chosen.batch_size,
        workers=workers,
        device=device,
        progress=progress,
        on_batch=on_batch,
    )
    return evaluate_features(features, chosen, device=device or device_of(model))


def evaluate_features(
    features: TestFeatures,
    settings: EvaluationSettings,
    *,
    device: torch.device | str | None = None,
    rerank: Reranker | None = None,
    progress: bool = False,
) -> EvaluationResult:
    """:func:`pyreid.evaluate` with the options of a recipe; with ``rerank`` on the CPU, where that is computed."""
    from pyreid.evaluation import evaluate

    return evaluate(
        features.query,
        features.gallery,
        features.query_ids,
        features.gallery_ids,
        features.query_cams,
        features.gallery_cams,
        metric=settings.metric,
        ap=settings.ap,
        no_match=settings.no_match,
        max_rank=settings.max_rank,
        rerank=rerank,
        device=None if rerank is not None else device,
        progress=progress,
    )


def num_test_images(dataset: ReIDDataset) -> int:
    """Number of images that :func:`extract_test_features` reads, the total of a progress bar."""
    return len(dataset.query) + sum(record.pid != JUNK_PID for record in dataset.gallery)
