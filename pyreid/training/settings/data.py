"""The ``data`` and ``sampler`` parts of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictInt, StrictStr, model_validator

from pyreid.training.settings.base import (
    ImageSize,
    PositiveFloat,
    PositiveInt,
    Probability,
    Settings,
    ThreeFloats,
)


class ErasingSettings(Settings):
    """Random erasing: with ``probability``, a rectangle of an area share in ``area`` is filled after normalisation."""

    probability: Probability = 0.5
    area: tuple[Probability, Probability] = (0.02, 0.4)
    aspect: Annotated[float, Field(strict=True, gt=0, le=1)] = 0.3
    fill: Literal["mean", "noise"] = "mean"

    @model_validator(mode="after")
    def _area_is_ordered(self) -> ErasingSettings:
        if not 0 < self.area[0] <= self.area[1]:
            raise ValueError(f"area must be [smallest, largest] with 0 < smallest <= largest; got {list(self.area)}")
        return self


class DataSettings(Settings):
    """Which data set, and how its images reach the model.

    ``size`` is (height, width); null takes the model's own. ``mean`` and ``std`` (of RGB in 0..1) likewise.
    ``pad`` is the border in pixels for the random crop after padding; ``flip`` the probability of a mirror image.
    """

    dataset: StrictStr
    root: StrictStr | None = None
    size: ImageSize | None = None
    mean: ThreeFloats | None = None
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    flip: Probability = 0.5
    pad: Annotated[StrictInt, Field(ge=0)] = 10
    erasing: ErasingSettings | None = None
    workers: Annotated[StrictInt, Field(ge=0)] = 2


class SamplerSettings(Settings):
    """A batch is ``num_ids`` identities times ``num_instances`` images (random identity sampler)."""

    num_ids: PositiveInt = 16
    num_instances: PositiveInt = 4
