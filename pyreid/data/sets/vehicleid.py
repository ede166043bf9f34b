"""VehicleID (Liu et al., Deep Relative Distance Learning, CVPR 2016), with each of its test lists.

::

    VehicleID_V1.0/
      image/0000001.jpg
      train_test_split/
        train_list.txt          name without ending, identity: 0042305 9
        test_list_800.txt       800 vehicles; likewise 1600, 2400, 3200, 6000 and 13164

There are no cameras. The protocol draws one gallery image of each identity at random and takes all others as queries,
ten times. As one fixed split the loader gives the first listed image of each identity as the gallery and the others as
queries; the random protocol takes both together. ``vehicleid`` is the largest of the three sizes that papers report.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from pyreid.data.layouts import DatasetFacts, Layout, Listing, tree_of
from pyreid.data.protocol import Protocol
from pyreid.data.records import ImageRecord
from pyreid.data.scan import Scan, find_root

SIZES = (800, 1600, 2400, 3200, 6000, 13164)
REPORTED = (800, 1600, 2400)
DEFAULT_SIZE = 2400

_IMAGES = {800: 6493, 1600: 13377, 2400: 19777}  # of the test lists whose size is published
_LINE = re.compile(r"(?P<name>[^\s/]+?)(\.jpg)?\s+(?P<pid>\d+)", re.IGNORECASE)
_EXPECTED = "'0042305 9' (image, identity)"


def _split(test: tuple[ImageRecord, ...]) -> tuple[tuple[ImageRecord, ...], tuple[ImageRecord, ...]]:
    """Queries and gallery: the first image of each identity is the gallery."""
    seen: set[int] = set()
    query: list[ImageRecord] = []
    gallery: list[ImageRecord] = []
    for record in test:
        (query if record.pid in seen else gallery).append(record)
        seen.add(record.pid)
    return tuple(query), tuple(gallery)


def _scanner(size: int) -> Callable[[Path], Listing]:
    def scan_size(root: Path) -> Listing:
        root = find_root(root, marker="train_test_split", inner=("VehicleID_V1.0", "VehicleID", "vehicleid"))
        scan = Scan()
        images = root / "image"
        if not images.is_dir():
            scan.problems.append(f"{images}: folder not found")

        def read(match: re.Match[str]) -> ImageRecord:
            return ImageRecord(path=images / f"{match['name']}.jpg", pid=int(match["pid"]))

        lists = root / "train_test_split"
        train = scan.listed(lists / "train_list.txt", _LINE, _EXPECTED, read)
        query, gallery = _split(scan.listed(lists / f"test_list_{size}.txt", _LINE, _EXPECTED, read))
        return scan.listing(
            root,
            train=train,
            query=query,
            gallery=gallery,
        )

    return scan_size


def _layout(name: str, size: int) -> Layout:
    images = _IMAGES.get(size)
    return Layout(
        name=name,
        title=f"VehicleID ({size} test identities)",
        subject="vehicle",
        source="Liu et al., Deep Relative Distance Learning: Tell the Difference Between Similar Vehicles, CVPR 2016",
        tree=tree_of(__doc__),
        scan=_scanner(size),
        facts=DatasetFacts(
            train_images=113346,
            train_ids=13164,
            query_images=None if images is None else images - size,
            gallery_images=size,
            cameras=0,
        ),
        protocol=Protocol(name="random gallery", function="evaluate_random_gallery", camera_filter=False, repeats=10),
        variants=tuple(f"vehicleid_{reported}" for reported in REPORTED),
    )


LAYOUTS = (_layout("vehicleid", DEFAULT_SIZE), *(_layout(f"vehicleid_{size}", size) for size in SIZES))
