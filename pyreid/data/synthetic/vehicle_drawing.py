"""Draws a vehicle from its look and a view: boxes with sloped sides, and what is fixed to their faces."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from PIL.ImageDraw import ImageDraw

from pyreid.data.synthetic.colors import Color, shade
from pyreid.data.synthetic.geometry import Pixel, Point, View, faces_camera
from pyreid.data.synthetic.vehicle_look import VehicleLook

_LIGHT = {"front": 0.95, "rear": 0.82, "left": 0.88, "right": 0.8, "top": 1.1}


@dataclass(frozen=True, slots=True)
class Box:
    """A box whose upper rectangle may be smaller than its lower one.

    Attributes:
        low: height, rear end, front end and half width of the lower rectangle.
        high: the same of the upper one.
    """

    low: tuple[float, float, float, float]
    high: tuple[float, float, float, float]

    def face(self, name: str) -> tuple[Point, Point, Point, Point]:
        """Corners of a face seen from outside: lower left, lower right, upper right, upper left."""
        y0, r0, f0, w0 = self.low
        y1, r1, f1, w1 = self.high
        if name == "front":
            return (-w0, y0, f0), (w0, y0, f0), (w1, y1, f1), (-w1, y1, f1)
        if name == "rear":
            return (w0, y0, r0), (-w0, y0, r0), (-w1, y1, r1), (w1, y1, r1)
        if name == "left":
            return (w0, y0, f0), (w0, y0, r0), (w1, y1, r1), (w1, y1, f1)
        if name == "right":
            return (-w0, y0, r0), (-w0, y0, f0), (-w1, y1, f1), (-w1, y1, r1)
        return (-w1, y1, f1), (w1, y1, f1), (w1, y1, r1), (-w1, y1, r1)  # top, its lower edge at the front


@dataclass(frozen=True, slots=True)
class Face:
    """A visible face in the picture; details are placed on it by fractions across (u) and up (v)."""

    pen: ImageDraw
    corners: tuple[Pixel, Pixel, Pixel, Pixel]
    light: float

    def at(self, u: float, v: float) -> Pixel:
        """The pixel at fractions ``u`` across and ``v`` up."""
        (ax, ay), (bx, by), (cx, cy), (dx, dy) = self.corners
        x = (ax * (1 - u) + bx * u) * (1 - v) + (dx * (1 - u) + cx * u) * v
        y = (ay * (1 - u) + by * u) * (1 - v) + (dy * (1 - u) + cy * u) * v
        return x, y

    def panel(self, across: tuple[float, float], up: tuple[float, float], color: Color, *, glow: bool = False) -> None:
        """A rectangle on the face; ``glow`` leaves its colour as it is."""
        (u0, u1), (v0, v1) = across, up
        outline = [self.at(u0, v0), self.at(u1, v0), self.at(u1, v1), self.at(u0, v1)]
        self.pen.polygon(outline, fill=color if glow else shade(color, self.light))

    def disc(self, center: tuple[float, float], radii: tuple[float, float], color: Color) -> None:
        """An ellipse on the face."""
        angles = [i * math.pi / 8 for i in range(16)]
        outline = [self.at(center[0] + radii[0] * math.cos(t), center[1] + radii[1] * math.sin(t)) for t in angles]
        self.pen.polygon(outline, fill=shade(color, self.light))

    def slash(self, center: tuple[float, float], half: tuple[float, float], color: Color) -> None:
        """A slanted bar on the face."""
        (u, v), (a, b) = center, half
        outline = [self.at(u - a, v - b), self.at(u, v - b), self.at(u + a, v + b), self.at(u, v + b)]
        self.pen.polygon(outline, fill=shade(color, self.light))


def _show(pen: ImageDraw, view: View, box: Box, colors: dict[str, Color]) -> dict[str, Face]:
    """Paint the visible faces of a box and return them by name."""
    faces: dict[str, Face] = {}
    for name, color in colors.items():
        a, b, c, d = (view.pixel(corner) for corner in box.face(name))
        if faces_camera((a, b, c, d)):
            faces[name] = Face(pen, (a, b, c, d), _LIGHT[name])
            pen.polygon((a, b, c, d), fill=shade(color, _LIGHT[name]))
    return faces


def _same(color: Color) -> dict[str, Color]:
    return dict.fromkeys(("front", "rear", "left", "right", "top"), color)


def _wheels(pen: ImageDraw, view: View, look: VehicleLook, places: tuple[float, float], radius: float) -> None:
    half = look.width / 2
    for side in (-1, 1):
        if view.nearness((side * 1.0, 0.0, 0.0)) <= 0.03:
            continue
        for z in places:
            for part, color in ((1.16, (16, 16, 18)), (1.0, (34, 34, 36)), (0.62, look.hub), (0.16, (60, 60, 62))):
                circle: list[Point] = []
                for i in range(20):
                    angle = i * math.pi / 10
                    up, along = radius * part * math.sin(angle), radius * part * math.cos(angle)
                    # The arch is cut by the sill; the tyre reaches the ground.
                    circle.append((side * (half + 0.01), radius + up, z + along))
                pen.polygon(view.pixels(circle), fill=color)


def _decals(faces: dict[str, Face], look: VehicleLook) -> None:
    for name in ("left", "right"):
        face = faces.get(name)
        if face is None:
            continue
        # Doors and handles: thin lines that show the body's make.
        for u in (0.36, 0.62):
            face.panel((u, u + 0.006), (0.25, 0.97), shade(look.color, 0.6))
        if look.side_stripe is not None:
            face.panel((0.02, 0.98), (0.42, 0.6), look.side_stripe)
        if look.decal == "square":
            face.panel((0.4, 0.58), (0.3, 0.85), look.decal_color)
        elif look.decal == "disc":
            face.disc((0.49, 0.58), (0.085, 0.32), look.decal_color)
        elif look.decal == "slash":
            face.slash((0.49, 0.55), (0.13, 0.4), look.decal_color)


def _ends(faces: dict[str, Face], look: VehicleLook) -> None:
    plate = look.plate_height
    for name, glow in (("front", (250, 246, 220)), ("rear", (200, 24, 28))):
        face = faces.get(name)
        if face is None:
            continue
        face.panel((0.0, 1.0), (0.0, 0.24), look.trim)
        if name == "front":
            face.panel((0.3, 0.7), (0.46, 0.74), (24, 24, 26))
        for low in (0.04, 0.96 - look.light_width):
            face.panel((low, low + look.light_width), (0.52, 0.82), glow, glow=True)
        face.panel((0.38, 0.62), (plate - 0.08, plate + 0.08), look.plate)


def _glass(faces: dict[str, Face], look: VehicleLook, pillars: tuple[float, ...]) -> None:
    for name in ("front", "rear"):
        if name in faces:
            faces[name].panel((0.08, 0.92), (0.12, 0.9), look.glass)
            if look.sticker is not None:
                low = 0.12 if look.sticker_left else 0.68
                faces[name].panel((low, low + 0.2), (0.16, 0.4), look.sticker)
    for name in ("left", "right"):
        if name in faces:
            marks = pillars if name == "right" else tuple(1 - mark for mark in reversed(pillars))
            for low, high in itertools.pairwise(marks):
                faces[name].panel((low + 0.02, high - 0.02), (0.16, 0.86), look.glass)


def _roof(pen: ImageDraw, view: View, top: Face | None, look: VehicleLook, height: float) -> None:
    if top is not None:
        if look.sunroof:
            top.panel((0.28, 0.72), (0.14, 0.44), (26, 28, 32))
        if look.hood_stripe is not None:
            top.panel((0.4, 0.6), (0.0, 1.0), look.hood_stripe)
    if look.rack is not None and top is not None:
        for u in (0.1, 0.82):
            top.panel((u, u + 0.08), (0.05, 0.95), look.rack)
        for v in (0.3, 0.68):
            top.panel((0.1, 0.9), (v, v + 0.09), look.rack)
    if look.roof_sign is not None:
        front = look.length * 0.1
        sign = Box((height, front - 0.2, front + 0.2, 0.42), (height + 0.24, front - 0.14, front + 0.14, 0.34))
        _show(pen, view, sign, _same(look.roof_color if look.roof_sign is None else look.roof_sign))


def _car(pen: ImageDraw, view: View, look: VehicleLook) -> None:
    """Everything with a bonnet: a lower box, and a cabin whose ends depend on the body type."""
    half, rear, front = look.width / 2, -look.length / 2, look.length / 2
    waist = {"suv": 0.56, "pickup": 0.56, "van": 0.48, "mpv": 0.53}.get(look.body, 0.58) * look.height
    floor = 0.24 if look.body in ("suv", "pickup") else 0.17
    # Rear and front end of the cabin at the waist and at the roof, as fractions of the length from the centre.
    shapes = {
        "sedan": (-0.34, 0.24, -0.18, 0.06),
        "suv": (-0.48, 0.24, -0.43, 0.1),
        "van": (-0.49, 0.38, -0.47, 0.22),
        "hatchback": (-0.47, 0.22, -0.3, 0.06),
        "mpv": (-0.48, 0.32, -0.4, 0.12),
        "pickup": (-0.12, 0.24, -0.1, 0.1),
        "estate": (-0.48, 0.24, -0.38, 0.06),
    }
    r0, f0, r1, f1 = (share * look.length for share in shapes[look.body])
    body = Box((floor, rear, front, half), (waist, rear + 0.06, front - 0.12, half * 0.97))
    cabin = Box((waist, r0, f0, half * 0.95), (look.height, r1, f1, half * 0.78))
    faces = _show(pen, view, body, _same(look.color))
    if "top" in faces and look.hood_stripe is not None:
        faces["top"].panel((0.4, 0.6), (0.0, 1.0), look.hood_stripe)
    if look.body == "pickup" and "top" in faces:
        faces["top"].panel((0.08, 0.92), (0.64, 0.97), (44, 44, 46))
    radius = 0.35 if look.body in ("suv", "pickup") else 0.31
    _decals(faces, look)
    _ends(faces, look)
    _wheels(pen, view, look, (rear * 0.62, front * 0.64), radius)
    upper = _show(pen, view, cabin, {**_same(look.color), "top": look.roof_color})
    _glass(upper, look, (0.08, 0.5, 0.9) if look.body == "pickup" else (0.06, 0.36, 0.66, 0.96))
    _roof(pen, view, upper.get("top"), look, look.height)


def _bus(pen: ImageDraw, view: View, look: VehicleLook) -> None:
    half, rear, front = look.width / 2, -look.length / 2, look.length / 2
    waist = 0.48 * look.height
    body = Box((0.26, rear, front, half), (waist, rear, front, half))
    upper_box = Box((waist, rear, front, half), (look.height, rear + 0.1, front - 0.15, half * 0.94))
    faces = _show(pen, view, body, _same(look.color))
    _decals(faces, look)
    _ends(faces, look)
    _wheels(pen, view, look, (rear * 0.6, front * 0.62), 0.44)
    upper = _show(pen, view, upper_box, {**_same(look.color), "top": look.roof_color})
    _glass(upper, look, (0.02, 0.18, 0.34, 0.5, 0.66, 0.82, 0.98))
    _roof(pen, view, upper.get("top"), look, look.height)


def _truck(pen: ImageDraw, view: View, look: VehicleLook) -> None:
    half, rear, front = look.width / 2, -look.length / 2, look.length / 2
    split = front - 1.7
    cargo = Box((0.62, rear, split - 0.08, half), (look.height, rear, split - 0.08, half))
    chassis = Box((0.3, rear, split, half * 0.7), (0.62, rear, split, half * 0.7))
    low_cab = Box((0.3, split, front, half * 0.96), (1.1, split, front, half * 0.96))
    high_cab = Box((1.1, split, front, half * 0.96), (2.05, split + 0.1, front - 0.4, half * 0.86))

    def draw_cargo() -> None:
        _show(pen, view, chassis, _same((40, 40, 42)))
        faces = _show(pen, view, cargo, {**_same(look.roof_color), "top": shade(look.roof_color, 0.9)})
        _decals(faces, look)
        if "rear" in faces:
            faces["rear"].panel((0.49, 0.51), (0.0, 1.0), (60, 60, 62))
            faces["rear"].panel((0.36, 0.64), (0.02, 0.12), look.plate)
            for u in (0.03, 0.85):
                faces["rear"].panel((u, u + 0.12), (0.02, 0.12), (200, 24, 28), glow=True)
        _roof(pen, view, faces.get("top"), look, look.height)

    def draw_cab() -> None:
        faces = _show(pen, view, low_cab, _same(look.color))
        faces.pop("rear", None)
        _ends(faces, look)
        upper = _show(pen, view, high_cab, _same(look.color))
        upper.pop("rear", None)
        _glass(upper, look, (0.1, 0.95))

    if view.nearness((0.0, 0.0, 1.0)) > 0:
        draw_cargo()
        draw_cab()
    else:
        draw_cab()
        draw_cargo()
    _wheels(pen, view, look, (rear * 0.62, front * 0.7), 0.42)


def draw_vehicle(pen: ImageDraw, view: View, look: VehicleLook) -> None:
    """Draw a vehicle, in metres, whose centre stands on the view's origin."""
    half, rear, front = look.width / 2 + 0.12, -look.length / 2 - 0.1, look.length / 2 + 0.1
    shadow: list[Point] = [(-half, 0.0, rear), (half, 0.0, rear), (half, 0.0, front), (-half, 0.0, front)]
    pen.polygon(view.pixels(shadow), fill=(36, 36, 38))
    if look.body == "bus":
        _bus(pen, view, look)
    elif look.body == "truck":
        _truck(pen, view, look)
    else:
        _car(pen, view, look)
