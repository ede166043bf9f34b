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


class AdamWSettings(Settings):
    """Adam with decoupled weight decay."""

    type: Literal["adamw"]
    lr: PositiveFloat
    weight_decay: NonNegativeFloat = 0.0005
    betas: tuple[
        Annotated[float, Field(strict=True, ge=0, lt=1)],
        Annotated[float, Field(strict=True, ge=0, lt=1)],
    ] = (0.9, 0.999)


OptimizerSettings = Annotated[SGDSettings | AdamWSettings, Field(discriminator="type")]
