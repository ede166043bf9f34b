"""Data sets by name."""

from __future__ import annotations

import warnings
from pathlib import Path

from pyreid.data import market1501, veri776
from pyreid.data.layouts import DatasetWarning, Layout, describe_difference
from pyreid.data.records import ReIDDataset
from pyreid.errors import DatasetError

_LAYOUTS = {layout.name: layout for layout in (market1501.LAYOUT, veri776.LAYOUT)}


def list_datasets() -> list[str]:
    """Names that :func:`load_dataset` knows, sorted."""
    return sorted(_LAYOUTS)


def get_layout(name: str) -> Layout:
    """The layout called ``name``.

    Raises:
        ValueError: there is no such data set; the message lists the names.
    """
    if name not in _LAYOUTS:
        raise ValueError(f"unknown data set {name!r}, expected one of {', '.join(list_datasets())}")
    return _LAYOUTS[name]


def load_dataset(name: str, root: Path | str) -> ReIDDataset:
    """Read a data set's folders; no image is opened.

    Args:
        name: ``"market1501"`` or ``"veri776"``.
        root: the folder of the unpacked archive, or its parent.

    Returns:
        The records of the three splits, sorted by file name (VeRi-776: in the order of its name lists).

    Raises:
        ValueError: there is no data set of that name.
        DatasetError: a folder is missing or empty, or a file name cannot be parsed; the message names it.

    Warns:
        DatasetWarning: the counts differ from the published ones, or files were left out.
    """
    layout = get_layout(name)
    root = Path(root)
    if not root.is_dir():
        raise DatasetError(f"{root}: folder not found, expected the {layout.title} data set")
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
    return ReIDDataset(name=name, root=listing.root, train=listing.train, query=listing.query, gallery=listing.gallery)
