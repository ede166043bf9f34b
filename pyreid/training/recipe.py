"""The settings of one training run, as strict pydantic models: a *recipe*.

A recipe file is YAML; :func:`pyreid.training.load_recipe` reads it, follows its ``base`` files, applies overrides and
checks every key and value against these models. Unknown keys are errors and no value is converted silently, so that a
typing error is found in a second and not after a night of training.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StrictInt, StrictStr, model_validator

from pyreid.training.settings.base import Settings
from pyreid.training.settings.data import DataSettings, SamplerSettings
from pyreid.training.settings.losses import LossSettings, LossWeighting
from pyreid.training.settings.mining import MiningSettings
from pyreid.training.settings.model import ModelSettings, PaperNumbers
from pyreid.training.settings.optimizer import OptimizerSettings
from pyreid.training.settings.schedule import ScheduleSettings, SWAGSettings
from pyreid.training.settings.trainer import EvaluationSettings, TrainerSettings


class Recipe(Settings):
    """One training run: everything that is needed to repeat it, except the images."""

    name: Annotated[StrictStr, Field(pattern=r"^\w[\w.+-]*(/\w[\w.+-]*)*$")]
    description: StrictStr = ""
    seed: Annotated[StrictInt, Field(ge=0, lt=2**32)] = 0
    data: DataSettings
    sampler: SamplerSettings = SamplerSettings()
    mining: MiningSettings | None = None
    model: ModelSettings
    losses: Annotated[tuple[LossSettings, ...], Field(min_length=1)]
    loss_weighting: LossWeighting = LossWeighting()
    optimizer: OptimizerSettings
    schedule: ScheduleSettings = ScheduleSettings()
    swag: SWAGSettings | None = None
    trainer: TrainerSettings
    evaluation: EvaluationSettings = EvaluationSettings()
    paper: PaperNumbers | None = None

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Recipe:
        if any("triplet" in loss.type for loss in self.losses):
            if self.sampler.num_instances < 2:
                raise ValueError(
                    "sampler.num_instances is 1, but a triplet loss needs at least 2 images of an identity"
                )
            if self.sampler.num_ids < 2:
                raise ValueError("sampler.num_ids is 1, but a triplet loss needs at least 2 identities in a batch")
            if self.sampler.batches == "shuffled":
                raise ValueError("sampler.batches is 'shuffled', but a triplet loss needs 'identities'")
        idle = [index for index, loss in enumerate(self.losses) if loss.weight == 0]
        if idle and self.loss_weighting.mode == "learned":
            raise ValueError(f"losses.{idle[0]}.weight is 0, but loss_weighting.mode 'learned' needs weights above 0")
        if len(idle) == len(self.losses):
            raise ValueError("all weights of the losses are 0, so that nothing is learned")
        self._centers_are_there()
        self._mining_fits()
        self._schedule_fits()
        cycles = self.schedule.cycles
        if cycles is not None and cycles.end != self.trainer.epochs:
            raise ValueError(
                f"schedule.cycles ends after epoch {cycles.end} ({cycles.begin} + {cycles.count} x {cycles.length}), "
                f"but trainer.epochs is {self.trainer.epochs}"
            )
        if self.swag is not None:
            if self.trainer.early_stopping is not None:
                raise ValueError(
                    "swag needs the last cycle, which trainer.early_stopping may never reach; set it to null"
                )
            if cycles is None:
                raise ValueError("swag averages over the cycles of a schedule, but schedule.cycles is null")
            if self.swag.max_rank > 0 and cycles.count < 2:
                raise ValueError("swag.max_rank needs at least 2 cycles, but schedule.cycles.count is 1")
        return self

    def _schedule_fits(self) -> None:
        warmup, decay, cycles = self.schedule.warmup, self.schedule.decay, self.schedule.cycles
        what, end = (
            ("trainer.epochs", self.trainer.epochs) if cycles is None else ("schedule.cycles.begin", cycles.begin)
        )
        if decay.type == "cosine":
            # Cycles from the first epoch on leave the warm-up none either.
            if warmup is not None and warmup.epochs >= end > 0:
                raise ValueError(
                    f"schedule.warmup.epochs is {warmup.epochs}, which leaves no epoch for the cosine: "
                    f"{what} is {end} (schedule.warmup=null trains without)"
                )
            if decay.min_lr > self.optimizer.lr:
                raise ValueError(
                    f"schedule.decay.min_lr is {decay.min_lr:g}, above optimizer.lr, {self.optimizer.lr:g}"
                )
        if decay.type == "exponential" and decay.start >= end:
            raise ValueError(f"schedule.decay.start is {decay.start:g}, but the decay ends with epoch {end}")
        if self.schedule.interval == "iteration" and self.trainer.iterations_per_epoch is None:
            raise ValueError("schedule.interval is 'iteration', which needs trainer.iterations_per_epoch")

    def _mining_fits(self) -> None:
        if self.mining is None:
            return
        types = [loss.type for loss in self.losses]
        absent = [term for term in self.mining.terms if term not in types]
        if absent:
            raise ValueError(f"mining.terms has {absent[0]!r}, but the losses are {', '.join(types)}")
        if self.mining.batches == "shuffled" and any("triplet" in name for name in types):
            raise ValueError("mining.batches is 'shuffled', but a triplet loss needs 'identities'")
        if self.sampler.batches == "shuffled" or self.sampler.epoch_of == "identities":
            raise ValueError(
                "mining composes its batches itself (mining.batches); leave sampler.batches and sampler.epoch_of out"
            )
        if self.sampler.across_cameras:
            raise ValueError(
                "mining composes its batches itself, without regard to cameras; leave sampler.across_cameras out"
            )
        if self.trainer.iterations_per_epoch is not None:
            raise ValueError(
                "mining has rounds of its own length, but trainer.iterations_per_epoch is "
                f"{self.trainer.iterations_per_epoch}; set one of both to null"
            )

    def _centers_are_there(self) -> None:
        """One center loss for an embedding at most, and one with cosine distances for push losses that need it."""
        distances: dict[str, str] = {}
        for index, loss in enumerate(self.losses):
            if loss.type != "center":
                continue
            if loss.embedding in distances:
                raise ValueError(f"losses.{index} is a second center loss on the embedding {loss.embedding!r}")
            distances[loss.embedding] = loss.distance
        for index, loss in enumerate(self.losses):
            if (loss.type == "glob_push" or (loss.type == "push" and loss.smart)) and (
                distances.get(loss.embedding) != "cosine"
            ):
                raise ValueError(
                    f"losses.{index} is a {loss.type} loss on the embedding {loss.embedding!r}, which needs a center "
                    "loss with distance: cosine on it"
                )
