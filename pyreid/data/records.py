"""The records that every other part of :mod:`pyreid.data` passes around: images on disk, data sets, samples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

JUNK_PID = -1
"""Identity of junk gallery images (bad detections of somebody); evaluation removes them."""

DISTRACTOR_PID = 0
"""Identity of Market-1501's distractors: they stay in the gallery and are never a right answer."""


class SampleKey(NamedTuple):
    """What a sampler asks of a data set: an image, and the seed of all random augmentation of this one draw."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody calls on a key
    seed: int


class Sample(NamedTuple):
    """One item of :class:`pyreid.data.ImageDataset`; ``default_collate`` turns a list of them into a batched Sample.

    Attributes:
        image: float32 (3, H, W), normalised.
        label: 0-based class label, or the identity as on disk where the data set has no label map.
        camera: 0-based camera.
        index: position of the image in the data set's records.
    """

    image: Tensor
    label: int
    camera: int
    index: int  # type: ignore[assignment]  # hides tuple.index, as above


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image file with its identity (as on disk) and its 0-based camera."""

    path: Path
    pid: int
    camid: int


@dataclass(frozen=True, slots=True)
class ReIDDataset:
    """A re-identification data set on disk: disjoint identities for training and for testing.

    Attributes:
        name: the name it was loaded by, for example ``"market1501"``.
        root: the folder that holds the splits.
        train: training images.
        query: test images that are searched for.
        gallery: test images that are searched in, junk (identity -1) and distractors included.
    """

    name: str
    root: Path
    train: tuple[ImageRecord, ...]
    query: tuple[ImageRecord, ...]
    gallery: tuple[ImageRecord, ...]

    @property
    def train_labels(self) -> dict[int, int]:
        """Class label 0..n-1 of every training identity, in the order of the sorted identities."""
        return {pid: label for label, pid in enumerate(sorted({record.pid for record in self.train}))}

    @property
    def num_train_ids(self) -> int:
        """Number of training identities, the size of an identity classifier."""
        return len({record.pid for record in self.train})

    @property
    def splits(self) -> dict[str, tuple[ImageRecord, ...]]:
        """The three splits by name."""
        return {"train": self.train, "query": self.query, "gallery": self.gallery}
