"""VeRi-Wild (Lou et al., VERI-Wild: A Large Dataset and a New Method, CVPR 2019), with each of its test sets.

::

    VeRI-Wild/
      images/00001/000001.jpg                        folder of the identity
      train_test_split/
        vehicle_info.txt        00001/000001;12;...  identity/image;camera;time;model;type;colour, after a heading
        train_list.txt          00001/000001
        test_3000.txt           gallery of the small test set; 5000: medium, 10000: large
        test_3000_query.txt     one query of each of its identities
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from pyreid.data.layouts import DatasetFacts, Layout, Listing, tree_of
from pyreid.data.protocol import Protocol
from pyreid.data.records import ImageRecord
from pyreid.data.scan import Scan, find_root

SIZES = {"small": 3000, "medium": 5000, "large": 10000}

_GALLERY_IMAGES = {"small": 38861, "medium": 64389, "large": 128517}
_LINE = re.compile(r"(?P<folder>(?P<pid>\d+))/(?P<name>[^\s/;.]+)(\.jpg)?(\s+\d+)?", re.IGNORECASE)
_INFO = re.compile(r"\d+/(?P<name>[^\s/;.]+)(\.jpg)?\s*;\s*(?P<camera>\d+)\s*(;.*)?", re.IGNORECASE)


def _read_cameras(scan: Scan, path: Path) -> dict[str, int]:
    """Camera of each image, by its name; the heading of the file is skipped."""
    cameras: dict[str, int] = {}
    faults: list[tuple[int, str]] = []
    for number, line in scan.lines(path):
        match = _INFO.fullmatch(line)
        if match is not None:
            cameras[match["name"]] = int(match["camera"])
        elif number > 1:
            faults.append((number, f"{line[:100]!r} does not have the form '00001/000001;12;...' (image;camera;...)"))
    scan.faults(path, faults)
    return cameras


def _scanner(size: int) -> Callable[[Path], Listing]:
    def scan_size(root: Path) -> Listing:
        root = find_root(
            root, marker="train_test_split", inner=("VERI-Wild", "VeRI-Wild", "VeRi-Wild", "veri-wild", "veri_wild")
        )
        scan = Scan()
        images, lists = root / "images", root / "train_test_split"
        if not images.is_dir():
            scan.problems.append(f"{images}: folder not found")
        cameras = _read_cameras(scan, lists / "vehicle_info.txt")
        numbers = {camera: number for number, camera in enumerate(sorted(set(cameras.values())))}

        def read(match: re.Match[str]) -> ImageRecord | str:
            camera = cameras.get(match["name"])
            if camera is None:
                return f"{match['folder']}/{match['name']} has no camera in vehicle_info.txt"
            path = images / match["folder"] / f"{match['name']}.jpg"
            return ImageRecord(path=path, pid=int(match["pid"]), camid=numbers[camera])

        def listed(name: str) -> tuple[ImageRecord, ...]:
            return scan.listed(lists / name, _LINE, "'00001/000001' (identity/image)", read)

        return scan.listing(
            root,
            train=listed("train_list.txt"),
            query=listed(f"test_{size}_query.txt"),
            gallery=listed(f"test_{size}.txt"),
            camera_names={number: str(camera) for camera, number in numbers.items()},
        )

    return scan_size


def _layout(size: str) -> Layout:
    return Layout(
        name=f"veri_wild_{size}",
        title=f"VeRi-Wild ({size} test set)",
        subject="vehicle",
        source="Lou et al., VERI-Wild: A Large Dataset and a New Method for Vehicle Re-Identification in the Wild, "
        "CVPR 2019",
        tree=tree_of(__doc__),
        scan=_scanner(SIZES[size]),
        facts=DatasetFacts(
            train_images=277797,
            train_ids=30671,
            query_images=SIZES[size],
            query_ids=SIZES[size],
            gallery_images=_GALLERY_IMAGES[size],
            # The published number is of the whole set; the smaller test sets may not have seen all cameras.
            cameras=174 if size == "large" else None,
        ),
        protocol=Protocol(preset="veri-wild"),
        variants=tuple(f"veri_wild_{other}" for other in SIZES),
    )


LAYOUTS = tuple(_layout(size) for size in SIZES)
