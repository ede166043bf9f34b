"""What stands behind and in front of the pedestrians and vehicles."""

from __future__ import annotations

import functools
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from pyreid.data.synthetic.chance import between, chance, pick, stream
from pyreid.data.synthetic.colors import VIVID, Color, shade, vary

Kind = Literal["street", "road"]

_WALLS: tuple[Color, ...] = (
    (176, 164, 146),
    (132, 96, 80),
    (196, 196, 190),
    (112, 122, 130),
    (150, 152, 128),
    (86, 90, 98),
)
_GROUNDS: tuple[Color, ...] = ((146, 144, 140), (170, 158, 140), (96, 98, 102), (112, 132, 84), (186, 184, 180))
_GREENS: tuple[Color, ...] = ((60, 92, 50), (82, 118, 62), (104, 126, 70), (46, 72, 48))

_SPAN = 5.0
_TALL = 1.4


def _wall(pen: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, horizon: int) -> None:
    """Houses, windows, doors, posters, trees above the ground."""
    x = 0.0
    while x < width:
        house = between(rng, 0.12, 0.4) * width
        color = vary(rng, pick(rng, _WALLS), 20)
        pen.rectangle((x, 0, x + house, horizon), fill=color)
        if chance(rng, 0.6):
            step = between(rng, 0.1, 0.25) * horizon
            glass = vary(rng, (70, 84, 100), 25)
            for top in np.arange(step * 0.5, horizon - step, step * 1.6):
                for left in np.arange(x + step * 0.4, x + house - step, step * 1.5):
                    pen.rectangle((left, top, left + step * 0.8, top + step), fill=glass)
        elif chance(rng, 0.5):
            row = max(4.0, between(rng, 0.03, 0.07) * horizon)
            for top in np.arange(0, horizon, row):
                pen.line((x, top, x + house, top), fill=shade(color, 0.82), width=1)
        x += house
    for _ in range(int(rng.integers(2, 9))):
        left, size = between(rng, 0, width), between(rng, 0.1, 0.35) * horizon
        if chance(rng, 0.5):
            poster = vary(rng, pick(rng, VIVID), 30)
            pen.rectangle((left, horizon - size * 1.9, left + size * 0.7, horizon - size * 0.6), fill=poster)
        else:
            leaf = vary(rng, pick(rng, _GREENS), 14)
            pen.rectangle((left - size * 0.08, horizon - size, left + size * 0.08, horizon), fill=(76, 58, 44))
            for _ in range(5):
                cx, cy = left + between(rng, -0.5, 0.5) * size, horizon - size * between(rng, 0.9, 1.8)
                radius = size * between(rng, 0.3, 0.55)
                shadow = shade(leaf, between(rng, 0.8, 1.15))
                pen.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), fill=shadow)


def _pavement(pen: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, horizon: int, height: int) -> None:
    ground = vary(rng, pick(rng, _GROUNDS), 16)
    pen.rectangle((0, horizon, width, height), fill=ground)
    line = shade(ground, pick(rng, (0.8, 0.88, 1.15)))
    gap = between(rng, 0.06, 0.16) * height
    if chance(rng, 0.7):
        y, step = float(horizon), gap * 0.3
        while y < height:
            pen.line((0, y, width, y), fill=line, width=2)
            y, step = y + step, step * 1.35
        if chance(rng, 0.7):
            slant = between(rng, -1.5, 1.5) * gap
            for x in np.arange(-gap, width + gap, gap):
                pen.line((x, horizon, x + slant, height), fill=line, width=2)
    for _ in range(int(rng.integers(0, 6))):
        left, top = between(rng, 0, width), between(rng, horizon, height)
        size = between(rng, 0.05, 0.25) * height
        stain = shade(ground, between(rng, 0.7, 1.2))
        pen.ellipse((left, top, left + size * 1.6, top + size * 0.35), fill=stain)


