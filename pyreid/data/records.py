"""The records that every other part of :mod:`pyreid.data` passes around: images on disk, data sets, samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pyreid.data.protocol import Protocol

if TYPE_CHECKING:
    from torch import Tensor

JUNK_PID = -1
"""Identity of junk gallery images (bad detections of somebody); evaluation removes them."""

DISTRACTOR_PID = 0
"""Identity of the distractors of Market-1501 and MARS: they stay in the gallery and are never a right answer."""

NO_CAMERA = -1
"""Camera of an image where the data set does not tell cameras apart."""

NO_TRACK = -1
"""Track of an image that is part of none."""


class SampleKey(NamedTuple):
    """What a sampler asks of a data set: an image, and the seed of all random augmentation of this one draw."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody calls on a key
    seed: int


class Sample(NamedTuple):
    """One item of :class:`pyreid.data.ImageDataset`; ``default_collate`` turns a list of them into a batched Sample.

    Attributes:
        image: float32 (3, H, W), normalised.
        label: 0-based class label, or the identity as on disk where the data set has no label map.
        camera: 0-based camera, or -1 where cameras are not told apart.
        index: position of the image in the data set's records.
    """

    image: Tensor
    label: int
    camera: int
    index: int  # type: ignore[assignment]  # hides tuple.index, as above


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image file.

    Attributes:
        path: the file.
        pid: the identity, as numbered on disk.
        camid: the camera from 0, or :data:`NO_CAMERA`.
        track: the track within query and gallery, or within training, from 0; or :data:`NO_TRACK`.
    """

    path: Path
    pid: int
    camid: int = NO_CAMERA
    track: int = NO_TRACK


@dataclass(frozen=True, slots=True)
class ReIDDataset:
    """A re-identification data set on disk: disjoint identities for training and for testing.

    Attributes:
        name: the name it was loaded by, for example ``"market1501"``.
        root: the folder that holds the splits.
        train: training images.
        query: test images that are searched for.
        gallery: test images that are searched in, junk (identity -1) and distractors included.
        protocol: how the data set is evaluated.
        alternatives: other rules by which it may be evaluated.
        separate_test_ids: whether training and test identities are numbered apart, so that one number means two.
        id_names: what the identities are called on disk, where that is not their number.
        camera_names: what the cameras are called, likewise.
    """

    name: str
    root: Path
    train: tuple[ImageRecord, ...]
    query: tuple[ImageRecord, ...]
    gallery: tuple[ImageRecord, ...]
    protocol: Protocol = field(default_factory=Protocol)
    alternatives: tuple[Protocol, ...] = ()
    separate_test_ids: bool = False
    id_names: Mapping[int, str] = field(default_factory=dict)
    camera_names: Mapping[int, str] = field(default_factory=dict)

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

    @property
    def has_cameras(self) -> bool:
        """Whether every test image has a camera; without them, evaluation cannot filter by camera."""
        return all(record.camid != NO_CAMERA for split in (self.query, self.gallery) for record in split)

    @property
    def has_tracks(self) -> bool:
        """Whether every gallery image is part of a track."""
        return all(record.track != NO_TRACK for record in self.gallery)

    @property
    def shared_ids(self) -> set[int]:
        """Identities that are in training and in testing; empty where the two are numbered apart."""
        if self.separate_test_ids:
            return set()
        return {record.pid for record in self.train} & {record.pid for record in (*self.query, *self.gallery)}
