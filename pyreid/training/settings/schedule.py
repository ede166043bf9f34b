"""The ``schedule`` part of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pyreid.training.settings.base import (
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Settings,
)


class WarmupSettings(Settings):
    """Linear warm-up: the factor of the learning rate goes from ``start`` at epoch 0 to 1 at epoch ``epochs``."""

    epochs: PositiveInt
    start: Annotated[float, Field(strict=True, gt=0, le=1)] = 0.1


class ConstantDecay(Settings):
    """The learning rate stays."""

    type: Literal["constant"]


class MultiStepDecay(Settings):
    """The learning rate is multiplied by ``gamma`` at each of the ``milestones`` (epochs from the start of the run)."""

    type: Literal["multi_step"]
    milestones: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    gamma: PositiveFloat = 0.1

    @model_validator(mode="after")
    def _milestones_increase(self) -> MultiStepDecay:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must increase; got {list(self.milestones)}")
        return self


class StepDecay(Settings):
    """The learning rate is multiplied by ``gamma`` every ``every`` epochs, counted from the end of the warm-up."""

    type: Literal["step"]
    every: PositiveInt
    gamma: PositiveFloat = 0.1


class CosineDecay(Settings):
    """Half a cosine from the end of the warm-up to the last epoch, down to ``min_lr`` (an absolute learning rate)."""

    type: Literal["cosine"]
    min_lr: NonNegativeFloat = 0.0


DecaySettings = Annotated[ConstantDecay | MultiStepDecay | StepDecay | CosineDecay, Field(discriminator="type")]


class ScheduleSettings(Settings):
    """The learning rate over the epochs: a warm-up (or null) times a decay."""

    warmup: WarmupSettings | None = None
    decay: DecaySettings = ConstantDecay(type="constant")
