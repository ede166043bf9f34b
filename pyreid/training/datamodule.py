"""The Lightning data module: a data set on disk, identity batches, transforms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from pyreid.data import (
    FixedLengthSampler,
    ImageDataset,
    RandomErasing,
    RandomIdentitySampler,
    RankBatches,
    ReIDDataset,
    Sample,
    ShuffleSampler,
    train_transform,
)
from pyreid.data.hard_samples import HardSampleSampler
from pyreid.data.transforms import Transform
from pyreid.errors import RecipeError, TrainingError
from pyreid.inference.images import ImageInput
from pyreid.models.base import ReIDModel
from pyreid.training.processes import agree, current_ranks, from_first
from pyreid.training.recipe import Recipe
from pyreid.training.settings.data import DataSettings, ErasingSettings


def image_input(model: ReIDModel, data: DataSettings | None = None) -> ImageInput:
    """The recipe's size and normalisation, or the model's own where the recipe leaves them out."""
    return ImageInput(
        size=(data.size if data is not None else None) or model.default_input_size,
        mean=(data.mean if data is not None else None) or model.pixel_mean,
        std=(data.std if data is not None else None) or model.pixel_std,
    )


class ReIDDataModule(L.LightningDataModule):
    """Training batches of a recipe. Evaluation reads its images itself (:mod:`pyreid.training.features`).

    The trainer must reload the loader at every epoch: the number of batches differs a little from epoch to epoch.
    """

    def __init__(self, dataset: ReIDDataset, recipe: Recipe, images: ImageInput) -> None:
        super().__init__()
        self.recipe = recipe
        self.image_input = images
        self.images = make_train_images(dataset, recipe.data, images)
        ranks = current_ranks()
        self.hard_samples = _make_hard_samples(recipe, self.images)
        whole = self.hard_samples or _make_sampler(recipe, self.images, ranks.world)
        self.sampler = RankBatches(whole, rank=ranks.rank, num_ranks=ranks.world)

    def train_dataloader(self) -> DataLoader[Sample]:
        """The batches of the trainer's current epoch."""
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        self.sampler.set_epoch(epoch)
        if self.hard_samples is not None:
            self._mine(self.hard_samples, epoch)
        return _LazyLoader(
            self.images,
            batch_sampler=self.sampler,
            num_workers=self.recipe.data.workers,
            pin_memory=torch.cuda.is_available(),
            # Its own generator: otherwise making a loader would draw from the global one, and a run that evaluates
            # or resumes more often would train differently.
            generator=torch.Generator().manual_seed(self.recipe.seed + epoch),
        )

    def _mine(self, sampler: HardSampleSampler, epoch: int) -> None:
        """Begin a round of hard sample mining: its augmentation, and its batches by the scores of the present model."""
        from pyreid.training.mining import at_level, level_of, score

        settings = self.recipe.mining
        assert settings is not None
        data = at_level(self.recipe.data, level_of(epoch, settings.full_after))
        self.images.transform = make_train_transform(data, self.image_input)
        if sampler.is_planned:
            return
        assert self.trainer is not None  # without a run there is no model
        scores, error = None, None
        if self.trainer.is_global_zero:  # the ranks' statistics of batch norm differ, and so would their batches
            try:
                module: Any = self.trainer.lightning_module
                with self.trainer.precision_plugin.forward_context():
                    scores = score(
                        module.model,
                        module.objective,
                        self.images,
                        sampler.pool(),
                        terms=settings.terms,
                        batch_size=self.recipe.sampler.num_ids * self.recipe.sampler.num_instances,
                        workers=self.recipe.data.workers,
                    )
            except Exception as problem:
                error = problem
        agree(error)
        sampler.keep(from_first(scores))
        if not len(self.sampler):  # Lightning would go on without a step
            raise TrainingError(
                f"round {epoch + 1} of hard sample mining has {len(sampler)} batches of the images that it keeps, "
                f"expected at least one for each of {self.sampler.num_ranks} processes; raise mining.share or "
                "mining.per_identity, or lower trainer.devices"
            )


def _make_sampler(
    recipe: Recipe, images: ImageDataset, world: int
) -> RandomIdentitySampler | ShuffleSampler | FixedLengthSampler:
    settings = recipe.sampler
    sampler: RandomIdentitySampler | ShuffleSampler
    if settings.batches == "shuffled":
        size = settings.num_ids * settings.num_instances
        sampler = ShuffleSampler(len(images), batch_size=size, seed=recipe.seed)
    else:
        sampler = RandomIdentitySampler(
            images.labels,
            num_ids=settings.num_ids,
            num_instances=settings.num_instances,
            seed=recipe.seed,
            epoch_of=settings.epoch_of,
            cameras=[record.camid for record in images.records] if settings.across_cameras else None,
        )
    length = recipe.trainer.iterations_per_epoch
    return sampler if length is None else FixedLengthSampler(sampler, length * world)


def _make_hard_samples(recipe: Recipe, images: ImageDataset) -> HardSampleSampler | None:
    if recipe.mining is None:
        return None
    return HardSampleSampler(
        images.labels,
        per_identity=recipe.mining.per_identity,
        num_ids=recipe.sampler.num_ids,
        num_instances=recipe.sampler.num_instances,
        share=recipe.mining.share,
        share_of=recipe.mining.share_of,
        batches=recipe.mining.batches,
        seed=recipe.seed,
    )


class _LazyLoader(DataLoader[Sample]):
    """Starts its workers with the first batch: Lightning makes more iterators than it reads."""

    def __iter__(self) -> Iterator[Sample]:  # type: ignore[override]
        yield from super().__iter__()


def make_train_images(dataset: ReIDDataset, data: DataSettings, images: ImageInput) -> ImageDataset:
    """The training split with its augmentation and class labels.

    Raises:
        RecipeError: ``data.center_crop`` is larger than the images.
    """
    return ImageDataset(dataset.train, make_train_transform(data, images), dataset.train_labels)


def make_train_transform(data: DataSettings, images: ImageInput) -> Transform:
    """The augmentation of a recipe.

    Raises:
        RecipeError: ``data.center_crop`` is larger than the images.
    """
    crop, move, jitter, light = data.center_crop, data.translation, data.jitter, data.lighting
    if crop is not None and (crop[0] > images.size[0] or crop[1] > images.size[1]):
        raise RecipeError(f"'data.center_crop' is {list(crop)}, more than the images' size {list(images.size)}")
    return train_transform(
        images.size,
        flip=data.flip,
        pad=data.pad,
        erasing=_make_erasing(data.erasing),
        translation=None if move is None else (move.probability, move.scale),
        center_crop=crop,
        jitter=None if jitter is None else (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue),
        lighting=None if light is None else (light.probability, light.std),
        mean=images.mean,
        std=images.std,
    )


def _make_erasing(settings: ErasingSettings | None) -> RandomErasing | None:
    if settings is None:
        return None
    return RandomErasing(p=settings.probability, area=settings.area, r1=settings.aspect, fill=settings.fill)
