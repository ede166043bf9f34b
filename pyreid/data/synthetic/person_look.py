"""What makes a drawn pedestrian somebody: build, hair, clothes, bag, shoes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from pyreid.data.synthetic.chance import between, chance, pick, stream
from pyreid.data.synthetic.colors import CLOTHES, HAIR, SKIN, VIVID, Color, contrast, vary

Hair = Literal["short", "long", "bun", "bald"]
Hat = Literal["none", "cap", "beanie"]
Upper = Literal["tshirt", "shirt", "open", "coat", "vest"]
Pattern = Literal["plain", "stripes", "bars", "checks", "band", "halves", "spots"]
Lower = Literal["trousers", "shorts", "skirt"]
Bag = Literal["none", "backpack", "shoulder", "handbag"]

FAMILY_SIZE = 4
"""Identities of a family; a family shares everything but one part."""


@dataclass(frozen=True, slots=True)
class PersonLook:
    """The parts of one pedestrian, lengths relative to the average."""

    width: float
    height: float
    skin: Color
    hair: Hair
    hair_color: Color
    hat: Hat
    hat_color: Color
    upper: Upper
    upper_color: Color
    second_color: Color
    pattern: Pattern
    sleeve_color: Color
    logo_color: Color | None
    lower: Lower
    lower_color: Color
    side_stripe: Color | None
    shoes: Color
    bag: Bag
    bag_color: Color
    bag_side: int
    scarf: Color | None
    spots_seed: int


def _second(rng: np.random.Generator, first: Color) -> Color:
    """A colour that can be told from ``first``, even through a camera's cast."""
    while True:
        color = vary(rng, pick(rng, CLOTHES + VIVID))
        if contrast(color, first) > 60:
            return color


def _draw(rng: np.random.Generator) -> PersonLook:
    upper_color = vary(rng, pick(rng, CLOTHES))
    second = _second(rng, upper_color)
    lower_color = vary(rng, pick(rng, CLOTHES))
    patterns: tuple[Pattern, ...] = ("plain", "plain", "plain", "stripes", "bars", "checks", "band", "halves", "spots")
    uppers: tuple[Upper, ...] = ("tshirt", "shirt", "shirt", "open", "coat", "vest")
    lowers: tuple[Lower, ...] = ("trousers", "trousers", "trousers", "shorts", "skirt")
    hairs: tuple[Hair, ...] = ("short", "short", "long", "long", "bun", "bald")
    hats: tuple[Hat, ...] = ("none", "none", "none", "cap", "beanie")
    bags: tuple[Bag, ...] = ("none", "none", "backpack", "shoulder", "handbag")
    return PersonLook(
        width=between(rng, 0.88, 1.2),
        height=between(rng, 0.93, 1.05),
        skin=vary(rng, pick(rng, SKIN), 8),
        hair=pick(rng, hairs),
        hair_color=vary(rng, pick(rng, HAIR), 8),
        hat=pick(rng, hats),
        hat_color=vary(rng, pick(rng, CLOTHES + VIVID)),
        upper=pick(rng, uppers),
        upper_color=upper_color,
        second_color=second,
        pattern=pick(rng, patterns),
        sleeve_color=second if chance(rng, 0.2) else upper_color,
        logo_color=_second(rng, upper_color) if chance(rng, 0.3) else None,
        lower=pick(rng, lowers),
        lower_color=lower_color,
        side_stripe=_second(rng, lower_color) if chance(rng, 0.15) else None,
        shoes=vary(rng, pick(rng, CLOTHES + VIVID)),
        bag=pick(rng, bags),
        bag_color=_second(rng, upper_color),
        bag_side=1 if chance(rng, 0.5) else -1,
        scarf=_second(rng, upper_color) if chance(rng, 0.12) else None,
        spots_seed=int(rng.integers(2**31)),
    )


def _member(base: PersonLook, rng: np.random.Generator, member: int) -> PersonLook:
    """The ``member``-th of a family: all members draw from the same ``rng``, and differ in one part's colour."""
    part = pick(rng, ("bag", "hat", "shoes", "band", "stripe", "scarf"))
    away_from = base.lower_color if part in ("shoes", "stripe") else base.upper_color
    candidates = [color for color in VIVID if contrast(color, away_from) > 60]
    color = candidates[int(rng.permutation(len(candidates))[member])]
    bags: tuple[Bag, ...] = ("backpack", "shoulder")
    bag = pick(rng, bags)
    if part == "bag":
        return replace(base, bag=bag, bag_color=color)
    if part == "hat":
        return replace(base, hat=base.hat if base.hat != "none" else "cap", hat_color=color)
    if part == "shoes":
        return replace(base, shoes=color)
    if part == "band":
        return replace(base, pattern="band", second_color=color, sleeve_color=base.upper_color, logo_color=None)
    if part == "stripe":
        return replace(base, lower="trousers", side_stripe=color)
    return replace(base, scarf=color)


def person_look(seed: int, pid: int) -> PersonLook:
    """The look of identity ``pid`` (from 1). Every second block of four identities is a family."""
    block, member = divmod(pid - 1, FAMILY_SIZE)
    rng = stream(seed, "person family", block)
    if chance(rng, 0.5):
        return _member(_draw(rng), rng, member)
    return _draw(stream(seed, "person", pid))


def passer_by_look(seed: int, number: int) -> PersonLook:
    """The look of somebody who is no identity: a distractor, a junk image, or a person who walks past."""
    return _draw(stream(seed, "passer-by", number))
