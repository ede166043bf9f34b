"""Data sets by name."""

from __future__ import annotations

import warnings
from pathlib import Path

from pyreid.data.layouts import DatasetWarning, Layout, describe_difference, protocol_of
from pyreid.data.records import ReIDDataset
from pyreid.data.sets import (
    csv_file,
    cuhk03_np,
    dukemtmc,
    folders,
    market1501,
    mars,
    msmt17,
    vehicleid,
    veri776,
    veri_wild,
    vric,
)
from pyreid.errors import DatasetError

_LAYOUTS = {
    layout.name: layout
    for layout in (
        market1501.LAYOUT,
        dukemtmc.LAYOUT,
        cuhk03_np.LABELED,
        cuhk03_np.DETECTED,
        msmt17.LAYOUT,
        mars.LAYOUT,
        veri776.LAYOUT,
        *vehicleid.LAYOUTS,
        *veri_wild.LAYOUTS,
        vric.LAYOUT,
        folders.LAYOUT,
        csv_file.LAYOUT,
    )
}


def list_datasets() -> list[str]:
    """Names that :func:`load_dataset` knows, sorted."""
    return sorted(_LAYOUTS)


def list_layouts() -> list[Layout]:
    """Every layout: of persons, of vehicles, of users' own data."""
    return list(_LAYOUTS.values())


def get_layout(name: str) -> Layout:
    """The layout called ``name``.

    Raises:
        ValueError: there is no such data set; the message lists the names.
    """
    if name not in _LAYOUTS:
        raise ValueError(f"unknown data set {name!r}, expected one of {', '.join(list_datasets())}")
    return _LAYOUTS[name]


def missing_root(layout: Layout, root: Path) -> str | None:
    """What is wrong with ``root`` if it is not there at all, or else None."""
    if root.is_dir() or (layout.may_be_file and root.is_file()):
        return None
    return f"{root}: {'file or ' if layout.may_be_file else ''}folder not found, expected the {layout.title} data set"


def load_dataset(name: str, root: Path | str) -> ReIDDataset:
    """Read a data set's folders and lists; no image is opened.

    Args:
        name: one of :func:`list_datasets`. ``pyreid datasets`` shows them, ``pyreid datasets NAME`` the folders of one.
            ``"folders"`` and ``"csv"`` read your own images.
        root: the folder of the unpacked archive, or its parent; for ``"csv"`` also the file.

    Returns:
        The records of the three splits, with the protocol by which the data set is evaluated. They are in the order of
        the data set's lists; where it has none, sorted by file name.

    Raises:
        ValueError: there is no data set of that name.
        DatasetError: a folder or list is missing or empty, or a file name or a line cannot be parsed, or a listed file
            is missing; the message names file and line.

    Warns:
        DatasetWarning: the counts differ from the published ones, or files were left out.
    """
    layout = get_layout(name)
    root = Path(root)
    missing = missing_root(layout, root)
    if missing is not None:
        raise DatasetError(missing)
    listing = layout.scan(root)
    if listing.problems:
        more = len(listing.problems) - 1
        hint = f" ({more} more faults: pyreid check {name} {root})" if more else ""
        raise DatasetError(f"{listing.problems[0]}{hint}")
    for split in ("train", "query", "gallery"):
        if not getattr(listing, split):
            raise DatasetError(f"{listing.root}: the {split} split of {layout.title} has no usable image")
    difference = describe_difference(layout, listing)
    for notice in (*listing.notices, *([difference] if difference else [])):
        warnings.warn(notice, DatasetWarning, stacklevel=2)
    return ReIDDataset(
        name=name,
        root=listing.root,
        train=listing.train,
        query=listing.query,
        gallery=listing.gallery,
        protocol=protocol_of(layout, listing),
        alternatives=layout.alternatives,
        separate_test_ids=layout.separate_test_ids,
        id_names=listing.id_names,
        camera_names=listing.camera_names,
    )
