"""What a data set's on-disk layout is, what reading it gives, and the published counts to compare with."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pyreid.data.protocol import Protocol
from pyreid.data.records import NO_CAMERA, NO_TRACK, ImageRecord

MANIFEST_NAME = "synthetic.json"
"""File that marks a synthetic data set and states its counts in place of the published ones."""


class DatasetWarning(UserWarning):
    """A data set on disk can be used, but is not quite what its name promises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFacts:
    """Published size of a data set: images and identities as files on disk, junk and distractors included.

    None stands for what is not published; 0 cameras or tracks for none.
    """

    train_images: int | None = None
    train_ids: int | None = None
    query_images: int | None = None
    query_ids: int | None = None
    gallery_images: int | None = None
    cameras: int | None = None
    train_tracks: int | None = 0
    query_tracks: int | None = 0
    gallery_tracks: int | None = 0


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
        id_names: names of identities that are not numbers.
        camera_names: names of cameras that are not numbers.
    """

    root: Path
    train: tuple[ImageRecord, ...] = ()
    query: tuple[ImageRecord, ...] = ()
    gallery: tuple[ImageRecord, ...] = ()
    problems: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    id_names: Mapping[int, str] = field(default_factory=dict)
    camera_names: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """An on-disk layout.

    Attributes:
        name: the name of the data set, as the user types it.
        title: its name for people.
        subject: what its images show.
        source: who published it, and where.
        tree: the folders and files that are read.
        scan: reads the folders below a root.
        facts: the published counts; None for data without any.
        protocol: how it is evaluated.
        alternatives: other rules by which it may be evaluated.
        variants: the data sets that have the same training images and other test images, and are reported together.
        distractor_pid: the gallery identity that is nobody's, if the layout has one.
        junk_pid: the gallery identity that evaluation removes, if the layout has one.
        query_in_gallery: whether the query images are in the gallery, too.
        separate_test_ids: whether training and test identities are numbered apart.
        unique_names: whether a file name occurs once in the whole set, so that a second one tells of a copied image.
        may_be_file: whether the root may be a file.
    """

    name: str
    title: str
    subject: Literal["person", "vehicle", "any"]
    source: str
    tree: str
    scan: Callable[[Path], Listing]
    facts: DatasetFacts | None
    protocol: Protocol
    alternatives: tuple[Protocol, ...] = ()
    variants: tuple[str, ...] = ()
    distractor_pid: int | None = None
    junk_pid: int | None = None
    query_in_gallery: bool = False
    separate_test_ids: bool = False
    unique_names: bool = False
    may_be_file: bool = False


def tree_of(doc: str | None) -> str:
    """The indented block after the first ``::`` of a module's docstring."""
    lines = (doc or "").splitlines()  # python -OO drops docstrings
    starts = [number for number, line in enumerate(lines) if line.endswith("::")]
    block: list[str] = []
    for line in lines[starts[0] + 1 :] if starts else ():
        if line.strip() and not line.startswith(" "):
            break
        block.append(line)
    return textwrap.dedent("\n".join(block)).strip("\n")


def protocol_of(layout: Layout, listing: Listing) -> Protocol:
    """The protocol of a layout, without its camera filter where the test images have no cameras."""
    if all(record.camid == NO_CAMERA for record in (*listing.query, *listing.gallery)):
        return replace(layout.protocol, camera_filter=False)
    return layout.protocol


def read_manifest(root: Path) -> dict[str, Any] | None:
    """The manifest of a synthetic data set, or None where there is none or it is not one of ours."""
    path = root / MANIFEST_NAME
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("generator") == "pyreid" else None


def synthetic_manifest(root: Path, name: str) -> dict[str, Any] | None:
    """The manifest of the synthetic data set that ``name`` was read from, or None for a real one."""
    manifest = read_manifest(root)
    if manifest is not None:
        return manifest
    above = read_manifest(root.parent)  # CUHK03-NP's splits are a folder deeper than the root of the set
    return above if above and above.get("settings", {}).get("layout") == name else None


def count_facts(listing: Listing) -> DatasetFacts:
    """The counts of :class:`DatasetFacts` as found on disk."""

    def tracks(records: Iterable[ImageRecord]) -> int:
        return len({record.track for record in records} - {NO_TRACK})

    records = (*listing.train, *listing.query, *listing.gallery)
    return DatasetFacts(
        train_images=len(listing.train),
        train_ids=len({record.pid for record in listing.train}),
        query_images=len(listing.query),
        query_ids=len({record.pid for record in listing.query}),
        gallery_images=len(listing.gallery),
        cameras=len({record.camid for record in records} - {NO_CAMERA}),
        train_tracks=tracks(listing.train),
        query_tracks=tracks(listing.query),
        gallery_tracks=tracks(listing.gallery),
    )


def describe_difference(layout: Layout, listing: Listing) -> str | None:
    """One line on how the counts on disk differ from the published ones, or None if they agree.

    A synthetic data set is compared with the counts that its manifest states for the name it is read by.
    """
    found = asdict(count_facts(listing))
    expected = asdict(layout.facts) if layout.facts is not None else {}
    source = f"the published {layout.title}"
    manifest = synthetic_manifest(listing.root, layout.name)
    if manifest is not None:
        stated = manifest.get("variants", {}).get(layout.name, manifest.get("counts"))
        if isinstance(stated, dict):
            expected, source = stated, MANIFEST_NAME
    parts = [
        f"{found[name]} {name.replace('_', ' ')} (expected {expected[name]})"
        for name in found
        if expected.get(name) is not None and found[name] != expected[name]
    ]
    return f"{listing.root}: counts differ from {source}: {', '.join(parts)}" if parts else None
