"""Seeded randomness: every drawn thing has its own stream, named by what it is."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def stream(seed: int, tag: str, *numbers: int) -> np.random.Generator:
    """The random stream of one thing, for example ``stream(seed, "shot", pid, camera, number)``.

    Streams of different names are independent, so that an image never depends on which others are drawn, nor on the
    process that draws it.
    """
    return np.random.default_rng([seed, zlib.crc32(tag.encode()), *(number % 2**32 for number in numbers)])


def pick(rng: np.random.Generator, items: Sequence[T]) -> T:
    """One of ``items``, each as likely as the others (``Generator.choice`` is slow and would make arrays of them)."""
    return items[int(rng.integers(len(items)))]


def chance(rng: np.random.Generator, probability: float) -> bool:
    """True with the given probability."""
    return bool(rng.random() < probability)


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """A number drawn uniformly from [low, high)."""
    return low + (high - low) * float(rng.random())
