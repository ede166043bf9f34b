"""What the readers of users' own data share: names become numbers, and data without splits are split."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyreid.data.layouts import Listing
from pyreid.data.records import NO_CAMERA, ImageRecord
from pyreid.data.scan import Scan

SPLITS = ("train", "query", "gallery")


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnImage:
    """An image with the names that its owner gave; ``camera`` and ``split`` are empty where there are none."""

    path: Path
    identity: str
    camera: str = ""
    split: str = ""


def number_names(names: Iterable[str]) -> dict[str, int]:
    """A number for each name: its own where all are different whole numbers, else 1, 2, 3 ... in sorted order."""
    found = sorted(set(names))
    if all(name.isascii() and name.isdigit() for name in found) and len({int(name) for name in found}) == len(found):
        return {name: int(name) for name in found}
    return {name: number for number, name in enumerate(found, start=1)}


def split_in_halves(images: Sequence[OwnImage]) -> list[OwnImage]:
    """Splits for data without: every second identity is for testing, in the order of the names.

    The first image of each test identity in each of its cameras is a query, and its others are the gallery. Without
    cameras, the first image of each test identity is. So it is where each of its cameras has but one image, which would
    leave nothing for the gallery.
    """
    testing = set(sorted({image.identity for image in images})[1::2])
    views: dict[str, list[str]] = {}
    for image in images:
        views.setdefault(image.identity, []).append(image.camera)
    once = {identity for identity, cameras in views.items() if len(set(cameras)) == len(cameras)}
    seen: set[tuple[str, str]] = set()
    done: list[OwnImage] = []
    for image in images:
        key = (image.identity, "" if image.identity in once else image.camera)
        split = "train" if image.identity not in testing else "gallery" if key in seen else "query"
        seen.add(key)
        done.append(OwnImage(path=image.path, identity=image.identity, camera=image.camera, split=split))
    return done


def make_listing(root: Path, images: Sequence[OwnImage], scan: Scan) -> Listing:
    """Number identities and cameras, and split what has no split; images of which only some have one are a problem."""
    without = [image for image in images if not image.split]
    if without and len(without) < len(images):
        scan.problems.append(f"{without[0].path}: has no split, but other images have one")
    elif without:
        images = split_in_halves(images)
        testing = len({image.identity for image in images if image.split != "train"})
        scan.notices.append(
            f"{root}: no splits are given; every second identity is for testing ({testing}), and the first image of "
            "each in each camera is a query (where no camera has a second one, the first image alone)"
        )
    unseen = [image for image in images if not image.camera]
    if unseen and len(unseen) < len(images):
        scan.problems.append(f"{unseen[0].path}: has no camera, but other images have one")
    ids = number_names(image.identity for image in images)
    # Numbers of cameras are kept in names only: a camera's number on disk counts from 0 or 1, or is sparse.
    cameras = sorted({image.camera for image in images if image.camera}, key=lambda name: (len(name), name))
    numbers = {camera: number for number, camera in enumerate(cameras)}
    splits: dict[str, list[ImageRecord]] = {split: [] for split in SPLITS}
    for image in images:
        if image.split in splits:
            camera = numbers.get(image.camera, NO_CAMERA)
            splits[image.split].append(ImageRecord(image.path, ids[image.identity], camera))
    return scan.listing(
        root,
        train=splits["train"],
        query=splits["query"],
        gallery=splits["gallery"],
        id_names={number: name for name, number in ids.items()},
        camera_names={number: name for name, number in numbers.items()},
    )
