"""The ``schedule`` part of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictInt, model_validator

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


class ExponentialDecay(Settings):
    """Constant for ``start`` epochs, then down by equal factors to ``final`` of the learning rate at the run's end.

    DaRe, eq. 4: ``final`` 0.001 over the second half of the run.
    """

    type: Literal["exponential"]
    start: NonNegativeFloat
    final: Annotated[float, Field(strict=True, gt=0, le=1)] = 0.001


DecaySettings = Annotated[
    ConstantDecay | MultiStepDecay | StepDecay | CosineDecay | ExponentialDecay, Field(discriminator="type")
]


class CycleSettings(Settings):
    """From epoch ``begin`` on, ``count`` half cosines of ``length`` epochs each take the place of warm-up and decay.

    Cycle c goes from ``lr * decay^c`` down to ``min_lr``, both absolute learning rates (Compact-ReID, Sect. 3.1: 15
    cycles of 35 epochs, decay 0.7).
    """

    begin: Annotated[StrictInt, Field(ge=0)]
    count: PositiveInt = 15
    length: PositiveInt = 35
    lr: PositiveFloat
    decay: Annotated[float, Field(strict=True, gt=0, le=1)] = 0.7
    min_lr: NonNegativeFloat = 0.0

    @model_validator(mode="after")
    def _every_cycle_falls(self) -> CycleSettings:
        last = self.lr * self.decay ** (self.count - 1)
        if self.min_lr > last:
            raise ValueError(f"min_lr is {self.min_lr:g}, above the last cycle's first learning rate, {last:g}")
        return self

    @property
    def end(self) -> int:
        """The epoch after the last cycle."""
        return self.begin + self.count * self.length

    @property
    def ends(self) -> range:
        """Epochs that are done at the end of each cycle."""
        return range(self.begin + self.length, self.end + 1, self.length)


class ScheduleSettings(Settings):
    """The learning rate over the epochs: a warm-up (or null) times a decay, and after that cycles (or null).

    ``interval: iteration`` follows the curve at every step, with the epoch as a fraction, and needs
    ``trainer.iterations_per_epoch``; otherwise the learning rate of an epoch is that of its start.
    """

    warmup: WarmupSettings | None = None
    decay: DecaySettings = ConstantDecay(type="constant")
    cycles: CycleSettings | None = None
    interval: Literal["epoch", "iteration"] = "epoch"


class SWAGSettings(Settings):
    """Weights averaged over the ends of the schedule's cycles (Compact-ReID, Sect. 3.1).

    After the last cycle the mean model, its batch-norm statistics estimated anew, is evaluated and written. ``samples``
    above 0 also evaluates the average of the unit embeddings of that many models from the Gaussian, whose covariance
    is diagonal, or with ``max_rank`` of that rank besides, times ``scale``.
    """

    max_rank: Annotated[StrictInt, Field(ge=0)] = 0
    samples: Annotated[StrictInt, Field(ge=0)] = 0
    scale: NonNegativeFloat = 1.0

    @model_validator(mode="after")
    def _a_covariance_needs_two(self) -> SWAGSettings:
        if self.max_rank == 1:
            raise ValueError("max_rank must be 0 (diagonal) or at least 2")
        return self
