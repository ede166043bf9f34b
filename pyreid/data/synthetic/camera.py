"""A camera: from where it looks, and what its optics, its light and its electronics do to a picture."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from pyreid.data.synthetic.chance import between, stream

_GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))


@dataclass(frozen=True, slots=True)
class Camera:
    """One camera of a synthetic network.

    Attributes:
        azimuth: direction from which most passers-by are seen, radians.
        opposite: share of passers-by that go the other way.
        elevation: how far it looks down, radians.
        roll: tilt, radians.
        stretch: width of the picture relative to the true one.
        zoom: size of the detected person or vehicle in its box, relative to the average.
        gains: colour cast, one factor per channel.
        gamma: exponent of the brightness curve.
        contrast: factor around mid-grey.
        saturation: 0 is grey, 1 as it is.
        falloff: strength of the light's change across the picture.
        light_angle: direction of that change, radians.
        blur: standard deviation, as a fraction of the picture's height.
        resolution: size at which the picture is really taken, relative to the file.
        noise: standard deviation, of 255.
        quality: JPEG quality.
        occlusion: probability that something stands in front.
    """

    azimuth: float
    opposite: float
    elevation: float
    roll: float
    stretch: float
    zoom: float
    gains: tuple[float, float, float]
    gamma: float
    contrast: float
    saturation: float
    falloff: float
    light_angle: float
    blur: float
    resolution: float
    noise: float
    quality: int
    occlusion: float


def make_camera(seed: int, index: int, *, elevations: tuple[float, float] = (6.0, 28.0)) -> Camera:
    """Camera ``index`` (from 0); ``elevations`` are the bounds of its downward look in degrees."""
    rng = stream(seed, "camera", index)
    warm = between(rng, -0.2, 0.2)
    green = between(rng, -0.09, 0.09)
    return Camera(
        azimuth=(index * _GOLDEN_ANGLE + between(rng, -0.4, 0.4)) % (2 * math.pi),
        opposite=between(rng, 0.05, 0.4),
        elevation=math.radians(between(rng, *elevations)),
        roll=math.radians(between(rng, -4, 4)),
        stretch=between(rng, 0.88, 1.14),
        zoom=between(rng, 0.92, 1.08),
        gains=(1 + warm, 1 + green, 1 - warm),
        gamma=between(rng, 0.72, 1.45),
        contrast=between(rng, 0.72, 1.15),
        saturation=between(rng, 0.55, 1.1),
        falloff=between(rng, 0.05, 0.3),
        light_angle=between(rng, 0, 2 * math.pi),
        blur=between(rng, 0.0, 0.007),
        resolution=between(rng, 0.5, 1.0),
        noise=between(rng, 1.5, 6.0),
        quality=int(rng.integers(72, 93)),
        occlusion=between(rng, 0.1, 0.35),
    )


def take_picture(scene: Image.Image, camera: Camera, rng: np.random.Generator) -> Image.Image:
    """What the camera's file shows of a clean RGB picture; ``rng`` draws what varies from shot to shot."""
    width, height = scene.size
    share = min(1.0, camera.resolution * between(rng, 0.85, 1.15))
    if share < 1:
        small = (max(8, round(width * share)), max(8, round(height * share)))
        scene = scene.resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.BILINEAR)
    sigma = camera.blur * between(rng, 0.5, 1.5) * height
    if sigma > 0.15:
        scene = scene.filter(ImageFilter.GaussianBlur(sigma))
    pixels = np.asarray(scene, dtype=np.float32) / 255
    gains = np.array(camera.gains, dtype=np.float32) * np.float32(between(rng, 0.85, 1.15))
    pixels = np.minimum(pixels * gains, 1) ** np.float32(camera.gamma)
    pixels = (pixels - np.float32(0.5)) * np.float32(camera.contrast) + np.float32(0.5)
    red, green, blue = (pixels[..., channel, None] for channel in range(3))
    grey = np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue
    pixels = grey + (pixels - grey) * np.float32(camera.saturation)
    angle = camera.light_angle + between(rng, -0.5, 0.5)
    across = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None] * np.float32(math.cos(angle))
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None, None] * np.float32(math.sin(angle))
    pixels = pixels * (1 + np.float32(camera.falloff) * (across + down))
    pixels = pixels + rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(camera.noise / 255)
    return Image.fromarray((np.clip(pixels, 0, 1) * 255 + np.float32(0.5)).astype(np.uint8))


def encode_jpeg(picture: Image.Image, quality: int) -> bytes:
    """The picture as a JPEG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def encode_png(jpeg: bytes) -> bytes:
    """A JPEG file as a PNG file of the same pixels: a camera's compression is part of its look."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(jpeg)) as picture:
        picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
