"""The ``mining`` part of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pyreid.training.settings.base import PositiveInt, Settings

MinedTerm = Literal["am_softmax", "arcface", "center", "glob_push"]


class MiningSettings(Settings):
    """Hard sample mining in rounds (RMNet): an epoch trains on the hardest of a freshly augmented pool.

    ``per_identity`` augmented images of every identity are scored by the present model, in evaluation mode, with the
    sum of the losses of the types ``terms``, each by image and with its weight in the recipe; ``share`` of the pool,
    the images with the highest scores, are then seen once; with ``share_of: identities``, that share of the images of
    each identity. ``batches``: ``"shuffled"`` cuts them into batches of
    sampler.num_ids x sampler.num_instances images, ``"identities"`` draws the sampler's groups from them, as triplet
    losses need.

    The augmentation becomes harder from round to round: its level rises evenly from 0 in the first round to 1 after
    ``full_after`` rounds. At level 1 it is that of ``data``; below, the probability of erasing is multiplied by the
    level, its largest area runs from 0.1 (or less, if ``data`` says so) to its own, and the shift beyond scale 1, the
    padding, and the strengths of jitter and lighting are multiplied by the level. Flips and center crops do not change.
    """

    per_identity: PositiveInt = 8
    share: Annotated[float, Field(strict=True, gt=0, le=1)] = 0.5
    share_of: Literal["pool", "identities"] = "pool"
    terms: Annotated[tuple[MinedTerm, ...], Field(min_length=1)] = ("am_softmax",)
    batches: Literal["shuffled", "identities"] = "shuffled"
    full_after: PositiveInt = 10
