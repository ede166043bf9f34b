"""Rank lists: a query and the gallery images nearest to it, right ones framed green and wrong ones red."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from pyreid import ops
from pyreid.data.records import JUNK_PID, NO_CAMERA

if TYPE_CHECKING:
    from pyreid.data import ImageRecord
    from pyreid.ops._checks import Metric

RIGHT, WRONG, QUERY = (46, 160, 67), (218, 54, 51), (90, 90, 90)
_FRAME, _GAP, _TEXT = 4, 6, 16


@dataclass(frozen=True, slots=True)
class RankList:
    """One query and its nearest gallery images.

    Attributes:
        query: the query.
        gallery: the nearest images, nearest first; junk of this query (same identity and camera, or identity -1) is
            left out, as in the evaluation.
        right: for each of them, whether it shows the query's identity.
        title: a line of text above the row.
    """

    query: ImageRecord
    gallery: tuple[ImageRecord, ...]
    right: tuple[bool, ...]
    title: str = ""


def make_rank_lists(
    query: Sequence[ImageRecord],
    gallery: Sequence[ImageRecord],
    query_features: NDArray[np.float32],
    gallery_features: NDArray[np.float32],
    *,
    chosen: Sequence[int],
    titles: Sequence[str] = (),
    topk: int = 10,
    metric: Metric = "euclidean",
) -> list[RankList]:
    """Rank the gallery for some of the queries.

    Args:
        query: Q records, in the order of ``query_features``.
        gallery: G records, in the order of ``gallery_features``.
        query_features: (Q, D).
        gallery_features: (G, D).
        chosen: indices of the queries to show.
        titles: one line per chosen query; empty for none.
        topk: images to show per query; fewer where the gallery is smaller.
        metric: as for :func:`pyreid.evaluate`.

    Raises:
        ValueError: if numbers of records and features differ, or an index is out of range.
    """
    for name, records, features in (("query", query, query_features), ("gallery", gallery, gallery_features)):
        if len(records) != len(features):
            raise ValueError(f"{name}: got {len(records)} records and {len(features)} feature rows, expected as many")
    if titles and len(titles) != len(chosen):
        raise ValueError(f"titles: expected {len(chosen)}, one for each chosen query, got {len(titles)}")
    if any(not 0 <= index < len(query) for index in chosen):
        raise ValueError(f"chosen: expected indices from 0 to {len(query) - 1}, got {list(chosen)}")
    rows = torch.from_numpy(np.ascontiguousarray(query_features[list(chosen)]))
    distances = ops.pairwise_distance(rows, torch.from_numpy(np.ascontiguousarray(gallery_features)), metric=metric)
    order = distances.argsort(dim=1, stable=True)
    lists = []
    for row, index in enumerate(chosen):
        person = query[index]
        found: list[ImageRecord] = []
        for position in order[row].tolist():
            other = gallery[position]
            same_view = person.camid != NO_CAMERA and other.camid == person.camid
            if other.pid == JUNK_PID or (other.pid == person.pid and same_view):
                continue
            found.append(other)
            if len(found) == topk:
                break
        right = tuple(other.pid == person.pid for other in found)
        lists.append(RankList(person, tuple(found), right, titles[row] if titles else ""))
    return lists


def _tile(record: ImageRecord, colour: tuple[int, int, int], cell: tuple[int, int]) -> Image.Image:
    height, width = cell
    with Image.open(record.path) as image:
        picture = ImageOps.pad(image.convert("RGB"), (width, height), color=(255, 255, 255))
    return ImageOps.expand(picture, border=_FRAME, fill=colour)


def draw_rank_lists(lists: Sequence[RankList], *, cell: tuple[int, int] = (128, 64), title: str = "") -> Image.Image:
    """Draw rank lists as one sheet: a row per query, the query in a grey frame at the left, ranks over the columns.

    Args:
        lists: from :func:`make_rank_lists`.
        cell: (height, width) of each image in pixels; images keep their aspect ratio.
        title: written over the sheet.

    Raises:
        ValueError: if ``lists`` is empty.
    """
    if not lists:
        raise ValueError("lists: expected at least one rank list, got none")
    height, width = cell[0] + 2 * _FRAME, cell[1] + 2 * _FRAME
    columns = 1 + max(len(item.gallery) for item in lists)
    row_height = height + _TEXT + _GAP
    header = 2 * _TEXT + _GAP if title else _TEXT + _GAP
    sheet_size = (columns * (width + _GAP) + 3 * _GAP, header + len(lists) * row_height + _GAP)
    sheet = Image.new("RGB", sheet_size, (255, 255, 255))
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=_TEXT - 4)

    def left_of(column: int) -> int:
        return _GAP if column == 0 else 3 * _GAP + column * (width + _GAP)  # a wider gap sets the query apart

    if title:
        pen.text((_GAP, _GAP // 2), title, fill=(0, 0, 0), font=font)
    for column in range(columns):
        heading = "query" if column == 0 else str(column)
        pen.text((left_of(column) + width // 2, header - _TEXT), heading, fill=QUERY, font=font, anchor="ma")
    for row, item in enumerate(lists):
        top = header + row * row_height
        camera = f", camera {item.query.camid + 1}" if item.query.camid != NO_CAMERA else ""
        label = item.title or f"identity {item.query.pid}{camera}"
        pen.text((_GAP, top), label, fill=(0, 0, 0), font=font)
        sheet.paste(_tile(item.query, QUERY, cell), (left_of(0), top + _TEXT))
        for column, (record, right) in enumerate(zip(item.gallery, item.right, strict=True), start=1):
            sheet.paste(_tile(record, RIGHT if right else WRONG, cell), (left_of(column), top + _TEXT))
    return sheet
