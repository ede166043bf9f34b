"""VRIC (Kanaci, Zhu and Gong, Vehicle Re-Identification in Context, GCPR 2018).

::

    VRIC/
      vric_train.txt        name, identity and camera, separated by spaces
      vric_probe.txt        one query of each test identity
      vric_gallery.txt      one gallery image of each test identity
      train_images/  probe_images/  gallery_images/

Every query has one right answer, so that AP is its reciprocal rank. There is no camera filter to apply: it could only
remove the one right answer. Whether a number means one vehicle in training and testing alike is not stated, so that
equal numbers are not held against the set.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pyreid.data.layouts import DatasetFacts, Layout, Listing, tree_of
from pyreid.data.protocol import Protocol
from pyreid.data.records import ImageRecord
from pyreid.data.scan import Scan, find_root

LISTS = {
    "train": ("vric_train.txt", "train_images"),
    "query": ("vric_probe.txt", "probe_images"),
    "gallery": ("vric_gallery.txt", "gallery_images"),
}

_LINE = re.compile(r"(?P<name>\S+\.jpg)\s+(?P<pid>\d+)\s+(?P<camera>\d+)", re.IGNORECASE)


def _reader(folder: Path) -> Callable[[re.Match[str]], ImageRecord]:
    def read(match: re.Match[str]) -> ImageRecord:
        return ImageRecord(path=folder / match["name"], pid=int(match["pid"]), camid=int(match["camera"]))

    return read


def _scan(root: Path) -> Listing:
    root = find_root(root, marker="vric_train.txt", inner=("VRIC", "vric"))
    scan = Scan()
    splits: dict[str, tuple[ImageRecord, ...]] = {}
    for split, (list_name, folder) in LISTS.items():
        if not (root / folder).is_dir():
            scan.problems.append(f"{root / folder}: folder not found")
        expected = "'000001.jpg 1 2' (name, identity, camera)"
        splits[split] = scan.listed(root / list_name, _LINE, expected, _reader(root / folder))
        scan.note_unlisted(root / list_name, (record.path for record in splits[split]))
    # Whether cameras count from 0 or from 1 is not stated either.
    first = min((record.camid for records in splits.values() for record in records), default=0)
    shift = min(first, 1)
    splits = {
        split: tuple(replace(record, camid=record.camid - shift) for record in records)
        for split, records in splits.items()
    }
    return scan.listing(
        root,
        train=splits["train"],
        query=splits["query"],
        gallery=splits["gallery"],
    )


LAYOUT = Layout(
    name="vric",
    title="VRIC",
    subject="vehicle",
    source="Kanaci, Zhu and Gong, Vehicle Re-Identification in Context, GCPR 2018",
    tree=tree_of(__doc__),
    scan=_scan,
    facts=DatasetFacts(
        train_images=54808, train_ids=2811, query_images=2811, query_ids=2811, gallery_images=2811, cameras=60
    ),
    protocol=Protocol(name="one gallery image per identity", camera_filter=False),
    separate_test_ids=True,
)
