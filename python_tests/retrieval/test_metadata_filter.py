"""Filters by metadata, in columns, against a look at every item."""

from __future__ import annotations

import enum
import json
import math
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch

from pyreid.retrieval import Gallery
from pyreid.retrieval.stores import metadata_columns
from pyreid.retrieval.stores.base import has_values
from pyreid.retrieval.stores.metadata_columns import MetadataColumns


class Level(enum.IntEnum):
    ONE = 1


SCALARS: list[Any] = [0, 1, -1, -2, 1.0, -0.0, 0.5, True, False, None, "", "1", "red", 2**70, float(2**70), 2**53 + 1]
STORED: list[Any] = [*SCALARS, [], [1], [True], {"a": 1}, {}]
WANTED: list[Any] = [
    *STORED,
    math.nan,
    math.inf,
    (1,),
    b"red",
    Level.ONE,
    {"a": 1.0},
    object(),
]
names = st.sampled_from(["a", "b", ""])
rows = st.lists(st.none() | st.dictionaries(names, st.sampled_from(STORED), max_size=3), max_size=12)


@hypothesis.settings(deadline=None, max_examples=300)
@hypothesis.given(
    rows, rows, st.lists(st.dictionaries(names, st.sampled_from(WANTED), max_size=2), max_size=4), st.data()
)
def test_it_is_a_look_at_every_item(
    first: list[Any], more: list[Any], several: list[dict[str, Any]], data: Any
) -> None:
    metadata = json.loads(json.dumps(first))
    columns = MetadataColumns(metadata)
    for wanted in several:
        for _ in range(2):
            selected = np.array(
                data.draw(st.lists(st.booleans(), min_size=len(metadata), max_size=len(metadata))), bool
            )
            before = selected.copy()
            expected = [bool(s) and has_values(m, wanted) for s, m in zip(selected, metadata, strict=True)]
            assert columns.matching(wanted, selected).tolist() == expected
            assert (selected == before).all()
            metadata.extend(more)


@pytest.mark.parametrize("value", SCALARS)
def test_what_is_wanted_is_told_from_all_others(value: Any) -> None:
    metadata: list[Any] = [{"a": other} for other in STORED] + [{"b": value}, {}, None]
    found = MetadataColumns(metadata).matching({"a": value}, np.ones(len(metadata), bool))
    expected = [
        type(o) in metadata_columns._SCALARS and o == value and isinstance(o, bool) == isinstance(value, bool)
        for o in STORED
    ]
    assert found.tolist() == [*expected, False, False, False]
    assert any(expected)


def test_items_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = 0

    class Counting(list[Any]):
        def __getitem__(self, row: Any) -> Any:
            nonlocal reads
            reads += 1
            return super().__getitem__(row)

    metadata = Counting({"n": n % 3} for n in range(90))
    columns, selected = MetadataColumns(metadata), np.ones(90, bool)
    for wanted in range(4):
        assert columns.matching({"n": wanted}, selected).sum() == (30 if wanted < 3 else 0)
    assert reads == 90
    metadata.append({"n": 2})
    assert columns.matching({"n": 2}, np.ones(91, bool)).nonzero()[0].tolist() == [*range(2, 90, 3), 90]
    assert reads == 91


def test_adds_removals_and_compaction_between_searches(tmp_path: Path) -> None:
    query = np.zeros((1, 2), "f4")

    def found(**wanted: Any) -> list[int]:
        return sorted(gallery.search(query, 100, metadata=wanted).keys[0].tolist())

    with Gallery(tmp_path / "g", columns=2) as gallery:
        gallery.add(np.ones((4, 2), "f4"), metadata=[{"a": 1}, {"a": True}, None, {"a": "1"}])
        assert (found(a=1), found(a=True), found(a="1"), found(), found(a=None)) == ([0], [1], [3], [0, 1, 2, 3], [])
        gallery.add(np.ones((3, 2), "f4"), metadata=[{"a": None}, {"a": 1.0, "b": [1]}, {"a": [1]}])
        assert (found(a=1), found(a=None), found(a=[1]), found(b=[1], a=1)) == ([0, 5], [4], [6], [5])
        gallery.remove([0, 3])
        assert (found(a=1), found(a="1"), found()) == ([5], [], [1, 2, 4, 5, 6])
        gallery.compact()
        assert (found(a=1), found(a=True), found(a=None), found()) == ([5], [1], [4], [1, 2, 4, 5, 6])
        gallery.add(np.ones((1, 2), "f4"), metadata=[{"a": 1}])
        assert found(a=1) == [5, 7]
        assert found(a=math.nan) == []


def test_numpy_scalars_are_numbers_and_arrays_are_refused(tmp_path: Path) -> None:
    query = np.zeros((1, 2), "f4")
    with Gallery(tmp_path / "g", columns=2) as gallery:
        gallery.add(np.ones((6, 2), "f4"), metadata=[{"a": a} for a in (1, True, "red", 0.5, [], [1])])
        for wanted, key in ((np.int64(1), 0), (np.bool_(True), 1), (np.str_("red"), 2), (np.float32(0.5), 3)):
            assert gallery.search(query, metadata={"a": wanted}).keys.tolist() == [[key]]
        for array in (np.array([1]), torch.tensor([1])):
            with pytest.raises(TypeError, match=r"metadata: a: expected a value of JSON's types, got (ndarray|Tensor)"):
                gallery.search(query, metadata={"a": array})


def test_what_was_found_may_be_changed(tmp_path: Path) -> None:
    query = np.zeros((1, 2), "f4")
    with Gallery(tmp_path / "g", columns=2) as gallery:
        gallery.add(np.ones((1, 2), "f4"), metadata=[{"a": 1, "b": {"c": [2]}}])
        for found in (gallery.search(query).metadata[0][0], gallery.get([0]).metadata[0]):
            assert found is not None
            found["a"] = 5
            found["b"]["c"].append(3)
        gallery.compact()
        assert gallery.search(query, metadata={"a": 1, "b": {"c": [2]}}).keys.tolist() == [[0]]
    with Gallery(tmp_path / "g") as gallery:
        assert gallery.get([0]).metadata == [{"a": 1, "b": {"c": [2]}}]


def test_what_was_added_is_found_in_the_same_form(tmp_path: Path) -> None:
    with Gallery(tmp_path / "g", columns=1) as gallery:
        added: list[Any] = [{"a": (1, 2)}, {"a": [True]}, {"a": [1]}, {"a": {"b": np.int64(3)}}, {"a": np.float32(0.5)}]
        gallery.add(np.ones((5, 1), "f4"), metadata=added)
        for row, wanted in enumerate(added):
            assert gallery.search(np.ones((1, 1), "f4"), 5, metadata=wanted).keys.tolist() == [[row]]
        for wrong in ({1: "x", "1": "y"}, {"a": {2: 3}}):
            with pytest.raises(TypeError, match=r"names must be text, got [12]"):
                gallery.add(np.ones((1, 1), "f4"), metadata=[wrong])
        assert len(gallery) == 5
