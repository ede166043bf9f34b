"""What makes a drawn vehicle one vehicle: body type, paint, trim, decals, racks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from pyreid.data.synthetic.chance import between, chance, pick, stream
from pyreid.data.synthetic.colors import VIVID, Color, contrast, vary
from pyreid.data.synthetic.person_look import FAMILY_SIZE

BodyType = Literal["sedan", "suv", "van", "hatchback", "mpv", "pickup", "bus", "truck", "estate"]
Decal = Literal["none", "square", "disc", "slash"]

# The classes of VeRi-776's label files, in the order of their numbers from 1.
BODY_TYPES: tuple[BodyType, ...] = ("sedan", "suv", "van", "hatchback", "mpv", "pickup", "bus", "truck", "estate")
PAINT_NAMES = ("yellow", "orange", "green", "gray", "red", "blue", "white", "golden", "brown", "black")
_PAINTS: tuple[Color, ...] = (
    (232, 200, 46),
    (226, 124, 40),
    (46, 122, 72),
    (128, 132, 136),
    (176, 36, 38),
    (40, 76, 156),
    (232, 232, 230),
    (188, 162, 104),
    (100, 72, 52),
    (30, 31, 34),
)
# White, black and grey are the most frequent paints.
_PAINT_DRAW = (0, 1, 2, 3, 3, 3, 4, 4, 5, 5, 6, 6, 6, 6, 7, 8, 9, 9, 9)


@dataclass(frozen=True, slots=True)
class VehicleLook:
    """The parts of one vehicle; lengths in metres."""

    body: BodyType
    paint: int
    color: Color
    roof_color: Color
    trim: Color
    glass: Color
    hub: Color
    length: float
    width: float
    height: float
    light_width: float
    plate: Color
    plate_height: float
    decal: Decal
    decal_color: Color
    side_stripe: Color | None
    hood_stripe: Color | None
    rack: Color | None
    sunroof: bool
    roof_sign: Color | None
    sticker: Color | None
    sticker_left: bool


_SIZES: dict[BodyType, tuple[float, float, float]] = {
    "sedan": (4.6, 1.8, 1.45),
    "suv": (4.5, 1.9, 1.75),
    "van": (4.7, 1.85, 1.95),
    "hatchback": (3.9, 1.72, 1.5),
    "mpv": (4.6, 1.82, 1.68),
    "pickup": (5.1, 1.88, 1.75),
    "bus": (7.2, 2.3, 2.8),
    "truck": (6.2, 2.1, 2.6),
    "estate": (4.7, 1.8, 1.5),
}


def _apart(rng: np.random.Generator, first: Color) -> Color:
    while True:
        color = vary(rng, pick(rng, VIVID))
        if contrast(color, first) > 60:
            return color


def _maybe(rng: np.random.Generator, probability: float, first: Color) -> Color | None:
    """With a probability, a colour that stands out from ``first``."""
    color = _apart(rng, first)
    return color if chance(rng, probability) else None


def _draw(rng: np.random.Generator) -> VehicleLook:
    types: tuple[BodyType, ...] = (*BODY_TYPES, "sedan", "sedan", "suv", "hatchback")
    body = pick(rng, types)
    length, width, height = _SIZES[body]
    paint = pick(rng, _PAINT_DRAW)
    color = vary(rng, _PAINTS[paint], 10)
    decals: tuple[Decal, ...] = ("none", "none", "square", "disc", "slash")
    return VehicleLook(
        body=body,
        paint=paint,
        color=color,
        roof_color=_apart(rng, color) if chance(rng, 0.15) else color,
        trim=pick(rng, ((34, 34, 36), (34, 34, 36), (120, 122, 124), color)),
        glass=pick(rng, ((34, 42, 50), (22, 24, 26), (62, 84, 96), (96, 112, 118))),
        hub=pick(rng, ((186, 188, 190), (122, 124, 128), (40, 40, 42), (214, 196, 120))),
        length=length * between(rng, 0.93, 1.08),
        width=width * between(rng, 0.96, 1.04),
        height=height * between(rng, 0.95, 1.05),
        light_width=between(rng, 0.14, 0.27),
        plate=pick(rng, ((40, 70, 190), (240, 240, 236), (244, 206, 50))),
        plate_height=between(rng, 0.2, 0.42),
        decal=pick(rng, decals),
        decal_color=_apart(rng, color),
        side_stripe=_maybe(rng, 0.2, color),
        hood_stripe=_maybe(rng, 0.12, color),
        rack=_maybe(rng, 0.2, color),
        sunroof=chance(rng, 0.25),
        roof_sign=_maybe(rng, 0.12, color),
        sticker=_maybe(rng, 0.4, (40, 48, 56)),
        sticker_left=chance(rng, 0.5),
    )


def _member(base: VehicleLook, rng: np.random.Generator, member: int) -> VehicleLook:
    """The ``member``-th of a family: all members draw from the same ``rng``, and differ in one part's colour."""
    part = pick(rng, ("decal", "side_stripe", "hood_stripe", "rack", "roof_sign", "roof_color"))
    candidates = [color for color in VIVID if contrast(color, base.color) > 60]
    color = candidates[int(rng.permutation(len(candidates))[member])]
    shapes: tuple[Decal, ...] = ("square", "disc", "slash")
    shape = pick(rng, shapes)
    if part == "decal":
        return replace(base, decal=shape, decal_color=color)
    if part == "side_stripe":
        return replace(base, side_stripe=color)
    if part == "hood_stripe":
        return replace(base, hood_stripe=color)
    if part == "rack":
        return replace(base, rack=color)
    if part == "roof_sign":
        return replace(base, roof_sign=color)
    return replace(base, roof_color=color, rack=None)


def vehicle_look(seed: int, vid: int) -> VehicleLook:
    """The look of vehicle ``vid`` (from 1). Every second block of four identities is a family."""
    block, member = divmod(vid - 1, FAMILY_SIZE)
    rng = stream(seed, "vehicle family", block)
    if chance(rng, 0.5):
        return _member(_draw(rng), rng, member)
    return _draw(stream(seed, "vehicle", vid))
