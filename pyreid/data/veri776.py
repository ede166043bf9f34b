"""VeRi-776 as it comes out of its archive (Liu et al., ECCV 2016).

The query images are also in the gallery folder; the rule that removes the query's own identity in its own camera takes
them out at evaluation.
"""

from __future__ import annotations

import re
from pathlib import Path

from pyreid.data.layouts import DatasetFacts, FolderScan, Layout, Listing, find_root
from pyreid.data.records import ImageRecord

FOLDERS = {"train": "image_train", "query": "image_query", "gallery": "image_test"}
NAME_LISTS = {"train": "name_train.txt", "query": "name_query.txt", "gallery": "name_test.txt"}

_PATTERN = re.compile(r"(?P<pid>\d+)_c(?P<camera>\d+)_\d+_\d+\.jpg", re.IGNORECASE)


def _listed_names(scan: FolderScan, path: Path, names: list[str]) -> list[str]:
    """The names that the list file at ``path`` states; differences from the folder go into ``scan``."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        scan.problems.append(f"{path}: cannot be read ({error})")
        return names
    listed = [line.strip() for line in text.splitlines() if line.strip()]
    on_disk, in_list = set(names), set(listed)
    missing = [name for name in listed if name not in on_disk]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        scan.problems.append(f"{path}: lists {missing[0]}{more}, which the folder does not hold")
    if len(in_list) < len(listed):
        scan.problems.append(f"{path}: {len(listed) - len(in_list)} names are listed more than once")
    if on_disk - in_list:
        scan.notices.append(f"{path}: {len(on_disk - in_list)} images of the folder are not listed and are left out")
    return list(dict.fromkeys(name for name in listed if name in on_disk))


def _scan(root: Path) -> Listing:
    root = find_root(root, marker=FOLDERS["train"], inner=("VeRi", "VeRi-776", "VeRi776", "veri776"))
    scan = FolderScan(pattern=_PATTERN, expected="0001_c001_00016450_0.jpg (identity, camera, frame, box)")
    splits: dict[str, tuple[ImageRecord, ...]] = {}
    for split, folder in FOLDERS.items():
        names = scan.names(root / folder)
        list_path = root / NAME_LISTS[split]
        if names and list_path.is_file():
            names = _listed_names(scan, list_path, names)
        records = [scan.record(root / folder / name) for name in names]
        splits[split] = tuple(record for record in records if record is not None)
    return Listing(
        root=root,
        train=splits["train"],
        query=splits["query"],
        gallery=splits["gallery"],
        problems=tuple(scan.problems),
        notices=tuple(scan.notices),
    )


LAYOUT = Layout(
    name="veri776",
    title="VeRi-776",
    scan=_scan,
    facts=DatasetFacts(
        train_images=37778, train_ids=576, query_images=1678, query_ids=200, gallery_images=11579, cameras=20
    ),
)
