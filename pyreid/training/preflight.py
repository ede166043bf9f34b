"""Checks before the first step, so that mistakes show in seconds and not after a night of training."""

from __future__ import annotations

import copy
import hashlib
import warnings

import torch
from torch.utils.data import default_collate

from pyreid.data import DatasetWarning, ReIDDataset, SampleKey
from pyreid.data.hard_samples import kept_of
from pyreid.data.records import JUNK_PID, NO_CAMERA
from pyreid.errors import DatasetError, PyreidError, RecipeError, TrainingError, WeightsError
from pyreid.models import create_model, list_models
from pyreid.models.base import ModelOutput, ReIDModel
from pyreid.training.datamodule import ReIDDataModule
from pyreid.training.objectives import check_names
from pyreid.training.recipe import Recipe
from pyreid.training.recipe_errors import suggest
from pyreid.training.settings.losses import AMSoftmaxSettings, ArcFaceSettings

_PROBE_IMAGES = 4


def check_training_data(dataset: ReIDDataset, recipe: Recipe) -> None:
    """Identities, cameras and matches of a data set; no image is opened.

    Raises:
        DatasetError: no query can ever be answered.
        RecipeError: the sampler asks for more identities, or more images, than there are, or for cameras of which
            nothing is known; or a round of hard sample mining keeps a single image.

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
    if settings.across_cameras and any(record.camid == NO_CAMERA for record in dataset.train):
        raise RecipeError(
            f"'sampler.across_cameras' is true, but training images of {dataset.root} have no cameras; set it to false"
        )
    _check_mining(dataset, recipe)
    check_matches(dataset)
    shared = dataset.shared_ids
    if shared:
        warnings.warn(
            f"{dataset.root}: {len(shared)} identities are in the training and in the test split, "
            f"the first is {min(shared)}; the scores will be too good",
            DatasetWarning,
            stacklevel=2,
        )


def _check_mining(dataset: ReIDDataset, recipe: Recipe) -> None:
    settings = recipe.mining
    if settings is None or settings.batches == "identities":  # these repeat images of an identity
        return
    pool, groups = dataset.num_train_ids * settings.per_identity, 1
    if settings.share_of == "identities":
        groups = dataset.num_train_ids
    kept = groups * kept_of(pool // groups, settings.share)
    if kept < 2:
        raise RecipeError(
            f"'mining' keeps {kept} of the {pool} images of a round, but batch norm needs at least 2; raise "
            "mining.share or mining.per_identity"
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


def make_model(recipe: Recipe, *, num_classes: int, weights: str | None) -> ReIDModel:
    """The model of a recipe.

    Raises:
        RecipeError: ``model.name`` or ``model.overrides`` is wrong, or nothing drops out that ``model.dropout_until``
            could switch off.
        WeightsError: the weights are not there or do not fit.
        MissingDependencyError: a package is missing.
    """
    name, overrides, until = recipe.model.name, recipe.model.overrides, recipe.model.dropout_until
    if name not in list_models():
        raise RecipeError(f"'model.name' is {name!r}{suggest(name, list_models())}")
    taken = [key for key in ("name", "num_classes", "weights") if key in overrides]
    if taken:
        raise RecipeError(f"'model.overrides.{taken[0]}' is set, which the data set or another key of 'model' decides")
    try:
        model = create_model(name, num_classes=num_classes, weights=weights, **overrides)
    except WeightsError as error:
        raise WeightsError(f"'model.weights' is {weights!r}: {error}") from error
    except PyreidError:
        raise
    except (ValueError, TypeError) as error:
        raise RecipeError(f"'model.overrides' is {overrides}: {error}") from error
    if until is not None and not any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in model.modules()):
        raise RecipeError(f"'model.dropout_until' is {until}, but model {name} has no dropout; set it to null")
    return model


def check_losses(model: ReIDModel, data: ReIDDataModule, recipe: Recipe, *, num_classes: int) -> dict[str, int]:
    """Run a few training images through a copy of the model and look up what the losses want.

    Returns:
        The width of each embedding by name.

    Raises:
        RecipeError: the model has no such output, or cannot take images of that size, or a loss that wants cosines is
            given other logits.
        DatasetError: an image cannot be read.
        TrainingError: an output of the fresh model is not finite.
    """
    count = min(_PROBE_IMAGES, len(data.images))
    batch = default_collate([data.images[SampleKey(index, 0)] for index in range(count)])
    # A copy, because a forward pass in training mode moves the running statistics of batch norm.
    probe = copy.deepcopy(model).train()
    height, width = batch.image.shape[2:]
    try:
        output = forward_once(probe, batch.image)
    except RuntimeError as error:
        raise RecipeError(
            f"'data.size' is [{height}, {width}], with which model {recipe.model.name} fails: {error}"
        ) from error
    check_names(output, recipe.losses, num_classes=num_classes)
    for name, value in (output.embeddings | output.logits).items():
        if not torch.isfinite(value).all():
            raise TrainingError(
                f"the output {name!r} of model {recipe.model.name} is not finite before the first step; "
                f"are its weights ({recipe.model.weights}) damaged?"
            )
    _check_cosines(probe, batch.image, output, recipe)
    return {name: int(value.shape[1]) for name, value in output.embeddings.items()}


def forward_once(model: ReIDModel, images: torch.Tensor) -> ModelOutput:
    """The output in training, always with the same dropout, and without a trace in the random state."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(0)  # torch.manual_seed would also set those of the accelerators
        output = model(images)
    assert isinstance(output, ModelOutput)
    return output


def _check_cosines(model: ReIDModel, images: torch.Tensor, output: ModelOutput, recipe: Recipe) -> None:
    """Raise RecipeError if a loss with a margin on cosines is given other logits; spoils the model's classifier.

    The losses themselves look at the size of what they get, and on the CPU only; fresh logits of a linear classifier
    are small. But cosines stay as they are when the classifier's weights become longer.
    """
    wanted = [
        (index, item)
        for index, item in enumerate(recipe.losses)
        if isinstance(item, AMSoftmaxSettings | ArcFaceSettings)
    ]
    if not wanted:
        return
    classifier = getattr(model, "classifier", None)
    with torch.no_grad():
        for parameter in classifier.parameters() if isinstance(classifier, torch.nn.Module) else ():
            parameter.mul_(3)
    longer = forward_once(model, images)
    for index, item in wanted:
        before, after = output.logits[item.logits].float(), longer.logits[item.logits].float()
        largest = float(before.abs().max())
        if largest > 1.01:
            problem = (
                f"are up to {largest:.3g} in magnitude; does its classifier have a scale of its own (logit_scale)?"
            )
        elif not torch.allclose(before, after, rtol=1e-3, atol=1e-4 * largest):
            problem = "change with the length of the classifier's weights; take cross_entropy, or a model with cosines"
        else:
            continue
        raise RecipeError(
            f"'losses.{index}' is {item.type}, which needs cosines, but the logits {item.logits!r} of model "
            f"{recipe.model.name} {problem}"
        )


def fingerprint(dataset: ReIDDataset) -> str:
    """A hash of the training split's file names, identities and cameras: a resumed run must see the same images."""
    digest = hashlib.sha256()
    for record in dataset.train:
        digest.update(f"{record.path.name}\t{record.pid}\t{record.camid}\n".encode())
    return digest.hexdigest()
