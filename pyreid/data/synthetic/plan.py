"""Which images a synthetic data set has: identities, cameras, queries, file names."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pyreid.data import market1501, veri776
from pyreid.data.layouts import DatasetFacts
from pyreid.data.records import DISTRACTOR_PID, JUNK_PID
from pyreid.data.synthetic.chance import stream
from pyreid.data.synthetic.render import Subject

SUBJECTS: dict[str, Subject] = {"market1501": "person", "veri776": "vehicle"}
"""Layouts that can be generated, and what they show."""

DEFAULT_SIZES: dict[str, tuple[int, int]] = {"market1501": (128, 64), "veri776": (128, 128)}
"""Height and width of the images where none is asked for."""

_DISTRACTORS_PER_IMAGE = 0.15
_JUNK_PER_IMAGE = 0.1


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that decides what a synthetic data set holds.

    Attributes:
        layout: ``"market1501"`` or ``"veri776"``.
        num_train_ids: identities to train on; they are numbered from 1.
        num_test_ids: identities to test on, numbered on from there.
        images_per_id: training images, or gallery images, per identity.
        num_cameras: cameras; an identity passes at least half of them.
        size: height and width.
        seed: non-negative.
        num_distractors: gallery images of nobody (Market-1501 only).
        num_junk: gallery images of bad detections (Market-1501 only).
    """

    layout: str
    num_train_ids: int
    num_test_ids: int
    images_per_id: int
    num_cameras: int
    size: tuple[int, int]
    seed: int
    num_distractors: int
    num_junk: int

    def __post_init__(self) -> None:
        if self.layout not in SUBJECTS:
            raise ValueError(f"layout must be one of {', '.join(sorted(SUBJECTS))}, got {self.layout!r}")
        least = {
            "num_train_ids": 1,
            "num_test_ids": 1,
            "images_per_id": 2,
            "num_cameras": 2,
            "seed": 0,
            "num_distractors": 0,
            "num_junk": 0,
        }
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name} must be at least {bound}, got {getattr(self, name)}")
        if len(self.size) != 2 or min(self.size) < 16 or max(self.size) > 2048:
            raise ValueError(f"size must be a (height, width) between 16 and 2048, got {self.size}")
        if SUBJECTS[self.layout] == "vehicle" and (self.num_distractors or self.num_junk):
            raise ValueError("VeRi-776 has no distractors and no junk images; num_distractors and num_junk must be 0")


@dataclass(frozen=True, slots=True)
class Shot:
    """One image to draw, and the files, relative to the root, that hold it."""

    pid: int
    camera: int
    number: int
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """All images of a data set by split; the query images of VeRi-776 are in its gallery, too."""

    train: tuple[Shot, ...]
    query: tuple[Shot, ...]
    gallery: tuple[Shot, ...]

    @property
    def shots(self) -> tuple[Shot, ...]:
        """Every image once, in the order of the splits."""
        return tuple(dict.fromkeys((*self.train, *self.query, *self.gallery)))

    @property
    def facts(self) -> DatasetFacts:
        """The counts that a loader will find."""
        return DatasetFacts(
            train_images=len(self.train),
            train_ids=len({shot.pid for shot in self.train}),
            query_images=len(self.query),
            query_ids=len({shot.pid for shot in self.query}),
            gallery_images=len(self.gallery),
            cameras=len({shot.camera for shot in self.shots}),
        )


def default_background(layout: str, num_test_ids: int, images_per_id: int) -> tuple[int, int]:
    """Numbers of distractors and of junk images where none are asked for."""
    if SUBJECTS.get(layout) != "person":
        return 0, 0
    images = max(0, num_test_ids) * max(0, images_per_id)
    return math.ceil(images * _DISTRACTORS_PER_IMAGE), math.ceil(images * _JUNK_PER_IMAGE)


def sizes_for(images: int, *, layout: str, num_cameras: int) -> tuple[int, int, int]:
    """Training identities, test identities and images per identity of a data set of about ``images`` images.

    Raises:
        ValueError: fewer than 100 images are asked for.
    """
    if images < 100:
        raise ValueError(f"images must be at least 100, got {images}")
    per_id = max(6, min(20, round(math.sqrt(images / 4))))
    queries = min(per_id, 0.75 * num_cameras) if SUBJECTS.get(layout) == "person" else 0.0
    extra = _DISTRACTORS_PER_IMAGE + _JUNK_PER_IMAGE if SUBJECTS.get(layout) == "person" else 0.0
    ids = max(2, round(images / (per_id * (2 + extra) + queries)))
    return ids, ids, per_id


def _visits(settings: Settings, pid: int) -> dict[int, int]:
    """How many images each camera takes of an identity."""
    rng = stream(settings.seed, "visits", pid)
    most = min(settings.num_cameras, settings.images_per_id)
    least = min(most, max(2, math.ceil(settings.num_cameras / 2)))
    count = int(rng.integers(least, most + 1))
    cameras = sorted(int(camera) for camera in rng.permutation(settings.num_cameras)[:count])
    visits = dict.fromkeys(cameras, 1)
    for _ in range(settings.images_per_id - count):
        visits[cameras[int(rng.integers(count))]] += 1
    return visits


def _file_name(layout: str, pid: int, camera: int, number: int, box: int) -> str:
    if layout == "market1501":
        identity = "-1" if pid == JUNK_PID else f"{pid:04d}"
        return f"{identity}_c{camera + 1}s1_{number * 25 + 1:06d}_{box:02d}.jpg"
    return f"{pid:04d}_c{camera + 1:03d}_{number * 5 + 1:08d}_{box}.jpg"


def make_plan(settings: Settings) -> Plan:
    """List all images of a data set."""
    layout = settings.layout
    market = layout == "market1501"
    folders = market1501.FOLDERS if market else veri776.FOLDERS

    def shot(pid: int, camera: int, number: int, *splits: str) -> Shot:
        # The hand-drawn boxes of Market-1501's queries have number 00, the detector's boxes others.
        name = _file_name(layout, pid, camera, number, 0 if not market or splits[0] == "query" else 1)
        return Shot(pid, camera, number, tuple(f"{folders[split]}/{name}" for split in splits))

    train: list[Shot] = []
    query: list[Shot] = []
    gallery: list[Shot] = []
    for pid in range(1, settings.num_train_ids + 1):
        for camera, count in _visits(settings, pid).items():
            train += [shot(pid, camera, number, "train") for number in range(count)]
    first = settings.num_train_ids + 1
    for pid in range(first, first + settings.num_test_ids):
        for camera, count in _visits(settings, pid).items():
            if market:
                gallery += [shot(pid, camera, number, "gallery") for number in range(count)]
                query.append(shot(pid, camera, count, "query"))
            else:
                both = shot(pid, camera, 0, "query", "gallery")
                query.append(both)
                gallery.append(both)
                gallery += [shot(pid, camera, number, "gallery") for number in range(1, count)]
    for pid, total in ((DISTRACTOR_PID, settings.num_distractors), (JUNK_PID, settings.num_junk)):
        gallery += [shot(pid, number % settings.num_cameras, number, "gallery") for number in range(total)]
    return Plan(tuple(train), tuple(query), tuple(gallery))
