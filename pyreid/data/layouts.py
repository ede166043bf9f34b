"""What the reader of an on-disk layout gives back, and the tools that the readers share.

A reader scans folders without failing at the first fault, so that one scan serves both the loader, which raises, and
``pyreid check``, which lists everything.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyreid.data.records import ImageRecord

MANIFEST_NAME = "synthetic.json"
"""File that marks a synthetic data set and states its counts in place of the published ones."""


class DatasetWarning(UserWarning):
    """A data set on disk can be used, but is not quite what its name promises."""


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """Published size of a data set: images and identities as files on disk, junk and distractors included."""

    train_images: int
    train_ids: int
    query_images: int
    query_ids: int
    gallery_images: int
    cameras: int


@dataclass(frozen=True, slots=True)
class Listing:
    """What one scan of a data set's folders found.

    Attributes:
        root: the folder that holds the splits.
        train: training images.
        query: query images.
        gallery: gallery images.
        problems: faults that make the data set unusable as it is, each naming a file or folder.
        notices: oddities that do not.
    """

    root: Path
    train: tuple[ImageRecord, ...] = ()
    query: tuple[ImageRecord, ...] = ()
    gallery: tuple[ImageRecord, ...] = ()
    problems: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Layout:
    """An on-disk layout.

    Attributes:
        name: the name of the data set, as the user types it.
        title: its name for people.
        scan: reads the folders below a root.
        facts: the published counts.
        distractor_pid: the gallery identity that is nobody's, if the layout has one.
        junk_pid: the gallery identity that evaluation removes, if the layout has one.
    """

    name: str
    title: str
    scan: Callable[[Path], Listing]
    facts: DatasetFacts
    distractor_pid: int | None = None
    junk_pid: int | None = None


@dataclass(slots=True)
class FolderScan:
    """Collects the records and faults of one layout while its folders are read."""

    pattern: re.Pattern[str]
    expected: str
    problems: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def names(self, folder: Path) -> list[str]:
        """Sorted names of the ``.jpg`` files in ``folder``; a missing folder is a problem.

        Hidden files and others than ``.jpg`` are left out and noted; Market-1501 ships a ``Thumbs.db``, which is not.
        A folder without a single image is a problem.
        """
        if not folder.is_dir():
            self.problems.append(f"{folder}: folder not found")
            return []
        names: list[str] = []
        ignored = 0
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.lower().endswith(".jpg") and not entry.name.startswith("."):
                    names.append(entry.name)
                elif entry.name != "Thumbs.db":
                    ignored += 1
        if not names:
            self.problems.append(f"{folder}: holds no .jpg file")
        if ignored:
            self.notices.append(f"{folder}: {ignored} entries that are not .jpg images are ignored")
        return sorted(names)

    def record(self, path: Path) -> ImageRecord | None:
        """Record of one image by its file name; an unparsable name is a problem and gives None."""
        match = self.pattern.fullmatch(path.name)
        camera = int(match["camera"]) if match else 0
        if match is None or camera < 1:
            self.problems.append(f"{path}: the name does not have the form {self.expected}")
            return None
        return ImageRecord(path=path, pid=int(match["pid"]), camid=camera - 1)


def find_root(root: Path, *, marker: str, inner: tuple[str, ...]) -> Path:
    """The folder that holds the splits: ``root`` itself, or the first of its ``inner`` folders that has ``marker``."""
    if not (root / marker).is_dir():
        for name in inner:
            if (root / name / marker).is_dir():
                return root / name
    return root


def read_manifest(root: Path) -> dict[str, Any] | None:
    """The manifest of a synthetic data set, or None where there is none or it is not one of ours."""
    path = root / MANIFEST_NAME
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("generator") == "pyreid" else None


def count_facts(listing: Listing) -> DatasetFacts:
    """The counts of :class:`DatasetFacts` as found on disk."""
    records = (*listing.train, *listing.query, *listing.gallery)
    return DatasetFacts(
        train_images=len(listing.train),
        train_ids=len({record.pid for record in listing.train}),
        query_images=len(listing.query),
        query_ids=len({record.pid for record in listing.query}),
        gallery_images=len(listing.gallery),
        cameras=len({record.camid for record in records}),
    )


def describe_difference(layout: Layout, listing: Listing) -> str | None:
    """One line on how the counts on disk differ from the published ones, or None if they agree.

    A synthetic data set is compared with the counts that its manifest states.
    """
    found = count_facts(listing)
    expected, source = layout.facts, f"the published {layout.title}"
    manifest = read_manifest(listing.root)
    if manifest is not None and isinstance(manifest.get("counts"), dict):
        names = DatasetFacts.__dataclass_fields__
        if set(manifest["counts"]) == set(names):
            expected, source = DatasetFacts(**manifest["counts"]), MANIFEST_NAME
    parts = [
        f"{getattr(found, name)} {name.replace('_', ' ')} (expected {getattr(expected, name)})"
        for name in DatasetFacts.__dataclass_fields__
        if getattr(found, name) != getattr(expected, name)
    ]
    return f"{listing.root}: counts differ from {source}: {', '.join(parts)}" if parts else None
