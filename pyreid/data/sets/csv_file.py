"""A user's own images in a CSV file.

::

    my_data/
      dataset.csv                                    or any .csv file, whose path is the root then
      images/anna_1.jpg                              paths are relative to the CSV file, or absolute

    path,id,camera,split                             the first line; camera and split may be left out
    images/anna_1.jpg,anna,hall,train                split: train, query or gallery

Without cameras there is no camera filter; without splits, every second identity is for testing. Identities that are
whole numbers keep them, others and all cameras are numbered in the order of their names.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from pyreid.data.layouts import Layout, Listing, tree_of
from pyreid.data.protocol import Protocol
from pyreid.data.scan import Scan
from pyreid.data.sets.own_data import SPLITS, OwnImage, make_listing

FILE_NAME = "dataset.csv"

_NEEDED = ("path", "id")
_OPTIONAL = ("camera", "split")


def _read_rows(scan: Scan, path: Path) -> list[tuple[int, dict[str, str]]]:
    """Rows by column name, with the number of the line in which each ends."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        scan.problems.append(f"{path}: file not found; put one there, or give the path of your CSV file itself")
        return []
    except (OSError, UnicodeDecodeError) as error:
        scan.problems.append(f"{path}: cannot be read ({error})")
        return []
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    heading = [name.strip().lower() for name in next(reader, [])]
    unknown = [name for name in heading if name not in (*_NEEDED, *_OPTIONAL)]
    if any(name not in heading for name in _NEEDED) or unknown or len(set(heading)) < len(heading):
        scan.problems.append(
            f"{path}:1: the heading is {','.join(heading)!r}, expected path,id and optionally camera and split"
        )
        return []
    rows: list[tuple[int, dict[str, str]]] = []
    wrong: list[tuple[int, str]] = []
    try:
        for values in reader:
            if not any(values):
                continue
            if len(values) != len(heading):
                wrong.append((reader.line_num, f"has {len(values)} values, expected {len(heading)}"))
            else:
                rows.append((reader.line_num, dict(zip(heading, (value.strip() for value in values), strict=True))))
    except csv.Error as error:
        wrong.append((reader.line_num, f"is no CSV ({error})"))
    scan.faults(path, wrong)
    if not rows and not wrong:
        scan.problems.append(f"{path}: the list is empty")
    return rows


def _scan(root: Path) -> Listing:
    scan = Scan()
    path = root if root.is_file() else root / FILE_NAME
    folder = path.parent
    images: list[OwnImage] = []
    lines: dict[Path, int] = {}
    wrong: list[tuple[int, str]] = []
    for line, row in _read_rows(scan, path):
        image = folder / row["path"]  # an absolute path stays as it is
        split = row.get("split", "").lower()
        if not row["path"] or not row["id"]:
            wrong.append((line, f"{'path' if not row['path'] else 'id'} is empty"))
        elif split and split not in SPLITS:
            wrong.append((line, f"split is {row['split']!r}, expected train, query or gallery"))
        elif image in lines:
            wrong.append((line, f"{row['path']} is listed already in line {lines[image]}"))
        elif not scan.holds(image):
            wrong.append((line, f"{image} does not exist"))
        else:
            lines[image] = line
            images.append(OwnImage(path=image, identity=row["id"], camera=row.get("camera", ""), split=split))
    scan.faults(path, wrong)
    return make_listing(folder, images, scan)


LAYOUT = Layout(
    name="csv",
    title="CSV file",
    subject="any",
    source="your own images",
    tree=tree_of(__doc__),
    scan=_scan,
    facts=None,
    protocol=Protocol(),
    may_be_file=True,
)
