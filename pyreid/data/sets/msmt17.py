"""MSMT17 (Wei et al., CVPR 2018), both releases.

::

    MSMT17_V1/                                       MSMT17_V2/
      train/0000/0000_000_01_0303morning_0015_0.jpg    mask_train_v2/... (faces blurred)
      test/0000/0000_000_05_0303morning_0003_0.jpg     mask_test_v2/...
      list_train.txt      0000/0000_000_01_0303morning_0015_0.jpg 0
      list_val.txt        a tenth of the training images
      list_query.txt      images in the test folder
      list_gallery.txt

A list line is a path below the split's folder and an identity. A name is identity, image, camera (1 to 15), day and
time of day, frame, box. Training is ``list_train.txt`` and ``list_val.txt`` together, as the paper counts it. Training
and test identities are both numbered from 0: the same number means two persons. The paper's authors gave no evaluation
code; the AP is that of torchreid, by which results are published.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from pyreid.data.layouts import DatasetFacts, Layout, Listing, tree_of
from pyreid.data.protocol import Protocol
from pyreid.data.records import ImageRecord
from pyreid.data.scan import Scan, find_root

VERSIONS = {"MSMT17_V1": ("train", "test"), "MSMT17_V2": ("mask_train_v2", "mask_test_v2")}
LISTS = {
    "train": ("train", "list_train.txt"),
    "val": ("train", "list_val.txt"),
    "query": ("test", "list_query.txt"),
    "gallery": ("test", "list_gallery.txt"),
}

_LINE = re.compile(r"(?P<path>(?P<folder>[^/\s]+)/\d+_\d+_(?P<camera>\d+)_\S*\.jpg)\s+(?P<pid>\d+)", re.IGNORECASE)
_EXPECTED = "'0000/0000_000_01_0303morning_0015_0.jpg 0' (folder, identity_image_camera_..., identity)"


def _reader(folder: Path) -> Callable[[re.Match[str]], ImageRecord | str]:
    def read(match: re.Match[str]) -> ImageRecord | str:
        camera = int(match["camera"])
        if camera < 1:
            return f"{match['path']} is of camera {camera}, expected 1 or more"
        return ImageRecord(path=folder / match["path"], pid=int(match["pid"]), camid=camera - 1)

    return read


def _folders(root: Path) -> tuple[Path, Path]:
    """Training and test folder: of the first release unless those of the second are there."""
    for train, test in reversed(VERSIONS.values()):
        if (root / train).is_dir() or (root / test).is_dir():
            return root / train, root / test
    return root / "train", root / "test"


def _scan(root: Path) -> Listing:
    root = find_root(root, marker="list_train.txt", inner=(*VERSIONS, "MSMT17", "msmt17"))
    scan = Scan()
    train, test = _folders(root)
    for folder in (train, test):
        if not folder.is_dir():
            scan.problems.append(f"{folder}: folder not found")
    lists: dict[str, tuple[ImageRecord, ...]] = {}
    for name, (side, file_name) in LISTS.items():
        if name == "val" and not (root / file_name).is_file():
            scan.notices.append(f"{root / file_name}: file not found, its training images are left out")
            continue
        lists[name] = scan.listed(root / file_name, _LINE, _EXPECTED, _reader(train if side == "train" else test))
    records = lists["train"] + lists.get("val", ())
    if len({record.path for record in records}) < len(records):
        shared = {record.path for record in lists["train"]} & {record.path for record in lists["val"]}
        scan.problems.append(
            f"{root / 'list_val.txt'}: {len(shared)} images are in list_train.txt, too, for example {min(shared).name}"
        )
    for folder, names in ((train, ("train", "val")), (test, ("query", "gallery"))):
        scan.note_unlisted(folder, (record.path for name in names for record in lists.get(name, ())))
    return scan.listing(
        root,
        train=records,
        query=lists["query"],
        gallery=lists["gallery"],
    )


LAYOUT = Layout(
    name="msmt17",
    title="MSMT17",
    subject="person",
    source="Wei et al., Person Transfer GAN to Bridge Domain Gap for Person Re-Identification, CVPR 2018",
    tree=tree_of(__doc__),
    scan=_scan,
    facts=DatasetFacts(
        train_images=32621, train_ids=1041, query_images=11659, query_ids=3060, gallery_images=82161, cameras=15
    ),
    protocol=Protocol(),
    separate_test_ids=True,
)
