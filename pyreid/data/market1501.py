"""Market-1501 as it comes out of ``Market-1501-v15.09.15.zip`` (Zheng et al., ICCV 2015)."""

from __future__ import annotations

import re
from pathlib import Path

from pyreid.data.layouts import DatasetFacts, FolderScan, Layout, Listing, find_root
from pyreid.data.records import DISTRACTOR_PID, JUNK_PID, ImageRecord

FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}

_NOBODY = (JUNK_PID, DISTRACTOR_PID)

# A few files of the real archive end in ".jpg.jpg".
_PATTERN = re.compile(r"(?P<pid>-1|\d+)_c(?P<camera>\d+)s\d+_\d+_\d+(\.jpg)+", re.IGNORECASE)


def _scan(root: Path) -> Listing:
    root = find_root(root, marker=FOLDERS["train"], inner=("Market-1501-v15.09.15", "Market-1501", "market1501"))
    scan = FolderScan(pattern=_PATTERN, expected="0002_c1s1_000451_03.jpg (identity, camera, sequence, frame, box)")
    splits: dict[str, tuple[ImageRecord, ...]] = {}
    for split, folder in FOLDERS.items():
        records = [scan.record(root / folder / name) for name in scan.names(root / folder)]
        splits[split] = tuple(record for record in records if record is not None)
    for record in splits["query"]:
        if record.pid in _NOBODY:
            scan.problems.append(f"{record.path}: a query has identity {record.pid}, expected a positive number")
    # Junk and distractors are nobody: no class of a classifier may be made of them.
    train = tuple(record for record in splits["train"] if record.pid not in _NOBODY)
    if len(train) < len(splits["train"]):
        skipped = len(splits["train"]) - len(train)
        scan.notices.append(f"{root / FOLDERS['train']}: {skipped} images of identity -1 or 0 are left out")
    return Listing(
        root=root,
        train=train,
        query=tuple(record for record in splits["query"] if record.pid not in _NOBODY),
        gallery=splits["gallery"],
        problems=tuple(scan.problems),
        notices=tuple(scan.notices),
    )


LAYOUT = Layout(
    name="market1501",
    title="Market-1501",
    scan=_scan,
    facts=DatasetFacts(
        train_images=12936, train_ids=751, query_images=3368, query_ids=750, gallery_images=19732, cameras=6
    ),
    distractor_pid=DISTRACTOR_PID,
    junk_pid=JUNK_PID,
)
