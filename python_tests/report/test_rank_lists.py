from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pyreid.data import ImageRecord
from pyreid.report import draw_rank_lists, make_rank_lists
from pyreid.report.rank_lists import QUERY, RIGHT, WRONG


@pytest.fixture
def records(tmp_path: Path) -> list[ImageRecord]:
    """A query of identity 5 in camera 0; a gallery: right, junk by camera, wrong, junk by identity, distractor."""
    facts = [(5, 0), (5, 1), (5, 0), (7, 1), (-1, 1), (0, 2)]
    found = []
    for i, (pid, camid) in enumerate(facts):
        path = tmp_path / f"{i}.png"
        Image.new("RGB", (32, 64), (40 * i, 10, 10)).save(path)
        found.append(ImageRecord(path, pid, camid))
    return found


def features(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)[:, None]


def test_junk_is_left_out_and_ties_keep_their_order(records: list[ImageRecord]) -> None:
    query, gallery = records[:1], records[1:]
    # distances: right 2, junk 0, wrong 1, junk 0, distractor 1
    (ranked,) = make_rank_lists(query, gallery, features(0), features(2, 0, 1, 0, -1), chosen=[0])
    assert [record.pid for record in ranked.gallery] == [7, 0, 5]
    assert ranked.right == (False, False, True)


def test_without_cameras_no_image_is_of_the_same_view(records: list[ImageRecord]) -> None:
    blind = [ImageRecord(record.path, record.pid) for record in records]
    (ranked,) = make_rank_lists(blind[:1], blind[1:], features(0), features(2, 0, 1, 0, -1), chosen=[0])
    assert [record.pid for record in ranked.gallery] == [5, 7, 0, 5]
    draw_rank_lists([ranked])


def test_topk_and_titles(records: list[ImageRecord]) -> None:
    lists = make_rank_lists(
        records[:1], records[1:], features(0), features(2, 0, 1, 0, -1), chosen=[0, 0], titles=["a", "b"], topk=2
    )
    assert [len(item.gallery) for item in lists] == [2, 2]
    assert [item.title for item in lists] == ["a", "b"]


def test_frames_show_what_is_right(records: list[ImageRecord]) -> None:
    (ranked,) = make_rank_lists(records[:1], records[1:], features(0), features(2, 0, 1, 0, -1), chosen=[0])
    sheet = draw_rank_lists([ranked], cell=(64, 32))
    colours = [colour for _, colour in sorted(sheet.getcolors(1 << 20) or [], reverse=True)]
    assert {QUERY, RIGHT, WRONG} <= set(colours)
    columns = {
        name: np.argwhere((np.asarray(sheet) == np.array(colour)).all(-1))[:, 1]
        for name, colour in (("query", QUERY), ("right", RIGHT), ("wrong", WRONG))
    }
    assert columns["query"].max() < columns["wrong"].min() < columns["wrong"].max() < columns["right"].min()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"gallery_features": features(1, 2)}, "gallery: got 5 records and 2 feature rows"),
        ({"chosen": [1]}, "chosen: expected indices from 0 to 0"),
        ({"titles": ["a", "b"]}, "titles: expected 1"),
    ],
)
def test_bad_input(records: list[ImageRecord], change: dict[str, object], match: str) -> None:
    arguments: dict[str, object] = {
        "query": records[:1],
        "gallery": records[1:],
        "query_features": features(0),
        "gallery_features": features(1, 2, 3, 4, 5),
        "chosen": [0],
    }
    with pytest.raises(ValueError, match=match):
        make_rank_lists(**(arguments | change))  # type: ignore[arg-type]


def test_no_lists_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected at least one rank list"):
        draw_rank_lists([])
