"""Draws a pedestrian from its look, a pose and a view."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from PIL.ImageDraw import ImageDraw

from pyreid.data.synthetic.chance import between, stream
from pyreid.data.synthetic.colors import Color, shade
from pyreid.data.synthetic.geometry import Point, Tube, View
from pyreid.data.synthetic.person_look import PersonLook

_SHOULDER, _HIP, _KNEE = 0.82, 0.50, 0.27
_HEAD = 0.925


@dataclass(frozen=True, slots=True)
class Gait:
    """A moment of a walk: phase in radians, stride as the greatest angle of a thigh."""

    phase: float
    stride: float


def _limb(pen: ImageDraw, view: View, start: Point, end: Point, radii: tuple[float, float], color: Color) -> None:
    """A tapered limb with round ends; radii in units of body height."""
    (x1, y1), (x2, y2) = view.pixel(start), view.pixel(end)
    r1, r2 = radii[0] * view.scale[0], radii[1] * view.scale[0]
    length = math.hypot(x2 - x1, y2 - y1) or 1.0
    nx, ny = (y1 - y2) / length, (x2 - x1) / length
    corners = [(x1 + nx * r1, y1 + ny * r1), (x2 + nx * r2, y2 + ny * r2)]
    corners += [(x2 - nx * r2, y2 - ny * r2), (x1 - nx * r1, y1 - ny * r1)]
    pen.polygon(corners, fill=color)
    pen.ellipse((x1 - r1, y1 - r1, x1 + r1, y1 + r1), fill=color)
    pen.ellipse((x2 - r2, y2 - r2, x2 + r2, y2 + r2), fill=color)


def _mid(first: Point, second: Point, share: float) -> Point:
    x, y, z = (a + (b - a) * share for a, b in zip(first, second, strict=True))
    return x, y, z


def _blob(pen: ImageDraw, view: View, center: Point, half: tuple[float, float], color: Color) -> None:
    x, y = view.pixel(center)
    w, h = half[0] * view.scale[0], half[1] * view.scale[1]
    pen.ellipse((x - w, y - h, x + w, y + h), fill=color)


def _patch(
    pen: ImageDraw,
    view: View,
    tube: Tube,
    color: Color,
    heights: tuple[float, float],
    angles: tuple[float, float] | None = None,
) -> None:
    outline = tube.patch(view, heights, angles)
    if len(outline) > 2:
        pen.polygon(outline, fill=color)


def _leg(pen: ImageDraw, view: View, look: PersonLook, gait: Gait, side: int, light: float) -> None:
    swing = gait.stride * math.sin(gait.phase + (0 if side > 0 else math.pi))
    bend = 0.15 + max(0.0, -swing) * 0.9
    hip: Point = (side * 0.052 * look.width, _HIP, 0.0)
    knee: Point = (hip[0], hip[1] - 0.23 * math.cos(swing), 0.23 * math.sin(swing))
    ankle: Point = (hip[0], knee[1] - 0.23 * math.cos(swing - bend), knee[2] + 0.23 * math.sin(swing - bend))
    toe: Point = (ankle[0] + side * 0.015, ankle[1] - 0.025, ankle[2] + 0.085)
    thick = 0.048 * look.width
    skin = shade(look.skin, light)
    cloth = shade(look.lower_color, light)
    _limb(pen, view, ankle, toe, (0.027, 0.022), shade(look.shoes, light))
    if look.lower == "trousers":
        _limb(pen, view, knee, ankle, (thick * 0.8, thick * 0.62), cloth)
        _limb(pen, view, hip, knee, (thick * 1.2, thick * 0.82), cloth)
    else:
        _limb(pen, view, knee, ankle, (thick * 0.7, thick * 0.48), skin)
        _limb(pen, view, hip, knee, (thick * 1.1, thick * 0.74), skin)
        if look.lower == "shorts":
            _limb(pen, view, hip, _mid(hip, knee, 0.8), (thick * 1.25, thick * 1.1), cloth)
    if look.side_stripe is not None and look.lower != "skirt":
        outward = side * thick
        if view.nearness((side * 1.0, 0.0, 0.0)) > -0.8:
            stripe = shade(look.side_stripe, light)
            end = knee if look.lower == "shorts" else ankle
            top: Point = (hip[0] + outward, hip[1], hip[2])
            middle: Point = (knee[0] + outward * 0.7, knee[1], knee[2])
            bottom: Point = (end[0] + outward * 0.5, end[1], end[2])
            _limb(pen, view, top, middle, (0.016, 0.016), stripe)
            if look.lower == "trousers":
                _limb(pen, view, middle, bottom, (0.016, 0.016), stripe)


def _arm(pen: ImageDraw, view: View, look: PersonLook, gait: Gait, side: int, light: float) -> None:
    swing = -0.8 * gait.stride * math.sin(gait.phase + (0 if side > 0 else math.pi))
    shoulder: Point = (side * 0.118 * look.width, _SHOULDER - 0.025, 0.0)
    elbow: Point = (
        shoulder[0] + side * 0.02,
        shoulder[1] - 0.17 * math.cos(swing),
        0.17 * math.sin(swing),
    )
    wrist: Point = (
        elbow[0],
        elbow[1] - 0.16 * math.cos(swing + 0.3),
        elbow[2] + 0.16 * math.sin(swing + 0.3),
    )
    thick = 0.031 * look.width
    sleeve, skin = shade(look.sleeve_color, light * 0.92), shade(look.skin, light)
    _blob(pen, view, _mid(elbow, wrist, 1.12), (0.022, 0.025), skin)
    if look.upper in ("tshirt", "vest"):
        _limb(pen, view, elbow, wrist, (thick * 0.75, thick * 0.6), skin)
        _limb(pen, view, shoulder, elbow, (thick, thick * 0.8), skin)
        if look.upper == "tshirt":
            _limb(pen, view, shoulder, _mid(shoulder, elbow, 0.6), (thick * 1.15, thick * 1.1), sleeve)
    else:
        _limb(pen, view, elbow, wrist, (thick * 0.95, thick * 0.75), sleeve)
        _limb(pen, view, shoulder, elbow, (thick * 1.15, thick), sleeve)
    if look.bag == "handbag" and side == look.bag_side:
        x, y = view.pixel(_mid(elbow, wrist, 1.15))
        w, h = 0.075 * view.scale[0], 0.1 * view.scale[1]
        color = shade(look.bag_color, light)
        pen.arc((x - w * 0.6, y - h * 0.2, x + w * 0.6, y + h * 0.9), 180, 360, fill=color, width=2)
        pen.rounded_rectangle((x - w, y + h * 0.3, x + w, y + h * 1.5), radius=3, fill=color)


def _torso_tube(look: PersonLook) -> Tube:
    w = look.width
    rings = [(_SHOULDER + 0.035, 0.05, 0.045), (_SHOULDER, 0.125 * w, 0.062), (0.72, 0.12 * w, 0.082 * w)]
    rings += [(0.6, 0.1 * w, 0.07 * w), (_HIP - 0.03, 0.108 * w, 0.078 * w)]
    if look.upper == "coat":
        rings.append((0.34, 0.125 * w, 0.1 * w))
    return Tube(tuple(rings))


def _torso(pen: ImageDraw, view: View, look: PersonLook) -> None:
    tube = _torso_tube(look)
    top, bottom = tube.rings[0][0], tube.rings[-1][0]
    second = look.second_color
    _patch(pen, view, tube, look.upper_color, (top, bottom))
    if look.pattern == "stripes":
        for i in range(5):
            _patch(pen, view, tube, second, (0.8 - i * 0.07, 0.765 - i * 0.07))
    if look.pattern in ("bars", "checks"):
        for i in range(10):
            angle = i * math.pi / 5
            _patch(pen, view, tube, second, (_SHOULDER, bottom), (angle - 0.13, angle + 0.13))
    if look.pattern == "checks":
        for i in range(4):
            _patch(pen, view, tube, second, (0.79 - i * 0.09, 0.765 - i * 0.09))
    if look.pattern == "band":
        _patch(pen, view, tube, second, (0.75, 0.66))
    if look.pattern == "halves":
        _patch(pen, view, tube, second, (0.66, bottom))
    if look.pattern == "spots":
        rng = stream(look.spots_seed, "spots")
        for _ in range(22):
            angle, height = between(rng, 0, 2 * math.pi), between(rng, bottom, _SHOULDER)
            point = tube.point(angle, height)
            if view.nearness(point) > 0:
                _blob(pen, view, point, (0.02, 0.018), second)
    if look.upper == "open":
        _patch(pen, view, tube, second, (_SHOULDER + 0.02, bottom), (-0.42, 0.42))
    if look.logo_color is not None and look.upper != "open":
        _patch(pen, view, tube, look.logo_color, (0.77, 0.68), (-0.5, 0.5))
        _patch(pen, view, tube, look.logo_color, (0.77, 0.71), (math.pi - 0.7, math.pi + 0.7))
    if look.bag == "backpack":
        for angle in (-0.75, 0.75):
            _patch(pen, view, tube, look.bag_color, (_SHOULDER + 0.03, 0.6), (angle - 0.2, angle + 0.2))
    if look.bag == "shoulder":
        side = look.bag_side
        start: Point = (-side * 0.07, _SHOULDER + 0.015, 0.0)
        for depth in (0.09, -0.09):
            middle: Point = (0.0, 0.67, depth * look.width)
            end: Point = (side * 0.13 * look.width, 0.5, 0.0)
            if view.nearness((0.0, 0.0, depth)) >= 0:
                _limb(pen, view, start, middle, (0.013, 0.013), look.bag_color)
                _limb(pen, view, middle, end, (0.013, 0.013), look.bag_color)
    if look.scarf is not None:
        _blob(pen, view, (0.0, _SHOULDER + 0.035, 0.01), (0.075, 0.032), look.scarf)
        _patch(pen, view, tube, look.scarf, (_SHOULDER + 0.01, 0.66), (0.1, 0.5))
        _patch(pen, view, tube, look.scarf, (_SHOULDER + 0.01, 0.7), (math.pi - 0.3, math.pi + 0.3))


def _skirt(pen: ImageDraw, view: View, look: PersonLook) -> None:
    w = look.width
    tube = Tube(((_HIP + 0.04, 0.1 * w, 0.07 * w), (_KNEE + 0.02, 0.14 * w, 0.12 * w)))
    _patch(pen, view, tube, look.lower_color, (_HIP + 0.04, _KNEE + 0.02))


def _backpack(pen: ImageDraw, view: View, look: PersonLook) -> None:
    w = look.width
    tube = Tube(
        ((0.83, 0.06 * w, 0.04), (0.79, 0.09 * w, 0.06), (0.56, 0.1 * w, 0.07), (0.54, 0.08 * w, 0.05)),
        center=(0.0, -0.12),
    )
    _patch(pen, view, tube, look.bag_color, (0.83, 0.54))
    _patch(pen, view, tube, shade(look.bag_color, 0.72), (0.67, 0.57), (math.pi - 0.8, math.pi + 0.8))


def _shoulder_bag(pen: ImageDraw, view: View, look: PersonLook) -> None:
    x = look.bag_side * (0.145 * look.width)
    tube = Tube(((0.52, 0.035, 0.085), (0.4, 0.04, 0.09)), center=(x, 0.0))
    _patch(pen, view, tube, look.bag_color, (0.52, 0.4))
    _patch(pen, view, tube, shade(look.bag_color, 0.75), (0.52, 0.485))


def _head(pen: ImageDraw, view: View, look: PersonLook) -> None:
    facing = math.cos(view.azimuth)
    toward: float = math.sin(view.azimuth)
    scalp = look.skin if look.hair == "bald" else look.hair_color
    center: Point = (0.0, _HEAD, 0.0)
    _limb(pen, view, (0.0, _SHOULDER + 0.02, 0.0), (0.0, _HEAD - 0.03, 0.0), (0.03, 0.028), shade(look.skin, 0.85))
    if look.hair == "long" and facing > -0.2:
        for side in (-1, 1):  # beside the neck: hair in front of it would look like a beard
            _blob(pen, view, (side * 0.04, _HEAD - 0.05, -0.035), (0.022, 0.085), look.hair_color)
    _blob(pen, view, center, (0.053, 0.069), scalp)
    if facing > -0.35:
        width = 0.043 if facing > 0.5 else 0.034 + 0.01 * max(0.0, facing)
        _blob(pen, view, (0.0, _HEAD - 0.016, 0.02 if abs(toward) > 0.2 else 0.0), (width, 0.05), look.skin)
        if facing > 0.3:
            for side in (-1, 1):
                _blob(pen, view, (side * 0.018, _HEAD - 0.005, 0.04), (0.006, 0.005), (40, 30, 30))
    if look.hair == "long" and facing <= -0.2:
        _blob(pen, view, (0.0, _HEAD - 0.05, -0.02), (0.062, 0.1), look.hair_color)
    if look.hair == "bun":
        _blob(pen, view, (0.0, _HEAD + 0.055, -0.045), (0.03, 0.028), look.hair_color)
    if look.hat != "none":
        x, y = view.pixel((0.0, _HEAD + 0.008, 0.0))
        w, h = 0.06 * view.scale[0], (0.075 if look.hat == "cap" else 0.088) * view.scale[1]
        pen.chord((x - w, y - h, x + w, y + h), 180, 360, fill=look.hat_color)
        if look.hat == "cap" and facing > -0.6:
            brim: Point = (0.0, _HEAD + 0.01, 0.06)
            _blob(pen, view, brim, (0.045, 0.014), shade(look.hat_color, 0.7))
        elif look.hat == "beanie":
            pen.rectangle((x - w, y - h * 0.15, x + w, y + h * 0.12), fill=shade(look.hat_color, 0.75))


def draw_person(pen: ImageDraw, view: View, look: PersonLook, gait: Gait) -> None:
    """Draw a pedestrian one unit high whose feet stand on the view's origin, the far parts first."""
    pieces: list[tuple[float, Callable[[], None]]] = []
    for side in (-1, 1):
        near = view.nearness((side * 1.0, 0.0, 0.0))
        light = 0.86 + 0.14 * max(-1.0, min(1.0, near))
        pieces.append((near * 0.05 - 0.02, lambda s=side, v=light: _leg(pen, view, look, gait, s, v)))  # type: ignore[misc]
        pieces.append((near * 0.2, lambda s=side, v=light: _arm(pen, view, look, gait, s, v)))  # type: ignore[misc]
    if look.lower == "skirt":
        pieces.append((0.04, lambda: _skirt(pen, view, look)))
    pieces.append((0.05, lambda: _torso(pen, view, look)))
    pieces.append((0.3 + 0.01 * view.azimuth, lambda: _head(pen, view, look)))
    if look.bag == "backpack":
        back = view.nearness((0.0, 0.0, -1.0))
        pieces.append((0.05 + back * 0.15, lambda: _backpack(pen, view, look)))
    if look.bag == "shoulder":
        pieces.append((view.nearness((look.bag_side * 1.0, 0.0, 0.0)) * 0.25, lambda: _shoulder_bag(pen, view, look)))
    for _, draw in sorted(pieces, key=lambda piece: piece[0]):
        draw()
