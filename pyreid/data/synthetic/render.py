"""One image of a synthetic data set.

The pixels depend only on the seed, the layout's kind of thing, the identity, the camera, the number of the image and
its size: never on which other images are made, in what order or by how many processes.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from pyreid.data.records import DISTRACTOR_PID, JUNK_PID
from pyreid.data.synthetic.camera import Camera, make_camera, take_picture
from pyreid.data.synthetic.chance import between, chance, stream
from pyreid.data.synthetic.geometry import Pixel, View
from pyreid.data.synthetic.person_drawing import Gait, draw_person
from pyreid.data.synthetic.person_look import PersonLook, passer_by_look, person_look
from pyreid.data.synthetic.scene import backdrop, cover
from pyreid.data.synthetic.vehicle_drawing import draw_vehicle
from pyreid.data.synthetic.vehicle_look import VehicleLook, vehicle_look

Subject = Literal["person", "vehicle"]

# Things are drawn at twice the size and averaged down, which smooths their edges.
_OVERSAMPLING = 2
_PLAIN_GREY = (128, 128, 128)


def render_image(
    subject: Subject, *, seed: int, pid: int, camera: int, number: int, size: tuple[int, int]
) -> tuple[Image.Image, int]:
    """Draw one image.

    Args:
        subject: what the data set shows.
        seed: the data set's seed.
        pid: identity from 1; for persons also 0 (a distractor) and -1 (a junk image).
        camera: camera from 0.
        number: number of the image among those of this identity and camera.
        size: height and width in pixels.

    Returns:
        The image, and the JPEG quality at which the camera stores it.
    """
    big = (size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING)
    rng = stream(seed, f"{subject} shot", pid, camera, number)
    if subject == "person":
        style = make_camera(seed, camera)
        scene = _person_scene(seed, pid, camera, number, big, style, rng)
    else:
        style = make_camera(seed, camera, elevations=(10.0, 34.0))
        scene = _vehicle_scene(seed, pid, camera, big, style, rng)
    return take_picture(scene.reduce(_OVERSAMPLING), style, rng), style.quality


def render_plain(subject: Subject, *, seed: int, pid: int, size: tuple[int, int], azimuth: float = 0.6) -> Image.Image:
    """The identity alone: one view, grey ground, no camera. Two identities that look the same here are one."""
    height, width = size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING
    image = Image.new("RGB", (width, height), _PLAIN_GREY)
    pen = ImageDraw.Draw(image)
    if subject == "person":
        view = View(azimuth, 0.15, 0.0, (width / 2, height * 0.95), (height * 0.9, height * 0.9))
        draw_person(pen, view, person_look(seed, pid), Gait(phase=0.8, stride=0.3))
    else:
        look = vehicle_look(seed, pid)
        draw_vehicle(pen, _fit(look, azimuth, 0.35, 0.0, (height, width), 0.9), look)
    return image.reduce(_OVERSAMPLING)


def _draw_pedestrian(
    image: Image.Image,
    look: PersonLook,
    style: Camera,
    azimuth: float,
    feet: Pixel,
    zoom: float,
    rng: np.random.Generator,
) -> None:
    height = image.height * 0.88 * zoom * look.height
    # Looking down shortens what stands upright; the detector's box fills the picture all the same.
    upright = height / math.cos(style.elevation)
    view = View(azimuth, style.elevation, style.roll, feet, (height * style.stretch * 1.12, upright))
    pen = ImageDraw.Draw(image)
    x, y = feet
    pen.ellipse((x - height * 0.15, y - height * 0.02, x + height * 0.15, y + height * 0.03), fill=(70, 70, 72))
    gait = Gait(phase=between(rng, 0, 2 * math.pi), stride=between(rng, 0.1, 0.45))
    draw_person(pen, view, look, gait)


def _heading(seed: int, subject: Subject, pid: int, camera: int, style: Camera) -> float:
    """The direction in which an identity passes a camera, the same in all its images there."""
    rng = stream(seed, f"{subject} track", pid, camera)
    turned = math.pi if chance(rng, style.opposite) else 0.0
    return style.azimuth + turned + between(rng, -0.35, 0.35)


def _person_scene(
    seed: int, pid: int, camera: int, number: int, size: tuple[int, int], style: Camera, rng: np.random.Generator
) -> Image.Image:
    height, width = size
    image = backdrop(seed, camera, "street", size, rng)
    if chance(rng, 0.2):
        other = passer_by_look(seed, int(rng.integers(2**31)))
        feet = (width * between(rng, -0.1, 1.1), height * between(rng, 0.6, 0.85))
        _draw_pedestrian(image, other, style, between(rng, 0, 2 * math.pi), feet, between(rng, 0.5, 0.7), rng)
    zoom = style.zoom * between(rng, 0.9, 1.1)
    feet = (width * (0.5 + between(rng, -0.07, 0.07)), height * (0.955 + between(rng, -0.03, 0.03)))
    if pid == JUNK_PID:
        # A detection that caught a part of somebody.
        zoom *= between(rng, 1.6, 2.6)
        feet = (width * between(rng, -0.1, 1.1), height * between(rng, 1.1, 2.1))
    if pid > 0 or pid == JUNK_PID or chance(rng, 0.6):
        look = person_look(seed, pid) if pid > 0 else passer_by_look(seed, (number + 1) * 4 + abs(pid))
        azimuth = between(rng, 0, 2 * math.pi)
        if pid > 0:
            azimuth = _heading(seed, "person", pid, camera, style) + between(rng, -0.3, 0.3)
        _draw_pedestrian(image, look, style, azimuth, feet, zoom, rng)
    # A distractor is somebody without an identity, or a false detection: nobody at all.
    if chance(rng, style.occlusion if pid != DISTRACTOR_PID else 0.6):
        cover(ImageDraw.Draw(image), size, rng)
    if chance(rng, 0.08):
        other = passer_by_look(seed, int(rng.integers(2**31)))
        feet = (width * (-0.1 if chance(rng, 0.5) else 1.1), height * 1.04)
        _draw_pedestrian(image, other, style, between(rng, 0, 2 * math.pi), feet, 1.1, rng)
    return image


def _fit(look: VehicleLook, azimuth: float, elevation: float, roll: float, size: tuple[int, int], fill: float) -> View:
    """The view in which a vehicle fills a share of the picture; half of a detected box's stretching is kept."""
    height, width = size
    unit = View(azimuth, elevation, roll, (0.0, 0.0), (1.0, 1.0))
    half, end = look.width / 2, look.length / 2
    corners = unit.pixels([(x, y, z) for x in (-half, half) for y in (0.0, look.height) for z in (-end, end)])
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    fit_x, fit_y = fill * width / (max(xs) - min(xs)), fill * height / (max(ys) - min(ys))
    least = min(fit_x, fit_y)
    scale = (math.sqrt(least * fit_x), math.sqrt(least * fit_y))
    origin = (
        width / 2 - scale[0] * (max(xs) + min(xs)) / 2,
        height / 2 - scale[1] * (max(ys) + min(ys)) / 2,
    )
    return View(azimuth, elevation, roll, origin, scale)


def _vehicle_scene(
    seed: int, pid: int, camera: int, size: tuple[int, int], style: Camera, rng: np.random.Generator
) -> Image.Image:
    height, width = size
    image = backdrop(seed, camera, "road", size, rng)
    azimuth = _heading(seed, "vehicle", pid, camera, style) + between(rng, -0.18, 0.18)
    look = vehicle_look(seed, pid)
    view = _fit(look, azimuth, style.elevation, style.roll, size, 0.9 * style.zoom * between(rng, 0.92, 1.06))
    shift = (width * between(rng, -0.05, 0.05), height * between(rng, -0.05, 0.05))
    origin = (view.origin[0] + shift[0], view.origin[1] + shift[1])
    pen = ImageDraw.Draw(image)
    draw_vehicle(pen, View(azimuth, style.elevation, style.roll, origin, view.scale), look)
    if chance(rng, style.occlusion * 0.8):
        cover(pen, size, rng)
    return image
