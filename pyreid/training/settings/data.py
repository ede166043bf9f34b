"""The ``data`` and ``sampler`` parts of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictInt, StrictStr, model_validator

from pyreid.training.settings.base import (
    ImageSize,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Probability,
    Settings,
    ThreeFloats,
)


class ErasingSettings(Settings):
    """Random erasing: with ``probability``, a rectangle of an area share in ``area`` is filled after normalisation.

    Its height / width is in [aspect, 1 / aspect]. ``fill``: ``"mean"`` is the mean pixel (0), ``"noise"`` draws N(0, 1)
    for every value, and three numbers are written as they are into the normalised R, G and B.
    """

    probability: Probability = 0.5
    area: tuple[Probability, Probability] = (0.02, 0.4)
    aspect: Annotated[float, Field(strict=True, gt=0, le=1)] = 0.3
    fill: Literal["mean", "noise"] | ThreeFloats = "mean"

    @model_validator(mode="after")
    def _area_is_ordered(self) -> ErasingSettings:
        if not 0 < self.area[0] <= self.area[1] < 1:
            raise ValueError(
                f"area must be [smallest, largest] with 0 < smallest <= largest < 1; got {list(self.area)}"
            )
        return self


class TranslationSettings(Settings):
    """Random shift: with ``probability``, resize to ``scale`` times the size and crop the size at a random place.

    0.5 is the random 2D translation of the VeRi-776 study, 1 the crop of DaRe. It replaces the plain resize.
    """

    probability: Probability = 0.5
    scale: Annotated[float, Field(strict=True, ge=1, le=4)] = 1.125


class JitterSettings(Settings):
    """Random brightness, contrast, saturation and hue: a factor in [1 - x, 1 + x] each, a hue shift in [-x, x].

    The defaults are those of the code of the VeRi-776 study.
    """

    brightness: Probability = 0.2
    contrast: Probability = 0.15
    saturation: Probability = 0.0
    hue: Annotated[float, Field(strict=True, ge=0, le=0.5)] = 0.0


class LightingSettings(Settings):
    """Random light along the principal components of ImageNet's colours, of deviation ``std``, with ``probability``."""

    probability: Probability = 0.5
    std: NonNegativeFloat = 0.1


class DataSettings(Settings):
    """Which data set, and how its images reach the model.

    ``size`` is (height, width); null takes the model's own. ``mean`` and ``std`` (of RGB in 0..1) likewise.
    ``pad`` is the border in pixels for the random crop after padding; ``flip`` the probability of a mirror image.
    ``translation`` enlarges and crops, ``center_crop`` is the (height, width) cut out of the middle and resized back,
    ``jitter`` and ``lighting`` change colours, ``erasing`` covers a rectangle; each is off where it is null. They are
    applied in the order translation (or resize), center crop, flip, pad and crop, jitter, lighting, normalisation,
    erasing.
    """

    dataset: StrictStr
    root: StrictStr | None = None
    size: ImageSize | None = None
    mean: ThreeFloats | None = None
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    flip: Probability = 0.5
    pad: Annotated[StrictInt, Field(ge=0)] = 10
    translation: TranslationSettings | None = None
    center_crop: tuple[PositiveInt, PositiveInt] | None = None
    jitter: JitterSettings | None = None
    lighting: LightingSettings | None = None
    erasing: ErasingSettings | None = None
    workers: Annotated[StrictInt, Field(ge=0)] = 2

    @model_validator(mode="after")
    def _one_crop(self) -> DataSettings:
        if self.translation is not None and self.pad > 0:
            raise ValueError(f"pad is {self.pad}, but translation crops already; set pad to 0 or translation to null")
        return self


class SamplerSettings(Settings):
    """A batch has ``num_ids`` times ``num_instances`` images.

    ``batches``: ``"identities"`` takes ``num_instances`` images of each of ``num_ids`` identities; ``"shuffled"`` takes
    the images in random order, for training without triplets. ``epoch_of`` says what an epoch of the former goes
    through: ``"images"`` all images, group by group, or ``"identities"`` each identity once, as DaRe's authors do.
    ``across_cameras`` takes the images of an identity in a batch from as many cameras as possible. Hard sample mining
    composes its batches itself.
    """

    num_ids: PositiveInt = 16
    num_instances: PositiveInt = 4
    batches: Literal["identities", "shuffled"] = "identities"
    epoch_of: Literal["images", "identities"] = "images"
    across_cameras: StrictBool = False

    @model_validator(mode="after")
    def _batches_have_several_images(self) -> SamplerSettings:
        if self.num_ids * self.num_instances < 2:
            raise ValueError("num_ids x num_instances is 1, but batch norm needs at least 2 images in a batch")
        return self

    @model_validator(mode="after")
    def _what_is_of_identities_needs_them(self) -> SamplerSettings:
        if self.batches == "shuffled" and self.across_cameras:
            raise ValueError("across_cameras is true, but batches is 'shuffled', which knows no identities")
        if self.batches == "shuffled" and self.epoch_of == "identities":
            raise ValueError("epoch_of is 'identities', but batches is 'shuffled', whose epoch has every image once")
        return self
