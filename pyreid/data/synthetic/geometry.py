"""From the drawn things' own coordinates to the picture.

Things stand in a right-handed frame in units of their own size: x to their left, y up, z to their front. A view turns
them by an azimuth (0: they face the camera, 90 degrees: they face the right edge of the picture) and looks down by an
elevation; the projection is parallel.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

Point = tuple[float, float, float]
Pixel = tuple[float, float]


@dataclass(frozen=True, slots=True)
class View:
    """How a thing is seen: angles in radians, the pixel of its origin, pixels per unit along the picture's axes."""

    azimuth: float
    elevation: float
    roll: float
    origin: Pixel
    scale: Pixel
    _matrix: tuple[tuple[float, float, float], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        cos_a, sin_a = math.cos(self.azimuth), math.sin(self.azimuth)
        cos_e, sin_e = math.cos(self.elevation), math.sin(self.elevation)
        cos_r, sin_r = math.cos(self.roll), math.sin(self.roll)
        right = np.array([cos_a, 0.0, sin_a])
        near = np.array([-sin_a, 0.0, cos_a])
        # What is nearer to a camera that looks down appears lower in its picture.
        up = cos_e * np.array([0.0, 1.0, 0.0]) - sin_e * near
        across, along = cos_r * right + sin_r * up, cos_r * up - sin_r * right
        rows = (across * self.scale[0], -along * self.scale[1], near * cos_e)
        object.__setattr__(self, "_matrix", tuple(tuple(float(value) for value in row) for row in rows))

    def pixel(self, point: Point) -> Pixel:
        """Where a point appears."""
        (ax, ay, az), (bx, by, bz), _ = self._matrix
        x, y, z = point
        return self.origin[0] + ax * x + ay * y + az * z, self.origin[1] + bx * x + by * y + bz * z

    def pixels(self, points: Sequence[Point]) -> list[Pixel]:
        """Where several points appear."""
        return [self.pixel(point) for point in points]

    def nearness(self, point: Point) -> float:
        """How far a point lies towards the camera on the ground; the greater, the nearer."""
        x, _, z = point
        return self._matrix[2][0] * x + self._matrix[2][2] * z


def faces_camera(corners: Sequence[Pixel]) -> bool:
    """Whether a projected polygon, counter-clockwise when seen from outside, shows its outside."""
    area = 0.0
    for (x1, y1), (x2, y2) in zip(corners, [*corners[1:], corners[0]], strict=True):
        area += x1 * y2 - x2 * y1
    return area < 0  # the picture's y axis points down


@dataclass(frozen=True, slots=True)
class Tube:
    """An upright tube of elliptic rings, such as a torso or a skirt.

    Attributes:
        rings: (height, half width, half depth) from the top down.
        center: the x and z of the axis.
    """

    rings: tuple[tuple[float, float, float], ...]
    center: tuple[float, float] = (0.0, 0.0)

    def _ring(self, height: float) -> tuple[float, float]:
        heights = [ring[0] for ring in self.rings]
        if height >= heights[0]:
            return self.rings[0][1:]
        for (upper, a1, b1), (lower, a2, b2) in itertools.pairwise(self.rings):
            if height >= lower:
                share = (upper - height) / (upper - lower)
                return a1 + (a2 - a1) * share, b1 + (b2 - b1) * share
        return self.rings[-1][1:]

    def point(self, angle: float, height: float) -> Point:
        """The surface at an angle around the axis (0: front, 90 degrees: left) and a height."""
        a, b = self._ring(height)
        return self.center[0] + a * math.sin(angle), height, self.center[1] + b * math.cos(angle)

    def patch(
        self, view: View, heights: tuple[float, float], angles: tuple[float, float] | None = None, steps: int = 5
    ) -> list[Pixel]:
        """Outline of the visible part of a patch of the surface; empty if it lies on the far side.

        Args:
            view: the view.
            heights: top and bottom of the patch.
            angles: bounds of the patch around the axis; None for all around.
            steps: segments per edge.
        """
        a, b = self._ring((heights[0] + heights[1]) / 2)
        middle = math.atan2(-a * math.sin(view.azimuth), b * math.cos(view.azimuth))
        low, high = middle - math.pi / 2, middle + math.pi / 2
        if angles is not None:
            turn = 2 * math.pi * round((middle - (angles[0] + angles[1]) / 2) / (2 * math.pi))
            low, high = max(low, angles[0] + turn), min(high, angles[1] + turn)
            if high - low < 1e-3:
                return []
        ends = [low + (high - low) * i / steps for i in range(steps + 1)]
        inner = [height for height, _, _ in self.rings if heights[1] < height < heights[0]]
        outline = [self.point(angle, heights[0]) for angle in ends]
        outline += [self.point(high, height) for height in inner]
        outline += [self.point(angle, heights[1]) for angle in reversed(ends)]
        outline += [self.point(low, height) for height in reversed(inner)]
        return view.pixels(outline)
