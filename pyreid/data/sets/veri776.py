"""VeRi-776 as it comes out of its archive (Liu et al., ECCV 2016).

::

    VeRi/
      image_train/0001_c001_00016450_0.jpg           identity, camera, frame, box
      image_query/0002_c002_00030600_0.jpg
      image_test/0002_c002_00030600_0.jpg            the gallery, with the query images
      name_train.txt  name_query.txt  name_test.txt  file names of each folder; may be missing
      test_track.txt                                 a track per line: its name, and its images in image_test

The query images are also in the gallery folder; the rule that removes the query's own identity in its own camera takes
them out at evaluation. The tracks serve the image-to-track protocol.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pyreid.data.layouts import DatasetFacts, Layout, Listing, tree_of
from pyreid.data.protocol import Protocol
from pyreid.data.records import NO_TRACK, ImageRecord
from pyreid.data.scan import Scan, find_root
from pyreid.data.sets.named_folders import record_by_name

FOLDERS = {"train": "image_train", "query": "image_query", "gallery": "image_test"}
NAME_LISTS = {"train": "name_train.txt", "query": "name_query.txt", "gallery": "name_test.txt"}
TRACK_LIST = "test_track.txt"

_PATTERN = re.compile(r"(?P<pid>\d+)_c(?P<camera>\d+)_\d+_\d+\.jpg", re.IGNORECASE)
_EXPECTED = "0001_c001_00016450_0.jpg (identity, camera, frame, box)"


def _reader(folder: Path) -> Callable[[re.Match[str]], ImageRecord | str]:
    def read(match: re.Match[str]) -> ImageRecord | str:
        if int(match["camera"]) < 1:
            return f"{match[0]} is of camera 0, expected 1 or more"
        return ImageRecord(path=folder / match[0], pid=int(match["pid"]), camid=int(match["camera"]) - 1)

    return read


def _number_tracks(scan: Scan, path: Path, gallery: tuple[ImageRecord, ...]) -> dict[str, int]:
    """The track of each gallery image by the list at ``path``; an image in no track is one of its own."""
    by_name = {record.path.name: record for record in gallery}
    tracks: dict[str, int] = {}
    count = 0
    unknown: list[tuple[int, str]] = []
    twice: list[tuple[int, str]] = []
    mixed: list[tuple[int, str]] = []
    for line, text in scan.lines(path):
        first, *others = text.split()
        # The first word is the track's name, which has no box number; a list without names is read as well.
        names = [*([first] if _PATTERN.fullmatch(first) else []), *others]
        missing = [name for name in names if name not in by_name]
        again = [name for name in names if name in tracks]
        known = [name for name in dict.fromkeys(names) if name in by_name and name not in tracks]
        if missing:
            unknown.append((line, f"{missing[0]} is not in {FOLDERS['gallery']}"))
        if again or len(set(names)) < len(names):
            twice.append((line, f"{again[0] if again else 'an image'} is in a track already"))
        owners = {(by_name[name].pid, by_name[name].camid) for name in known}
        if len(owners) > 1:
            mixed.append((line, f"the track has images of {len(owners)} identities or cameras, expected one of each"))
        tracks.update(dict.fromkeys(known, count))
        count += 1
    for faults in (unknown, twice, mixed):
        scan.faults(path, faults)
    alone = [name for name in by_name if name not in tracks]
    if alone:
        scan.notices.append(f"{path}: {len(alone)} gallery images are in no track, each becomes one of its own")
    tracks.update((name, count + number) for number, name in enumerate(alone))
    return tracks


def _scan(root: Path) -> Listing:
    root = find_root(root, marker=FOLDERS["train"], inner=("VeRi", "VeRi-776", "VeRi776", "veri776"))
    scan = Scan()
    splits: dict[str, tuple[ImageRecord, ...]] = {}
    for split, folder in FOLDERS.items():
        names = scan.names(root / folder)
        list_path = root / NAME_LISTS[split]
        if names and list_path.is_file():
            splits[split] = scan.listed(list_path, _PATTERN, _EXPECTED, _reader(root / folder))
            scan.note_unlisted(list_path, (record.path for record in splits[split]))
        else:
            records = [record_by_name(scan, root / folder / name, _PATTERN, _EXPECTED) for name in names]
            splits[split] = tuple(record for record in records if record is not None)
    if (root / TRACK_LIST).is_file() and splits["gallery"]:
        tracks = _number_tracks(scan, root / TRACK_LIST, splits["gallery"])
        for split in ("query", "gallery"):  # a query is an image of the gallery
            splits[split] = tuple(
                replace(record, track=tracks.get(record.path.name, NO_TRACK)) for record in splits[split]
            )
    return scan.listing(
        root,
        train=splits["train"],
        query=splits["query"],
        gallery=splits["gallery"],
    )


LAYOUT = Layout(
    name="veri776",
    title="VeRi-776",
    subject="vehicle",
    source="Liu et al., A Deep Learning-Based Approach to Progressive Vehicle Re-identification, ECCV 2016",
    tree=tree_of(__doc__),
    scan=_scan,
    facts=DatasetFacts(
        train_images=37778,
        train_ids=576,
        query_images=1678,
        query_ids=200,
        gallery_images=11579,
        cameras=20,
        query_tracks=None,
        gallery_tracks=None,
    ),
    protocol=Protocol(preset="veri776"),
    alternatives=(Protocol(name="image to track", function="evaluate_tracks", preset="veri776"),),
    query_in_gallery=True,
    unique_names=True,
)
