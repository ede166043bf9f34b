"""Checks before the first step, so that mistakes show in seconds and not after a night of training."""

from __future__ import annotations

import copy
import hashlib
import warnings

import torch
from torch.utils.data import default_collate

from pyreid.data import DatasetWarning, ReIDDataset, SampleKey
from pyreid.data.records import JUNK_PID
from pyreid.errors import DatasetError, RecipeError, TrainingError
from pyreid.models.base import ModelOutput, ReIDModel
from pyreid.training.datamodule import ReIDDataModule
from pyreid.training.objectives import check_names
from pyreid.training.recipe import Recipe

_PROBE_IMAGES = 4


def check_training_data(dataset: ReIDDataset, recipe: Recipe) -> None:
    """Identities, cameras and matches of a data set; no image is opened.

    Raises:
        DatasetError: no query can ever be answered.
        RecipeError: the sampler asks for more identities, or more images, than there are.

    Warns:
        DatasetWarning: some queries have no match, or identities are in training and in testing.
    """
    settings = recipe.sampler
    if settings.batches == "shuffled":
        size = settings.num_ids * settings.num_instances
        if len(dataset.train) < size:
            raise RecipeError(
                f"'sampler' makes batches of {size} images ({settings.num_ids} x {settings.num_instances}), but the "
                f"training split of {dataset.root} has only {len(dataset.train)}"
            )
    elif dataset.num_train_ids < settings.num_ids:
        raise RecipeError(
            f"'sampler.num_ids' is {settings.num_ids}, but the training split of {dataset.root} has only "
            f"{dataset.num_train_ids} identities"
        )
    check_matches(dataset)
    shared = dataset.shared_ids
    if shared:
        warnings.warn(
            f"{dataset.root}: {len(shared)} identities are in the training and in the test split, "
            f"the first is {min(shared)}; the scores will be too good",
            DatasetWarning,
            stacklevel=2,
        )


def check_matches(dataset: ReIDDataset) -> None:
    """Whether the queries have a right answer: a gallery image of their identity, from another camera if that counts.

    Raises:
        DatasetError: not a single query has one.

    Warns:
        DatasetWarning: some queries have none.
    """
    cameras: dict[int, set[int]] = {}
    for record in dataset.gallery:
        if record.pid != JUNK_PID:
            cameras.setdefault(record.pid, set()).add(record.camid)
    absent = [record for record in dataset.query if record.pid not in cameras]
    filtered = dataset.protocol.camera_filter and dataset.has_cameras
    same_camera = [record for record in dataset.query if filtered and cameras.get(record.pid) == {record.camid}]
    without = len(absent) + len(same_camera)
    if not without:
        return
    message = (
        f"{dataset.root}: {without} of {len(dataset.query)} queries have no right answer in the gallery "
        f"({len(absent)} whose identity is not there, {len(same_camera)} whose identity is there from the same camera "
        f"only); the first is {(absent + same_camera)[0].path.name}"
    )
    if without == len(dataset.query):
        raise DatasetError(message)
    warnings.warn(message, DatasetWarning, stacklevel=2)


def check_losses(model: ReIDModel, data: ReIDDataModule, recipe: Recipe, *, num_classes: int) -> dict[str, int]:
    """Run a few training images through a copy of the model and look up what the losses want.

    Returns:
        The width of each embedding by name.

    Raises:
        RecipeError: the model has no such output, or cannot take images of that size.
        DatasetError: an image cannot be read.
        TrainingError: an output of the fresh model is not finite.
    """
    count = min(_PROBE_IMAGES, len(data.images))
    batch = default_collate([data.images[SampleKey(index, 0)] for index in range(count)])
    # A copy, because a forward pass in training mode moves the running statistics of batch norm.
    probe = copy.deepcopy(model).train()
    height, width = batch.image.shape[2:]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            output = probe(batch.image)
        except RuntimeError as error:
            raise RecipeError(
                f"'data.size' is [{height}, {width}], with which model {recipe.model.name} fails: {error}"
            ) from error
    assert isinstance(output, ModelOutput)
    check_names(output, recipe.losses, num_classes=num_classes)
    for name, value in (output.embeddings | output.logits).items():
        if not torch.isfinite(value).all():
            raise TrainingError(
                f"the output {name!r} of model {recipe.model.name} is not finite before the first step; "
                f"are its weights ({recipe.model.weights}) damaged?"
            )
    return {name: int(value.shape[1]) for name, value in output.embeddings.items()}


def fingerprint(dataset: ReIDDataset) -> str:
    """A hash of the training split's file names, identities and cameras: a resumed run must see the same images."""
    digest = hashlib.sha256()
    for record in dataset.train:
        digest.update(f"{record.path.name}\t{record.pid}\t{record.camid}\n".encode())
    return digest.hexdigest()
