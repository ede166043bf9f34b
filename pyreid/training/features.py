"""Embeddings of image files from a model, and the evaluation of a model on a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyreid.data import ImageRecord, ReIDDataset
from pyreid.data.records import JUNK_PID
from pyreid.errors import RecipeError
from pyreid.evaluation.progress import progress_bar
from pyreid.inference.crops import Crops
from pyreid.inference.embedding import Flip, device_of
from pyreid.inference.extractor import FeatureExtractor
from pyreid.inference.images import ImageInput
from pyreid.models.base import ReIDModel
from pyreid.training.datamodule import image_input
from pyreid.training.recipe_errors import suggest
from pyreid.training.settings.trainer import EvaluationSettings

if TYPE_CHECKING:
    from pyreid.data.protocol import Protocol
    from pyreid.evaluation import EvaluationResult, RepeatedResult
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
    crops: Crops = "none",
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
        crops: ``"ten"`` takes the mean over ten crops, see :class:`pyreid.FeatureExtractor`.
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
        crops=crops,
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
    crops: Crops = "none",
    batch_size: int = 64,
    workers: int = 0,
    device: torch.device | str | None = None,
    progress: bool = False,
    on_batch: OnBatch | None = None,
) -> TestFeatures:
    """Features of the query and gallery splits; junk gallery images (identity -1) are left out.

    Arguments as for :func:`extract_features`.
    """
    return extract_part(
        model,
        dataset,
        range(num_test_images(dataset)),
        images=images,
        flip=flip,
        crops=crops,
        batch_size=batch_size,
        workers=workers,
        device=device,
        progress=progress,
        on_batch=on_batch,
    )


def images_of_test(dataset: ReIDDataset) -> list[ImageRecord]:
    """The query images and then the gallery images without the junk."""
    return [*dataset.query, *(record for record in dataset.gallery if record.pid != JUNK_PID)]


def extract_part(
    model: ReIDModel,
    dataset: ReIDDataset,
    part: range,
    **options: Any,
) -> TestFeatures:
    """As :func:`extract_test_features`, of a part of :func:`images_of_test`; (0, 0) features if that is empty."""
    records = images_of_test(dataset)[part.start : part.stop]
    features, pids, camids = np.zeros((0, 0), np.float32), np.zeros(0, np.int64), np.zeros(0, np.int64)
    if records:
        features, pids, camids = extract_features(model, records, **options)
    split = max(0, len(dataset.query) - part.start)
    filtered = dataset.protocol.camera_filter and dataset.has_cameras
    tracked = dataset.has_tracks
    return TestFeatures(
        query=features[:split],
        gallery=features[split:],
        query_ids=pids[:split],
        gallery_ids=pids[split:],
        query_cams=camids[:split] if filtered else None,
        gallery_cams=camids[split:] if filtered else None,
        query_tracks=_tracks(records[:split]) if tracked else None,
        gallery_tracks=_tracks(records[split:]) if tracked else None,
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
) -> EvaluationResult | RepeatedResult:
    """CMC, mAP and mINP of a model on the query and gallery splits of a data set, by its own protocol.

    Args:
        model: see :func:`extract_features`.
        dataset: see :func:`pyreid.data.load_dataset`.
        settings: the ``evaluation`` part of a recipe, which may differ from the protocol; by default its defaults.
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
        crops=chosen.crops,
        batch_size=chosen.batch_size,
        workers=workers,
        device=device,
        progress=progress,
        on_batch=on_batch,
    )
    protocol = choose_protocol(dataset, chosen)
    return evaluate_features(features, chosen, protocol=protocol, device=device or device_of(model))


def choose_protocol(dataset: ReIDDataset, settings: EvaluationSettings) -> Protocol:
    """The protocol of the data set, or the one of its alternatives that the settings name, with their AP and no-match.

    Raises:
        RecipeError: the data set has no protocol of that name, or the protocol has no such choice.
    """
    protocols = {item.name: item for item in (dataset.protocol, *dataset.alternatives)}
    name = settings.protocol if settings.protocol is not None else dataset.protocol.name
    if name not in protocols:
        raise RecipeError(f"'evaluation.protocol' is {name!r}{suggest(name, list(protocols))}")
    changes: dict[str, Any] = {}
    if settings.ap is not None:
        changes["ap"] = settings.ap
    if settings.no_match is not None:
        changes["no_match"] = settings.no_match
    return replace(protocols[name], **changes)


def evaluate_features(
    features: TestFeatures,
    settings: EvaluationSettings,
    *,
    protocol: Protocol | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    rerank: Reranker | None = None,
    progress: bool = False,
) -> EvaluationResult | RepeatedResult:
    """Evaluate by a protocol, with the metric and the number of ranks of a recipe.

    Args:
        features: see :func:`extract_test_features`.
        settings: the ``evaluation`` part of a recipe.
        protocol: from :func:`choose_protocol`; by default image to image, with the settings' AP and no-match.
        seed: of random galleries.
        device: where to compute.
        rerank: ranks by another distance.
        progress: show a progress bar.
    """
    from pyreid.data.protocol import Protocol
    from pyreid.training.protocols import evaluate_protocol

    chosen = protocol or Protocol(ap=settings.ap or "step", no_match=settings.no_match or "skip")
    return evaluate_protocol(
        features,
        chosen,
        metric=settings.metric,
        max_rank=settings.max_rank,
        seed=seed,
        rerank=rerank,
        device=device,
        progress=progress,
    )


def num_test_images(dataset: ReIDDataset) -> int:
    """Number of images that :func:`extract_test_features` reads, the total of a progress bar."""
    return len(dataset.query) + sum(record.pid != JUNK_PID for record in dataset.gallery)