def _road(pen: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, horizon: int, height: int) -> None:
    asphalt = vary(rng, pick(rng, ((98, 98, 102), (120, 118, 114), (78, 80, 86), (142, 138, 132))), 10)
    edge = horizon + between(rng, 0.0, 0.15) * height
    pen.rectangle((0, horizon, width, edge), fill=vary(rng, pick(rng, _GREENS + _GROUNDS), 14))
    pen.rectangle((0, edge, width, height), fill=asphalt)
    paint = (226, 226, 220) if chance(rng, 0.7) else (222, 188, 70)
    slope = between(rng, -0.25, 0.25)
    for lane in range(3):
        y = edge + (0.12 + 0.36 * lane) * (height - edge)
        for x in np.arange(0, width, 0.1 * width):
            rise = slope * 0.05 * width
            pen.line((x, y, x + 0.055 * width, y + rise), fill=paint, width=max(2, height // 60))


@functools.lru_cache(maxsize=48)
def _panorama(seed: int, camera: int, kind: Kind, height: int, width: int) -> Image.Image:
    """The whole place that a camera overlooks; its shots are windows of it."""
    rng = stream(seed, f"{kind} scene", camera)
    wide, tall = round(width * _SPAN), round(height * _TALL)
    image = Image.new("RGB", (wide, tall), vary(rng, (188, 204, 220), 20))
    pen = ImageDraw.Draw(image)
    horizon = round(tall * (between(rng, 0.3, 0.6) if kind == "street" else between(rng, 0.2, 0.4)))
    _wall(pen, rng, wide, horizon)
    (_pavement if kind == "street" else _road)(pen, rng, wide, horizon, tall)
    return image


def backdrop(seed: int, camera: int, kind: Kind, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """A new picture of ``size`` (height, width): the part of the camera's place that ``rng`` chooses."""
    height, width = size
    place = _panorama(seed, camera, kind, height, width)
    left = int(rng.integers(0, place.width - width + 1))
    top = int(rng.integers(0, place.height - height + 1))
    return place.crop((left, top, left + width, top + height))


def cover(pen: ImageDraw.ImageDraw, size: tuple[int, int], rng: np.random.Generator) -> None:
    """Something that stands in front: a pole, a bin, a bush, a railing."""
    height, width = size
    kind = pick(rng, ("pole", "bin", "bush", "rail", "board"))
    color = vary(rng, pick(rng, (*_WALLS, *_GREENS, (44, 46, 50))), 20)
    x = between(rng, 0.0, 1.0) * width
    if kind == "pole":
        half = between(rng, 0.03, 0.08) * width
        pen.rectangle((x - half, 0, x + half, height), fill=color)
    elif kind == "bin":
        half, top = between(rng, 0.12, 0.26) * width, between(rng, 0.66, 0.85) * height
        pen.rectangle((x - half, top, x + half, height), fill=color)
        pen.rectangle((x - half * 1.1, top, x + half * 1.1, top + height * 0.02), fill=shade(color, 0.7))
    elif kind == "bush":
        leaf = vary(rng, pick(rng, _GREENS), 16)
        for _ in range(9):
            cx = x + between(rng, -0.35, 0.35) * width
            cy, radius = between(rng, 0.82, 1.02) * height, between(rng, 0.08, 0.2) * width
            tone = shade(leaf, between(rng, 0.75, 1.2))
            pen.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), fill=tone)
    elif kind == "rail":
        top = between(rng, 0.7, 0.85) * height
        for y in (top, top + 0.07 * height):
            pen.line((0, y, width, y), fill=color, width=max(2, round(0.012 * height)))
        for post in np.arange(between(rng, 0, 0.3) * width, width, 0.35 * width):
            pen.line((post, top, post, height), fill=color, width=max(2, round(0.012 * height)))
    else:
        edge = between(rng, 0.12, 0.32) * width
        if chance(rng, 0.5):
            pen.rectangle((0, 0, edge, height), fill=color)
        else:
            pen.rectangle((width - edge, 0, width, height), fill=color)
