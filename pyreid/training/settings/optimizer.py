"""The ``optimizer`` part of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictBool, model_validator

from pyreid.training.settings.base import (
    NonNegativeFloat,
    PositiveFloat,
    Settings,
)


class SGDSettings(Settings):
    """Stochastic gradient descent with momentum."""

    type: Literal["sgd"]
    lr: PositiveFloat
    momentum: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.9
    weight_decay: NonNegativeFloat = 0.0005
    nesterov: StrictBool = False

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> SGDSettings:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self


Beta = Annotated[float, Field(strict=True, ge=0, lt=1)]


class LateBeta1(Settings):
    """Adam's beta1 becomes ``value`` when ``epoch`` epochs are done (DaRe, Sect. 5: 0.5 in place of 0.9)."""

    epoch: PositiveFloat
    value: Beta = 0.5


class AdamSettings(Settings):
    """Adam, the weight decay a part of the gradient; with ``amsgrad`` the largest second moment so far counts."""

    type: Literal["adam"]
    lr: PositiveFloat
    weight_decay: NonNegativeFloat = 0.0005
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    amsgrad: StrictBool = False
    late_beta1: LateBeta1 | None = None


class AdamWSettings(Settings):
    """Adam with decoupled weight decay; with ``amsgrad`` the largest second moment so far counts."""

    type: Literal["adamw"]
    lr: PositiveFloat
    weight_decay: NonNegativeFloat = 0.0005
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    amsgrad: StrictBool = False
    late_beta1: LateBeta1 | None = None


class RMSpropSettings(Settings):
    """RMSprop; ``alpha`` is the share that the running mean of squares keeps."""

    type: Literal["rmsprop"]
    lr: PositiveFloat
    weight_decay: NonNegativeFloat = 0.0005
    alpha: Beta = 0.99
    momentum: Beta = 0.0


OptimizerSettings = Annotated[SGDSettings | AdamSettings | AdamWSettings | RMSpropSettings, Field(discriminator="type")]
