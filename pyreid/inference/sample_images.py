"""A few drawn images, to compare or to calibrate exported models where no photographs are given."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def sample_images(count: int, size: tuple[int, int], *, seed: int = 0) -> list[NDArray[np.uint8]]:
    """Pedestrians and vehicles in turns, of different identities and cameras.

    Args:
        count: number of images, at least 1.
        size: (height, width).
        seed: of the drawing; other seeds give other identities.

    Returns:
        ``count`` uint8 RGB arrays (H, W, 3).

    Raises:
        ValueError: ``count`` is less than 1.
    """
    from pyreid.data.synthetic.render import Subject, render_image

    if count < 1:
        raise ValueError(f"count: got {count}, expected at least 1")
    subjects: tuple[Subject, Subject] = ("person", "vehicle")
    return [
        np.asarray(
            render_image(
                subjects[index % 2], seed=seed, pid=index // 2 + 1, camera=index // 2 % 6, number=0, size=size
            )[0]
        )
        for index in range(count)
    ]
