"""Does an exported file give the embeddings of the model it was made from?"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyreid.errors import ExportError

_NO_SPREAD = 1e-5  # of the largest element: rounding of float32


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """What may differ between the PyTorch model and its export, for each image.

    Attributes:
        cosine: least cosine similarity of the two embeddings.
        difference: largest difference of an element, as a fraction of the spread of the embeddings over the images.
    """

    # Embeddings of one network resemble each other, the more so before training: a forgotten normalisation can leave a
    # cosine of 0.9999. So what tells is the difference beside that between images; float32 in another order makes it
    # 3e-6 to 2e-3, swapped channels 1 to 3.
    cosine: float = 0.9999
    difference: float = 1e-2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How far two sets of embeddings (N, D) agree.

    Attributes:
        images: N.
        cosine: the lowest cosine similarity of an image's two embeddings.
        mean_cosine: the mean of these similarities.
        difference: the largest difference of an element, as a fraction of ``spread``; of the largest element where that
            is 0, as it is for a single image.
        spread: the largest standard deviation, over the images, of an element of the expected embeddings.
        largest: the largest element of the expected embeddings.
    """

    images: int
    cosine: float
    mean_cosine: float
    difference: float
    spread: float
    largest: float


def measure_parity(expected: NDArray[Any], found: NDArray[Any]) -> Parity:
    """Compare embeddings row by row, in float64. Two zero rows agree; NaN agrees with nothing.

    Args:
        expected: (N, D), N at least 1.
        found: (N, D).

    Raises:
        ValueError: the shapes differ, or are not (N, D).
    """
    if expected.ndim != 2 or expected.shape != found.shape or len(expected) == 0:
        raise ValueError(f"found: expected embeddings of shape {expected.shape}, got {found.shape}")
    a, b = expected.astype(np.float64), found.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    both_zero = ~a.any(axis=1) & ~b.any(axis=1)
    cosines = np.where(both_zero, 1.0, (a * b).sum(axis=1) / np.where(lengths > 0, lengths, 1.0))
    largest, spread = float(np.abs(a).max()), float(a.std(axis=0).max())
    difference = np.abs(a - b).max() / (spread or largest or 1.0)
    return Parity(
        images=len(a),
        cosine=float(cosines.min()),
        mean_cosine=float(cosines.mean()),
        difference=float(difference),
        spread=spread,
        largest=largest,
    )


def check_parity(parity: Parity, tolerance: Tolerance, what: str) -> None:
    """Raise :class:`~pyreid.errors.ExportError` unless the embeddings agree; NaN does not.

    Embeddings that are all the same agree with any file that gives them, whatever it makes of an image: an error, too.
    """
    if parity.spread <= _NO_SPREAD * parity.largest:
        raise ExportError(
            f"{what}: the model gives {parity.images} images the same embedding, so nothing can be said about the file"
        )
    if parity.cosine >= tolerance.cosine and parity.difference <= tolerance.difference:
        return
    difference = f"largest difference {parity.difference:.3g} of the spread over the images"
    if math.isfinite(tolerance.difference):
        difference += f" (expected at most {tolerance.difference})"
    raise ExportError(
        f"{what}: the embeddings of {parity.images} images differ from the model's: lowest cosine similarity "
        f"{round_down(parity.cosine, 6)} (expected at least {tolerance.cosine}), {difference}"
    )


def round_down(value: float, digits: int) -> str:
    """A similarity for people, never better than it is: 0.99996 is 0.9999 in four digits, and only 1 is 1.0000."""
    if not math.isfinite(value):
        return str(value)
    # What 12 digits cannot tell from the next step is that step: 0.29 * 100 is 28.999999999999996.
    return f"{math.floor(round(value * 10**digits, 12 - digits)) / 10**digits:.{digits}f}"
