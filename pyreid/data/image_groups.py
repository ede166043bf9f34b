"""Cutting an identity's images into groups of K, for batches of P identities with K images each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def cut(images: Indices, size: int, rng: np.random.Generator) -> Indices:
    """Groups of ``size`` in random order; what is left over is in none, too few images are repeated.

    Args:
        images: (N,) indices, N at least 1.
        size: images in a group.
        rng: shuffles.

    Returns:
        (max(1, N // size), size) indices.
    """
    if len(images) < size:
        images = _repeat(images, size, rng)
    shuffled = rng.permutation(images)
    return shuffled[: len(shuffled) // size * size].reshape(-1, size)


def cut_across_cameras(images: Indices, cameras: Indices, size: int, rng: np.random.Generator) -> Indices:
    """As :func:`cut`, with the cameras of the groups as different as they can be.

    The numbers of cameras of all groups add up to the largest sum that there is: a camera with at most as many images
    as there are groups has no two images in one of them, and any other has one in each. Images are left over from the
    cameras that have the most.

    Args:
        images: (N,) indices.
        cameras: (N,) integers, the camera of each.
        size: images in a group.
        rng: shuffles.
    """
    if len(images) <= size:
        return cut(images, size, rng)
    order = rng.permutation(len(images))
    images, cameras = images[order], cameras[order]
    names = rng.permutation(np.unique(cameras))
    by_camera = [images[cameras == name] for name in names]
    for _ in range(len(images) % size):
        largest = max(range(len(by_camera)), key=lambda camera: len(by_camera[camera]))
        by_camera[largest] = by_camera[largest][1:]
    sorted_by_camera = np.concatenate(by_camera)
    count = len(sorted_by_camera) // size
    # Dealt like cards: neighbours, which are of one camera, go to different groups.
    groups = sorted_by_camera.reshape(size, count).T
    return rng.permuted(groups[rng.permutation(count)], axis=1)


def draw(images: Indices, size: int, rng: np.random.Generator, cameras: Indices | None = None) -> Indices:
    """One group of ``size`` images; with ``cameras``, from as many of them as possible.

    Args:
        images: (N,) indices; all of them are drawn, and some again, if there are fewer than ``size``.
        size: images in the group.
        rng: draws.
        cameras: (N,) integers, the camera of each image; None draws without regard to them.
    """
    if len(images) < size:
        return rng.permutation(_repeat(images, size, rng))
    order = rng.permutation(len(images))
    if cameras is None:
        return images[order[:size]]
    # Each image's turn among those of its camera: first come the first images of all cameras, then the second ones.
    turns = np.empty(len(images), np.int64)
    taken: dict[int, int] = {}
    for place in order:
        camera = int(cameras[place])
        turns[place] = taken.get(camera, 0)
        taken[camera] = turns[place] + 1
    return images[order[np.argsort(turns[order], kind="stable")[:size]]]


def _repeat(images: Indices, size: int, rng: np.random.Generator) -> Indices:
    # Every image at least once, then repeats: a plain draw with replacement could leave some out.
    return np.concatenate([images, rng.choice(images, size - len(images))])
