"""The ``losses`` part of a recipe."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StrictBool, StrictStr, model_validator

from pyreid.training.references import absolute_reference
from pyreid.training.settings.base import NonNegativeFloat, PositiveFloat, PositiveInt, Settings


class CrossEntropySettings(Settings):
    """Cross-entropy on one of the model's logits with label smoothing (modes: see SAFR, Sect. 4.2)."""

    type: Literal["cross_entropy"]
    logits: StrictStr = "id"
    smoothing: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.1
    mode: Literal["standard", "sgn", "sgn_norm"] = "standard"
    weight: NonNegativeFloat = 1.0


class BatchHardTripletSettings(Settings):
    """Batch-hard triplet loss on one of the model's embeddings; ``margin: null`` is the soft margin."""

    type: Literal["batch_hard_triplet"]
    embedding: StrictStr = "embedding"
    margin: NonNegativeFloat | None = 0.3
    reduction: Literal["mean", "sum"] = "mean"
    weight: NonNegativeFloat = 1.0


class BatchSoftTripletSettings(Settings):
    """Batch-soft triplet loss on one of the model's embeddings; ``margin: null`` is the soft margin."""

    type: Literal["batch_soft_triplet"]
    embedding: StrictStr = "embedding"
    margin: NonNegativeFloat | None = None
    reduction: Literal["mean", "sum"] = "mean"
    weight: NonNegativeFloat = 1.0


class TripletSettings(Settings):
    """All triplets of a batch (Compact-ReID, eq. 1); ``margin: null`` is the soft margin."""

    type: Literal["triplet"]
    embedding: StrictStr = "embedding"
    margin: NonNegativeFloat | None = 0.3
    reduction: Literal["mean", "mean_nonzero", "sum"] = "mean"
    weight: NonNegativeFloat = 1.0


class AMSoftmaxSettings(Settings):
    """Cross-entropy on cosines with an additive margin (RMNet, eq. 2); the model's own ``logit_scale`` must be 1."""

    type: Literal["am_softmax"]
    logits: StrictStr = "id"
    scale: PositiveFloat = 30.0
    margin: NonNegativeFloat = 0.35
    weight: NonNegativeFloat = 1.0


class ArcFaceSettings(Settings):
    """Cross-entropy on cosines with a margin in the angle; the model's own ``logit_scale`` must be 1."""

    type: Literal["arcface"]
    logits: StrictStr = "id"
    scale: PositiveFloat = 32.0
    margin: Annotated[float, Field(strict=True, ge=0, lt=math.pi)] = 0.5
    weight: NonNegativeFloat = 1.0


class CenterSettings(Settings):
    """Center loss (SAFR, Sect. 4.2; RMNet, eq. 3); ``center_lr`` is of the centres' own SGD.

    ``reduction: null`` is the paper's: the sum for ``euclidean``, the mean for ``cosine``.
    """

    type: Literal["center"]
    embedding: StrictStr = "embedding"
    distance: Literal["euclidean", "cosine"] = "euclidean"
    reduction: Literal["sum", "mean"] | None = None
    center_lr: PositiveFloat = 0.5
    weight: NonNegativeFloat = 0.0005


class _PushSettings(Settings):
    embedding: StrictStr = "embedding"
    smart: StrictBool = True
    margin: NonNegativeFloat = 0.15
    final_margin: NonNegativeFloat | None = 0.6
    margin_steps: PositiveInt = 40_000
    detach_centers: StrictBool = True
    weight: NonNegativeFloat = 1.0

    @model_validator(mode="after")
    def _the_margin_grows(self) -> _PushSettings:
        if self.final_margin is not None and self.final_margin < self.margin:
            raise ValueError(
                f"final_margin is {self.final_margin:g}, less than margin, {self.margin:g}; set it to null for "
                "a margin that stays"
            )
        return self


class PushSettings(_PushSettings):
    """Push loss between the identities of a batch (RMNet, eq. 4); ``smart`` needs a cosine center loss.

    ``detach_centers: false`` lets this loss move the centres, too.
    """

    type: Literal["push"]


class GlobPushSettings(_PushSettings):
    """Push loss from the centres of the other identities (RMNet, eq. 5), which a cosine center loss owns.

    ``detach_centers: false`` lets this loss move the centres, too.
    """

    type: Literal["glob_push"]


class CustomSettings(Settings):
    """A loss of the user's own: an ``nn.Module`` that is called with one output of the model and the labels (N,).

    ``loss`` is ``FILE.py:NAME`` or ``package.module:NAME``, where NAME is the class, or a function that returns a
    module; it gets ``options`` by their names. A relative FILE lies beside the recipe's file or in the working
    directory; the recipe holds it as an absolute one. Parameters of the loss are trained by the recipe's optimiser.
    """

    type: Literal["custom"]
    loss: Annotated[StrictStr, AfterValidator(absolute_reference)]
    embedding: StrictStr | None = None
    logits: StrictStr | None = None
    options: dict[StrictStr, Any] = Field(default_factory=dict)
    weight: NonNegativeFloat = 1.0

    @model_validator(mode="after")
    def _one_input(self) -> CustomSettings:
        if (self.embedding is None) == (self.logits is None):
            got = "none" if self.embedding is None else f"embedding {self.embedding!r} and logits {self.logits!r}"
            raise ValueError(f"expected either embedding or logits, the input of the loss; got {got}")
        return self


BuiltInSettings = (
    CrossEntropySettings
    | AMSoftmaxSettings
    | ArcFaceSettings
    | TripletSettings
    | BatchHardTripletSettings
    | BatchSoftTripletSettings
    | CenterSettings
    | PushSettings
    | GlobPushSettings
)
LossSettings = Annotated[BuiltInSettings | CustomSettings, Field(discriminator="type")]


class LossWeighting(Settings):
    """How the losses are added up: with their weights, brought to the size of the first one, or with learned weights.

    See :class:`pyreid.losses.WeightedSum`. ``decay`` is of the running sizes in ``balanced``.
    """

    mode: Literal["fixed", "balanced", "learned"] = "fixed"
    decay: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.99
