"""A gallery in Milvus from which others remove between two calls of ours, and adds that fail half way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyreid.errors import GalleryError
from pyreid.retrieval import FaissIndex, Gallery
from pyreid.retrieval.stores import milvus

pytest.importorskip("pymilvus", reason="the extra milvus is not installed")
pytest.importorskip("milvus_lite", reason="the extra milvus is not installed")

ROWS = np.arange(24, dtype="f4").reshape(8, 3)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("milvus") / "g.db"
    with Gallery(path, columns=3, store="milvus", collection="held"):  # the server stays for all tests
        yield path


@pytest.fixture
def pair(file: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Gallery, Gallery, np.ndarray]]:
    """A gallery, another object on the same items, as another process has it, and their keys."""
    name = "".join(letter if letter.isalnum() else "_" for letter in request.node.name)
    with Gallery(file, columns=3, store="milvus", collection=name) as ours:
        keys = ours.add(ROWS, ids=np.arange(8), metadata=[{"n": n} for n in range(8)])
        with Gallery(file, store="milvus", collection=name) as theirs:
            yield ours, theirs, keys


class Between:
    """A client during whose calls of one name others do something: before it or behind it, as often as told."""

    def __init__(self, gallery: Gallery, name: str, when: str, do: Callable[[], None], times: int = 1) -> None:
        store: Any = gallery._store
        self.client, self.name, self.when, self.do, self.left = store._client, name, when, do, times
        self.calls = 0
        store._client = self

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)

        def call(*arguments: Any, **options: Any) -> Any:
            self.calls += name == self.name
            now = name == self.name and self.left > 0
            self.left -= now
            if now and self.when == "before":
                self.do()
            found = method(*arguments, **options)
            if now and self.when == "behind":
                self.do()
            return found

        return call


@pytest.mark.parametrize("when", ["before", "behind"])
@pytest.mark.parametrize("k", [2, 8])
def test_a_hit_that_another_process_removes(pair: tuple[Gallery, Gallery, np.ndarray], when: str, k: int) -> None:
    ours, theirs, keys = pair
    client = Between(ours, "search", when, lambda: theirs.remove(keys[[0, 3]]))
    hits = ours.search(ROWS[:1], k)
    left = keys[[1, 2, 4, 5, 6, 7]][:k]
    assert hits.keys.tolist() == [left.tolist()]
    assert hits.ids.tolist() == [np.searchsorted(keys, left).tolist()]
    assert [item["n"] for item in hits.metadata[0] if item] == hits.ids[0].tolist()
    assert client.calls == (1 if (when, k) == ("before", 2) else 2)


def test_an_item_removed_when_where_has_kept_it(pair: tuple[Gallery, Gallery, np.ndarray]) -> None:
    ours, theirs, keys = pair
    asked: list[int] = []

    def where(item: Any) -> bool:
        asked.append(item.key)
        if item.key == keys[5]:
            theirs.remove(keys[[2, 5]])
        return bool(item.id in (1, 2, 5, 6))

    assert ours.search(ROWS[:1], 8, where=where).keys.tolist() == [keys[[1, 6]].tolist()]
    Between(ours, "search", "behind", lambda: theirs.remove(keys[[1]]))
    hits = ours.search(ROWS[:1], 8, where=where)
    assert hits.keys.tolist() == [keys[[6]].tolist()]
    assert sorted(asked) == sorted([*keys, *keys[[0, 1, 3, 4, 6, 7]]]), "each item is asked about once a search"


def test_removals_without_end_are_a_clear_error(pair: tuple[Gallery, Gallery, np.ndarray]) -> None:
    ours, theirs, keys = pair
    left = keys.tolist()
    Between(ours, "search", "behind", lambda: theirs.remove(left.pop(0)), times=99)
    with pytest.raises(
        GalleryError, match=f"g.db: other processes removed items .*, {milvus._SEARCHES} times in a row"
    ):
        ours.search(ROWS[:1], 3)
    assert len(left) == 8 - milvus._SEARCHES


def test_copies_and_indices_of_what_others_remove_from(
    pair: tuple[Gallery, Gallery, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs, keys = pair
    records: Any = ours._store.records
    removed: list[int] = []

    def removing(wanted: np.ndarray) -> Any:
        if not removed:
            removed.append(int(wanted[1]))
            theirs.remove(removed)
        return records(wanted)

    monkeypatch.setattr(ours._store, "records", removing)
    ours.save(tmp_path / "copy")
    with Gallery.load(tmp_path / "copy") as copy:
        assert copy.get(copy.keys()).ids.tolist() == [0, 2, 3, 4, 5, 6, 7]
    with pytest.raises(KeyError, match=f"keys: no item {keys[1]}"):
        ours.get(keys)
    pytest.importorskip("faiss", reason="the extra faiss is not installed")
    removed.clear()
    with pytest.raises(GalleryError, match="removed while it was indexed; build the index anew"):
        FaissIndex.build(ours, "flat")


@pytest.mark.parametrize("lost", [False, True])
def test_an_add_that_fails_half_way(
    pair: tuple[Gallery, Gallery, np.ndarray], monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    ours, theirs, keys = pair
    monkeypatch.setattr(milvus, "_ROWS_AT_A_TIME", 3)
    seen: list[int] = []

    def fail() -> None:
        seen.append(len(theirs))
        if len(seen) == 3:
            raise OSError("the third insert fails")

    def gone() -> None:
        raise GalleryError("no answer")

    Between(ours, "insert", "before", fail, times=9)
    if lost:
        Between(ours, "delete", "before", gone, times=9)
    version = ours.version
    with pytest.raises(OSError, match="the third insert fails"):  # also if Milvus no longer answers
        ours.add(ROWS + 9)
    assert seen == [8, 11, 14]
    assert theirs.keys().tolist()[:8] == keys.tolist()
    assert len(theirs) == (14 if lost else 8)
    assert ours.version > version
    found = ours.search(ROWS[:1], 20).ids[0].tolist()
    assert sorted(found) == [*[-1] * (6 * lost), *range(8)]
