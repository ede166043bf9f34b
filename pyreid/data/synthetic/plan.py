"""Which images a synthetic data set has; what all layouts share of it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pyreid.data.layouts import MANIFEST_NAME, DatasetFacts
from pyreid.data.records import DISTRACTOR_PID, JUNK_PID, NO_CAMERA, NO_TRACK
from pyreid.data.synthetic.chance import stream
from pyreid.data.synthetic.render import Subject

_GENERATOR_VERSION = 2


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that decides what a synthetic data set holds.

    Attributes:
        layout: the name of a data set.
        num_train_ids: identities to train on; they are drawn as numbers from 1.
        num_test_ids: identities to test on, numbered on from there.
        images_per_id: training images, or gallery images, per identity.
        num_cameras: cameras; an identity passes at least half of them.
        size: height and width.
        seed: non-negative.
        num_distractors: gallery images of nobody.
        num_junk: gallery images of bad detections.
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

    @property
    def train_pids(self) -> range:
        """The identities to train on, as they are drawn."""
        return range(1, self.num_train_ids + 1)

    @property
    def test_pids(self) -> range:
        """The identities to test on, as they are drawn."""
        return range(self.num_train_ids + 1, self.num_train_ids + self.num_test_ids + 1)


@dataclass(frozen=True, slots=True)
class Shot:
    """One image to draw.

    Attributes:
        pid: the identity that is drawn; a layout may call it by another number.
        camera: the camera that is drawn.
        number: of the image among those of this identity and camera.
        paths: the files, relative to the root, that hold it.
        camid: the camera from 0 that the layout says it is of, or none.
        track: the track that the layout says it is part of, or none.
    """

    pid: int
    camera: int
    number: int
    paths: tuple[str, ...]
    camid: int
    track: int = NO_TRACK


@dataclass(frozen=True, slots=True)
class Plan:
    """All images of a data set by split; an image may be both in the query and in the gallery split.

    Attributes:
        train: training images.
        query: query images.
        gallery: gallery images.
        variants: the test identities of each other data set that the same files hold, by its name.
    """

    train: tuple[Shot, ...]
    query: tuple[Shot, ...]
    gallery: tuple[Shot, ...]
    variants: dict[str, range] = field(default_factory=dict)

    @property
    def shots(self) -> tuple[Shot, ...]:
        """Every image once, in the order of the splits."""
        return tuple(dict.fromkeys((*self.train, *self.query, *self.gallery)))

    def tested_on(self, pids: range) -> Plan:
        """The plan with the test images of some identities only."""
        query = tuple(shot for shot in self.query if shot.pid in pids)
        return Plan(self.train, query, tuple(shot for shot in self.gallery if shot.pid in pids))

    @property
    def facts(self) -> DatasetFacts:
        """The counts that a loader will find."""

        def tracks(shots: Iterable[Shot]) -> int:
            return len({shot.track for shot in shots} - {NO_TRACK})

        return DatasetFacts(
            train_images=len(self.train),
            train_ids=len({shot.pid for shot in self.train}),
            query_images=len(self.query),
            query_ids=len({shot.pid for shot in self.query}),
            gallery_images=len(self.gallery),
            cameras=len({shot.camid for shot in self.shots} - {NO_CAMERA}),
            train_tracks=tracks(self.train),
            query_tracks=tracks(self.query),
            gallery_tracks=tracks(self.gallery),
        )


def _no_side_files(root: Path, settings: Settings, plan: Plan) -> None:
    """The file names say everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticLayout:
    """How the generator writes one data set.

    Attributes:
        name: the name of the data set.
        subject: what its images show.
        size: height and width where none is asked for.
        plan: which images there are, and in which files.
        write_side_files: writes the lists and labels beside the images, below a root.
        test_images: about how many different test images an identity has, by its gallery images and the cameras.
        has_background: whether the gallery has distractors and junk.
    """

    name: str
    subject: Subject
    size: tuple[int, int]
    plan: Callable[[Settings], Plan]
    write_side_files: Callable[[Path, Settings, Plan], None] = _no_side_files
    test_images: Callable[[int, int], float]
    has_background: bool = False


def gallery_only(images_per_id: int, num_cameras: int) -> float:
    """Test images of an identity where the queries are gallery images, too."""
    return images_per_id


def gallery_and_queries(images_per_id: int, num_cameras: int) -> float:
    """Test images of an identity where each camera takes one more as a query."""
    return images_per_id + min(images_per_id, 0.75 * num_cameras)


def visits(settings: Settings, pid: int) -> dict[int, int]:
    """How many images each camera takes of an identity; at least two cameras take one."""
    rng = stream(settings.seed, "visits", pid)
    most = min(settings.num_cameras, settings.images_per_id)
    least = min(most, max(2, math.ceil(settings.num_cameras / 2)))
    count = int(rng.integers(least, most + 1))
    cameras = sorted(int(camera) for camera in rng.permutation(settings.num_cameras)[:count])
    taken = dict.fromkeys(cameras, 1)
    for _ in range(settings.images_per_id - count):
        taken[cameras[int(rng.integers(count))]] += 1
    return taken


def numbered_visits(
    settings: Settings, pids: Iterable[int], visits_of: Callable[[Settings, int], dict[int, int]] = visits
) -> list[tuple[int, int, int]]:
    """(identity, camera, number of the image there) of all images of the identities, in this order."""
    return [
        (pid, camera, number)
        for pid in pids
        for camera, count in visits_of(settings, pid).items()
        for number in range(count)
    ]


def plan_with_own_queries(
    settings: Settings,
    place: Callable[[str, int, int, int], Shot],
    visits_of: Callable[[Settings, int], dict[int, int]] = visits,
) -> Plan:
    """A plan whose queries are images of their own, one for each test identity and camera.

    Args:
        settings: how many of each.
        place: the shot of a split, identity, camera and number.
        visits_of: see :func:`visits`.
    """
    train = [place("train", *shot) for shot in numbered_visits(settings, settings.train_pids, visits_of)]
    query: list[Shot] = []
    gallery: list[Shot] = []
    for pid in settings.test_pids:
        for camera, count in visits_of(settings, pid).items():
            gallery += [place("gallery", pid, camera, number) for number in range(count)]
            query.append(place("query", pid, camera, count))
    gallery += [place("gallery", *shot) for shot in background(settings)]
    return Plan(tuple(train), tuple(query), tuple(gallery))


def background(settings: Settings) -> list[tuple[int, int, int]]:
    """Identity, camera and number of every distractor and junk image."""
    return [
        (pid, number % settings.num_cameras, number)
        for pid, total in ((DISTRACTOR_PID, settings.num_distractors), (JUNK_PID, settings.num_junk))
        for number in range(total)
    ]


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a list file, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_manifest(root: Path, settings: Settings, plan: Plan) -> None:
    """Write the counts that a loader will find; nothing depends on when or how the images were made."""
    manifest = {
        "generator": "pyreid",
        "generator_version": _GENERATOR_VERSION,
        "settings": asdict(settings),
        "counts": asdict(plan.facts),
    }
    if plan.variants:
        manifest["variants"] = {name: asdict(plan.tested_on(pids).facts) for name, pids in plan.variants.items()}
    (root / MANIFEST_NAME).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
