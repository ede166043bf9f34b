"""Does an exported file give the embeddings of the model it was made from?"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyreid.errors import ExportError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """What may differ between the PyTorch model and its export, for each image.

    Attributes:
        cosine: least cosine similarity of the two embeddings.
        difference: largest difference of an element, as a fraction of the embedding's largest element.
    """

    # Measured in every family of the zoo: float32 in another order differs by about 1e-6. A forgotten normalisation can
    # leave a cosine of 0.998, because embeddings of one network resemble each other.
    cosine: float = 0.9999
    difference: float = 1e-2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How far two sets of embeddings (N, D) agree.

    Attributes:
        images: N.
        cosine: the lowest cosine similarity of an image's two embeddings.
        mean_cosine: the mean of these similarities.
        difference: the largest difference of an element, as a fraction of the largest element of its embedding.
    """

    images: int
    cosine: float
    mean_cosine: float
    difference: float


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
    largest = np.abs(a).max(axis=1)
    differences = np.abs(a - b).max(axis=1) / np.where(largest > 0, largest, 1.0)
    return Parity(
        images=len(a),
        cosine=float(cosines.min()),
        mean_cosine=float(cosines.mean()),
        difference=float(differences.max()),
    )


def check_parity(parity: Parity, tolerance: Tolerance, what: str) -> None:
    """Raise :class:`~pyreid.errors.ExportError` unless the embeddings agree; NaN does not."""
    if parity.cosine >= tolerance.cosine and parity.difference <= tolerance.difference:
        return
    raise ExportError(
        f"{what}: the embeddings of {parity.images} images differ from the model's: lowest cosine similarity "
        f"{parity.cosine:.6f} (expected at least {tolerance.cosine}), largest relative difference "
        f"{parity.difference:.3g} (expected at most {tolerance.difference})"
    )
