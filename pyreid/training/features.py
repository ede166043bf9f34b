"""Embeddings of image files from a model, and the evaluation of a model on a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pyreid.data import ImageDataset, ImageRecord, ReIDDataset, eval_transform
from pyreid.data.records import JUNK_PID
from pyreid.models.base import ReIDModel
from pyreid.training.datamodule import ImageInput, image_input
from pyreid.training.recipe import EvaluationSettings

if TYPE_CHECKING:
    from pyreid.evaluation import EvaluationResult

Flip = Literal["none", "mean", "concat"]
OnBatch = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class TestFeatures:
    """Features, identities and cameras of the query and gallery splits, as :func:`pyreid.evaluate` takes them."""

    __test__ = False  # not a test class, whatever pytest thinks of the name

    query: NDArray[np.float32]
    gallery: NDArray[np.float32]
    query_ids: NDArray[np.int64]
    gallery_ids: NDArray[np.int64]
    query_cams: NDArray[np.int64]
    gallery_cams: NDArray[np.int64]


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
        Features (N, D) float32, identities (N,) int64 and 0-based cameras (N,) int64, in the order of ``records``.

    Raises:
        ValueError: ``records`` is empty, or an argument is out of range.
        DatasetError: an image cannot be read.
    """
    if not records:
        raise ValueError("records: got no image, expected at least one")
    if batch_size < 1:
        raise ValueError(f"batch_size: got {batch_size}, expected at least 1")
    if flip not in ("none", "mean", "concat"):
        raise ValueError(f"flip: got {flip!r}, expected 'none', 'mean' or 'concat'")
    look = images or image_input(model)
    loader = DataLoader(
        ImageDataset(records, eval_transform(look.size, mean=look.mean, std=look.std)),
        batch_size=batch_size,
        num_workers=workers,
        generator=torch.Generator().manual_seed(0),
    )
    features: NDArray[np.float32] | None = None
    filled = 0
    with _evaluating(model, device) as target, _bar(len(records), progress) as advance, torch.no_grad():
        for batch in loader:
            embedding = _embed(model, batch.image.to(target), flip).cpu().numpy()
            if features is None:
                features = np.empty((len(records), embedding.shape[1]), dtype=np.float32)
            features[filled : filled + len(embedding)] = embedding
            filled += len(embedding)
            advance(len(embedding))
            if on_batch is not None:
                on_batch(len(embedding))
    assert features is not None
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
    return TestFeatures(
        query=features[:split],
        gallery=features[split:],
        query_ids=pids[:split],
        gallery_ids=pids[split:],
        query_cams=camids[:split],
        gallery_cams=camids[split:],
    )


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
    return evaluate_features(features, chosen, device=device or _device_of(model))


def evaluate_features(
    features: TestFeatures, settings: EvaluationSettings, *, device: torch.device | str | None = None
) -> EvaluationResult:
    """:func:`pyreid.evaluate` with the options of a recipe."""
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
        device=device,
    )


def num_test_images(dataset: ReIDDataset) -> int:
    """Number of images that :func:`extract_test_features` reads, the total of a progress bar."""
    return len(dataset.query) + sum(record.pid != JUNK_PID for record in dataset.gallery)


def _embed(model: nn.Module, images: Tensor, flip: Flip) -> Tensor:
    embedding = model(images).float()
    if flip == "none":
        return embedding
    mirrored = model(images.flip(3)).float()
    both = embedding + mirrored if flip == "mean" else torch.cat([embedding, mirrored], dim=1)
    return nn.functional.normalize(both)


def _device_of(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


@contextmanager
def _evaluating(model: nn.Module, device: torch.device | str | None) -> Iterator[torch.device]:
    modes = {module: module.training for module in model.modules()}
    home = _device_of(model)
    target = torch.device(device) if device is not None else home
    try:
        model.eval()
        if target != home:
            model.to(target)
        yield target
    finally:
        for module, mode in modes.items():
            module.training = mode
        if target != home:
            model.to(home)


@contextmanager
def _bar(total: int, show: bool) -> Iterator[OnBatch]:
    if not show:
        yield lambda count: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task("Extracting features", total=total)
        yield lambda count: bar.advance(task, count)
