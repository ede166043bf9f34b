"""Data sets of three folders whose file names say identity and camera: Market-1501 and those made in its image."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from pyreid.data.layouts import Listing
from pyreid.data.records import ImageRecord
from pyreid.data.scan import Scan

FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
"""The folder of each split, in Market-1501, DukeMTMC-reID and CUHK03-NP alike."""


def record_by_name(scan: Scan, path: Path, pattern: re.Pattern[str], expected: str) -> ImageRecord | None:
    """Record of one image by its file name; an unparsable name is a problem and gives None.

    Args:
        scan: collects the problem.
        path: the file.
        pattern: with the groups ``pid`` and ``camera``, which counts from 1.
        expected: the same for people.
    """
    match = pattern.fullmatch(path.name)
    camera = int(match["camera"]) if match else 0
    if match is None or camera < 1:
        scan.problems.append(f"{path}: the name does not have the form {expected}")
        return None
    return ImageRecord(path=path, pid=int(match["pid"]), camid=camera - 1)


def scan_named_folders(
    root: Path,
    *,
    pattern: re.Pattern[str],
    expected: str,
    folders: Mapping[str, str] = FOLDERS,
    suffixes: Sequence[str] = (".jpg",),
    nobody: Collection[int] = (),
) -> Listing:
    """Read three folders.

    Args:
        root: the folder that holds them.
        pattern: see :func:`record_by_name`.
        expected: the same for people.
        folders: the folder of each split.
        suffixes: endings of the images.
        nobody: identities that are no one's: a problem in the queries, left out of training.
    """
    scan = Scan()
    splits: dict[str, tuple[ImageRecord, ...]] = {}
    for split, folder in folders.items():
        names = scan.names(root / folder, suffixes)
        records = [record_by_name(scan, root / folder / name, pattern, expected) for name in names]
        splits[split] = tuple(record for record in records if record is not None)
    for record in splits["query"]:
        if record.pid in nobody:
            scan.problems.append(f"{record.path}: a query has identity {record.pid}, expected a positive number")
    # Junk and distractors are nobody: no class of a classifier may be made of them.
    train = tuple(record for record in splits["train"] if record.pid not in nobody)
    if len(train) < len(splits["train"]):
        left_out = " or ".join(str(pid) for pid in sorted(nobody))
        skipped = len(splits["train"]) - len(train)
        scan.notices.append(f"{root / folders['train']}: {skipped} images of identity {left_out} are left out")
    return scan.listing(
        root,
        train=train,
        query=(record for record in splits["query"] if record.pid not in nobody),
        gallery=splits["gallery"],
    )
