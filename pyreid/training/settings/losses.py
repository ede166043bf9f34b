"""The ``losses`` part of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictStr

from pyreid.training.settings.base import (
    NonNegativeFloat,
    Settings,
)


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
    weight: NonNegativeFloat = 1.0


class BatchSoftTripletSettings(Settings):
    """Batch-soft triplet loss on one of the model's embeddings; ``margin: null`` is the soft margin."""

    type: Literal["batch_soft_triplet"]
    embedding: StrictStr = "embedding"
    margin: NonNegativeFloat | None = None
    weight: NonNegativeFloat = 1.0


LossSettings = Annotated[
    CrossEntropySettings | BatchHardTripletSettings | BatchSoftTripletSettings, Field(discriminator="type")
]
