"""A gallery that changes while it is searched, verified or indexed; each change at the worst moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyreid.retrieval import FaissIndex, Gallery
from pyreid.retrieval.stores import local, milvus
from pyreid.retrieval.stores.base import Records

ROWS = np.eye(4, 3, dtype="f4") + 1


def in_a_thread(work: Callable[[], Any]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()


@pytest.mark.parametrize("compacts", [False, True])
def test_a_hit_removed_during_a_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compacts: bool) -> None:
    with Gallery(tmp_path / "g", columns=3) as gallery:
        keys = gallery.add(ROWS, ids=np.arange(4), metadata=[{"n": n} for n in range(4)])
        search_rows = local.search_rows

        def change() -> None:
            gallery.remove(keys[:2])
            if compacts:
                gallery.compact()

        def search(*args: Any, **options: Any) -> Any:
            in_a_thread(change)
            return search_rows(*args, **options)

        monkeypatch.setattr(local, "search_rows", search)
        hits = gallery.search(ROWS[:1], 4)
        assert sorted(hits.keys[0]) == keys.tolist()
        assert [item["n"] for item in hits.metadata[0] if item] == hits.ids[0].tolist() == hits.keys[0].tolist()
        monkeypatch.undo()
        assert sorted(gallery.search(ROWS[:1], 4).keys[0]) == keys[2:].tolist()


def test_where_gets_a_copy(tmp_path: Path) -> None:
    with Gallery(tmp_path / "g", columns=3) as gallery:
        keys = gallery.add(ROWS, metadata=[{"n": [n]} for n in range(4)])
        gallery.search(ROWS[:1], where=lambda item: item.metadata["n"].append(9) is None)
        assert gallery.get(keys).metadata == [{"n": [n]} for n in range(4)]


def test_verify_beside_compact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Gallery(tmp_path / "g", columns=3) as gallery:
        keys = gallery.add(ROWS)
        gallery.add(ROWS)
        crc32, done = local.zlib.crc32, []

        def check(*args: Any) -> int:
            if not done:
                done.append(True)
                in_a_thread(lambda: (gallery.remove(keys[:1]), gallery.compact()))
            return crc32(*args)

        monkeypatch.setattr(local.zlib, "crc32", check)
        gallery.verify()
        assert len(gallery) == 7


def test_an_index_refuses_after_a_change_during_its_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    with Gallery(tmp_path / "g", columns=3) as gallery:
        gallery.add(ROWS)
        get, version = Gallery.get, gallery.version
        monkeypatch.setattr(Gallery, "get", lambda self, keys: (self.add(ROWS), get(self, keys))[1])
        assert FaissIndex.build(gallery, "flat").version == version


def test_a_search_takes_its_snapshot_under_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Gallery(tmp_path / "g", columns=3) as gallery:
        gallery.add(ROWS)
        selected, free = local.LocalStore._selected, []

        def select(store: local.LocalStore, *args: Any) -> Any:
            in_a_thread(lambda: free.append(store._guard.acquire(blocking=False)))
            return selected(store, *args)

        monkeypatch.setattr(local.LocalStore, "_selected", select)
        gallery.search(ROWS[:1], 4)
        assert free == [False]


def test_an_add_to_milvus_that_fails_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    class Client:
        rows: set[int] = set()  # noqa: RUF012

        def insert(self, name: str, rows: list[Any]) -> dict[str, list[int]]:
            if len(self.rows) == 2:
                raise OSError("full")
            self.rows.add(len(self.rows))
            return {"ids": [len(self.rows) - 1]}

        def delete(self, name: str, ids: list[int]) -> None:
            self.rows.difference_update(ids)

    monkeypatch.setattr(milvus, "_ROWS_AT_A_TIME", 1)
    store: Any = milvus.MilvusStore.__new__(milvus.MilvusStore)
    store.version, store._name, store._vector, store._client = 0, "gallery", "features_euclidean", Client()
    unknown = np.full(4, -1)
    with pytest.raises(OSError, match="full"):
        store.add(Records(ROWS, unknown, unknown, np.full(4, np.nan), [None] * 4, unknown))
    assert (store._client.rows, store.version) == (set(), 1)


def test_rows_of_zeros_in_a_flat_index_for_cosine(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    rows = np.array([[1, 0, 0], [-1, 0, 0], [0, 0, 0], [-1, -1, 0]], np.float32)
    with Gallery(tmp_path / "g", columns=3, metric="cosine") as gallery:
        gallery.add(rows)
        index = FaissIndex.build(gallery, "flat")
        assert index.recall(rows[:1], 2) == 1
        np.testing.assert_allclose(index.search(rows[2:3], 4)[0], 1, atol=1e-6)
        np.testing.assert_allclose(index.search(rows[:1], 4)[0], gallery.search(rows[:1], 4).distances, atol=1e-6)
