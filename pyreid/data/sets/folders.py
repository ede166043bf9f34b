"""A user's own images in a folder per identity.

::

    my_data/
      train/anna/0001.jpg                            identities are folders, of any name
      query/carl/0001.jpg
      gallery/carl/0002.jpg

    my_data/                                         with cameras: a folder per camera inside
      train/anna/hall/0001.jpg
      ...

    my_data/                                         without splits: every second identity is for testing
      anna/0001.jpg
      ...

Without cameras there is no camera filter. Identities and cameras are numbered in the order of their names.
"""

from __future__ import annotations

import os
from pathlib import Path

from pyreid.data.layouts import Layout, Listing, tree_of
from pyreid.data.protocol import Protocol
from pyreid.data.scan import IMAGE_SUFFIXES, Scan
from pyreid.data.sets.own_data import SPLITS, OwnImage, make_listing


def _entries(folder: Path) -> tuple[list[str], list[str], int]:
    """Sorted names of the sub-folders and of the images of a folder, and how many other files it holds."""
    folders: list[str] = []
    images: list[str] = []
    others = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                folders.append(entry.name)
            elif entry.name.lower().endswith(IMAGE_SUFFIXES):
                images.append(entry.name)
            else:
                others += 1
    return sorted(folders), sorted(images), others


def _read_identities(scan: Scan, folder: Path, split: str) -> list[OwnImage]:
    found: list[OwnImage] = []
    identities, loose, _ = _entries(folder)
    if loose:
        scan.problems.append(f"{folder}: holds {len(loose)} images outside of an identity's folder, such as {loose[0]}")
    if not identities:
        scan.problems.append(f"{folder}: holds no folder of an identity")
    for identity in identities:
        own = folder / identity
        cameras, images, others = _entries(own)
        found += [OwnImage(path=own / name, identity=identity, split=split) for name in images]
        for camera in cameras:
            deeper, images, more = _entries(own / camera)
            others += more
            if deeper:
                scan.problems.append(f"{own / camera}: holds a folder, {deeper[0]}, where images are expected")
            found += [
                OwnImage(path=own / camera / name, identity=identity, camera=camera, split=split) for name in images
            ]
        if others:
            scan.notices.append(f"{own}: {others} files that are no images are ignored")
    return found


def _scan(root: Path) -> Listing:
    scan = Scan()
    given = [split for split in SPLITS if (root / split).is_dir()]
    if given:
        images = [image for split in given for image in _read_identities(scan, root / split, split)]
        scan.problems.extend(f"{root / split}: folder not found" for split in SPLITS if split not in given)
    else:
        images = _read_identities(scan, root, "")
    return make_listing(root, images, scan)


LAYOUT = Layout(
    name="folders",
    title="folder per identity",
    subject="any",
    source="your own images",
    tree=tree_of(__doc__),
    scan=_scan,
    facts=None,
    protocol=Protocol(),
    query_in_gallery=False,
)
