"""A gallery against a plain list of items, in local files and in Milvus, and through kills of the writer."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyreid.errors import GalleryError
from pyreid.retrieval import FaissIndex, Gallery
from pyreid.retrieval.stores import files, local

D = 6


def fill(gallery: Gallery, count: int = 60, seed: int = 0) -> dict[str, Any]:
    """Items with small integers, so that distances tie, and all they are known by."""
    rng = np.random.default_rng(seed)
    items: dict[str, Any] = {
        "features": rng.integers(-2, 3, (count, D)).astype("f4"),
        "ids": rng.integers(0, 7, count),
        "cameras": rng.integers(0, 4, count),
        "timestamps": np.where(rng.random(count) < 0.2, np.nan, rng.integers(0, 100, count)),
        "metadata": [None if n % 5 == 0 else {"color": "red" if n % 3 else "blue", "n": n} for n in range(count)],
    }
    return items | {"keys": gallery.add(**items)}


def naive(items: dict[str, Any], query: np.ndarray, k: int, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    distances = np.sqrt(((query[:, None].astype("f8") - items["features"][mask]) ** 2).sum(-1))
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, 1), items["keys"][mask][order]


def told(items: dict[str, Any], keeps: Callable[[dict[str, Any]], bool]) -> np.ndarray:
    return np.array([keeps(metadata or {}) for metadata in items["metadata"]])


def several(i: dict[str, Any]) -> np.ndarray:
    times = (i["timestamps"] >= 10) & (i["timestamps"] <= 90)
    red = told(i, lambda m: m.get("color") == "red")
    return np.isin(i["ids"], [1, 2, 3, 4]) & (i["cameras"] < 2) & times & red


FILTERS: dict[str, tuple[dict[str, Any], Callable[[dict[str, Any]], np.ndarray]]] = {
    "all": ({}, lambda i: np.ones(60, bool)),
    "an id": ({"ids": 3}, lambda i: i["ids"] == 3),
    "ids": ({"ids": {1, 2}}, lambda i: np.isin(i["ids"], [1, 2])),
    "cameras": ({"cameras": np.array([0, 1, 2])}, lambda i: i["cameras"] < 3),
    "time": ({"time_range": (20, 70)}, lambda i: (i["timestamps"] >= 20) & (i["timestamps"] <= 70)),
    "since": ({"time_range": (50, None)}, lambda i: i["timestamps"] >= 50),
    "any time": ({"time_range": (None, None)}, lambda i: ~np.isnan(i["timestamps"])),
    "metadata": ({"metadata": {"color": "red"}}, lambda i: told(i, lambda m: m.get("color") == "red")),
    "where": (
        {"where": lambda item: item.metadata.get("n", 0) % 2 == 1},
        lambda i: told(i, lambda m: m.get("n", 0) % 2 == 1),
    ),
    "several": (
        {"ids": [1, 2, 3, 4], "cameras": [0, 1], "time_range": (10, 90), "metadata": {"color": "red"}},
        several,
    ),
    "none": ({"ids": []}, lambda i: np.zeros(60, bool)),
}


@pytest.fixture(params=["local", "milvus"])
def store(request: pytest.FixtureRequest) -> str:
    if request.param == "milvus":
        pytest.importorskip("pymilvus", reason="the extra milvus is not installed")
        pytest.importorskip("milvus_lite", reason="the extra milvus is not installed")
    return str(request.param)


def where(tmp_path: Path, store: str) -> Path:
    return tmp_path / ("gallery" if store == "local" else "gallery.db")


def check(gallery: Gallery, items: dict[str, Any], alive: np.ndarray, exact: bool) -> None:
    """All filters, with more neighbors than there are and with a few."""
    query = np.random.default_rng(9).integers(-2, 3, (4, D)).astype("f4")
    for name, (conditions, keeps) in FILTERS.items():
        mask = keeps(items) & alive
        for k in (5, 100):
            hits = gallery.search(query, k, **conditions)
            distances, keys = naive(items, query, k, mask)
            assert hits.keys.shape == keys.shape, name
            np.testing.assert_allclose(hits.distances, distances, rtol=1e-5, atol=1e-3, err_msg=name)
            if exact:
                np.testing.assert_array_equal(hits.keys, keys, err_msg=name)
            elif k == 100:
                np.testing.assert_array_equal(np.sort(hits.keys), np.sort(keys), err_msg=name)
            rows = np.searchsorted(items["keys"], hits.keys)
            np.testing.assert_array_equal(hits.ids, items["ids"][rows])
            np.testing.assert_array_equal(hits.cameras, items["cameras"][rows])
            np.testing.assert_array_equal(hits.timestamps, items["timestamps"][rows])
            assert hits.metadata == [[items["metadata"][row] for row in line] for line in rows.tolist()]


def test_search_remove_and_reopen(tmp_path: Path, store: Any) -> None:
    path, exact = where(tmp_path, store), store == "local"
    alive = np.ones(60, bool)
    with Gallery(path, columns=D, store=store) as gallery:
        items = fill(gallery)
        assert len(gallery) == 60
        check(gallery, items, alive, exact)
        alive[[3, 7, 59, 12]] = False
        gallery.remove(items["keys"][~alive])
        check(gallery, items, alive, exact)
    with Gallery(path, store=store) as gallery:
        assert (gallery.columns, gallery.metric, len(gallery)) == (D, "euclidean", 56)
        np.testing.assert_array_equal(gallery.keys(), items["keys"][alive])
        check(gallery, items, alive, exact)
        found = gallery.get(items["keys"][[5, 1]])
        np.testing.assert_array_equal(found.features, items["features"][[5, 1]])
        assert found.metadata == [None, items["metadata"][1]]
        with pytest.raises(KeyError, match=f"keys: no item {items['keys'][3]}"):
            gallery.get(items["keys"][[2, 3]])
        with pytest.raises(KeyError, match="keys: no item"):
            gallery.remove(items["keys"][[2, 3]])
        with pytest.raises(ValueError, match="keys: expected different keys"):
            gallery.remove(items["keys"][[2, 2]])
        assert len(gallery) == 56
        assert gallery.add(np.zeros((1, D), "f4"))[0] > items["keys"][-1]
        gallery.save(tmp_path / "copy")
    with Gallery.load(tmp_path / "copy") as copy:
        assert len(copy) == 57
        copied = {name: items[name][alive] for name in ("features", "ids", "cameras", "timestamps")}
        records = copy.get(copy.keys()[:56])
        for name, values in copied.items():
            np.testing.assert_array_equal(getattr(records, name), values)
    with pytest.raises(GalleryError, match="columns: expected 6, as the gallery has, got 7"):
        Gallery(path, columns=7, store=store)
    with pytest.raises(GalleryError, match="metric: expected euclidean, as the gallery has, got cosine"):
        Gallery(path, metric="cosine", store=store)
    with pytest.raises(FileNotFoundError, match="give columns= to make one"):
        Gallery(tmp_path / "other.db", store=store)


@pytest.mark.parametrize("metric", ["sqeuclidean", "cosine"])
def test_metrics(tmp_path: Path, store: Any, metric: Any) -> None:
    from pyreid.retrieval import search

    rng = np.random.default_rng(0)
    features, query = rng.standard_normal((50, D)), rng.standard_normal((3, D))
    with Gallery(where(tmp_path, store), columns=D, metric=metric, store=store) as gallery:
        keys = gallery.add(torch.from_numpy(features))
        hits = gallery.search(query, 7)
    distances, indices = search(query, features, 7, metric=metric)
    np.testing.assert_array_equal(hits.keys, keys[indices])
    np.testing.assert_allclose(hits.distances, distances, rtol=1e-4, atol=1e-5)


def test_compaction_keeps_keys_and_readers(tmp_path: Path) -> None:
    with Gallery(tmp_path / "g", columns=D) as gallery:
        items = fill(gallery)
        alive = np.arange(60) % 3 > 0
        reader = Gallery.load(tmp_path / "g")
        gallery.remove(items["keys"][~alive])
        before = sum(file.stat().st_size for file in (tmp_path / "g").iterdir())
        gallery.compact()
        assert sum(file.stat().st_size for file in (tmp_path / "g").iterdir()) < 0.8 * before
        check(gallery, items, alive, True)
        assert gallery.add(np.ones((1, D), "f4")).tolist() == [60]
        gallery.remove(60)
        check(reader, items, np.ones(60, bool), True)  # still what it opened, though the files are gone
    with Gallery.load(tmp_path / "g") as gallery:
        check(gallery, items, alive, True)
        gallery.verify()
        with pytest.raises(GalleryError, match="opened read-only"):
            gallery.add(np.ones((1, D), "f4"))


def test_a_condition_cannot_change_the_gallery_that_is_searched(tmp_path: Path) -> None:
    with Gallery(tmp_path / "g", columns=2) as gallery:
        gallery.add(np.eye(2, dtype="f4"))
        for change in (lambda: gallery.add(np.ones((3, 2), "f4")), lambda: gallery.remove([0]), gallery.compact):
            with pytest.raises(GalleryError, match="where= of a search cannot change the gallery"):
                gallery.search(np.eye(2, dtype="f4"), where=lambda item, change=change: change() is None)
        inner = gallery.search(
            np.ones((1, 2), "f4"), where=lambda item: len(gallery.search(np.ones((1, 2), "f4"), 1, where=bool).keys) > 0
        )
        assert inner.keys.tolist() == [[0, 1]]
        assert len(gallery.add(np.ones((3, 2), "f4"))) == 3  # nothing was written, so the gallery is not broken
        assert len(gallery) == 5


def test_milvus_lets_go_of_its_file_and_speaks_as_a_gallery(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pymilvus", reason="the extra milvus is not installed")
    pytest.importorskip("milvus_lite", reason="the extra milvus is not installed")
    path = tmp_path / "new" / "g.db"
    with pytest.raises(FileNotFoundError, match="no gallery; give columns= to make one"):
        Gallery(path, store="milvus")
    assert not list(tmp_path.iterdir())
    with pytest.raises(GalleryError, match=r"g.txt: expected a name that ends in \.db"):
        Gallery(tmp_path / "g.txt", store="milvus", columns=2)
    other = f"""
import sys
from pyreid.errors import GalleryError
from pyreid.retrieval import Gallery
try:
    with Gallery({str(path)!r}, store="milvus") as gallery: print(len(gallery))
except GalleryError as error: print(str(error))
"""

    def by_another_process() -> str:
        done = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout.strip()

    first = Gallery(path, store="milvus", columns=2)
    with Gallery(path, store="milvus") as second:  # of the same process: they share a server
        second.add(np.eye(2, dtype="f4"))
    assert by_another_process() == f"{path}: no file of Milvus Lite, or another process has it open"
    assert len(first) == 2
    first.close()
    with pytest.raises(GalleryError, match="closed"):
        first.search(np.eye(2, dtype="f4"))
    assert by_another_process() == "2"


def test_one_writer(tmp_path: Path) -> None:
    with Gallery(tmp_path / "g", columns=D), pytest.raises(GalleryError, match="another process or object writes"):
        Gallery(tmp_path / "g")
    Gallery(tmp_path / "g").close()


def test_a_log_cut_anywhere_loses_only_what_was_not_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_WRITING_SECONDS", 0)
    with Gallery(tmp_path / "g", columns=D) as gallery:
        log, ends = tmp_path / "g" / "log.0", [0]
        for _ in range(3):
            fill(gallery, 3)
            ends.append(log.stat().st_size)
    for size in range(0, ends[-1] + 1, 13):
        shutil.copytree(tmp_path / "g", tmp_path / "cut", dirs_exist_ok=True)
        log, features = tmp_path / "cut" / "log.0", tmp_path / "cut" / "features.0"
        os.truncate(log, size)
        adds = sum(size >= end for end in ends[1:])
        committed, torn, row = 3 * adds, size - ends[adds], 4 * D
        os.truncate(features, min(3 * (adds + 1), 9) * row)  # those of the add that was interrupted
        left = [f"{log}: leaves out the last {torn} bytes, of an add or removal that did not finish"] * (torn > 0)
        with warned(left), Gallery.load(tmp_path / "cut") as reader:
            assert len(reader) == committed
        dropped = [line.replace("leaves out", "drops") for line in left]
        if adds < 3:
            dropped.append(f"{features}: drops the last {3 * row} bytes, of an add that did not finish")
        with warned(dropped), Gallery(tmp_path / "cut") as gallery:
            assert len(gallery) == committed
            assert gallery.add(np.ones((1, D), "f4")).tolist() == [committed]
            gallery.verify()
        with warned([]), Gallery.load(tmp_path / "cut") as reader:
            assert len(reader) == committed + 1


@contextlib.contextmanager
def warned(expected: list[str]) -> Iterator[None]:
    """Exactly these warnings come."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    assert [str(warning.message) for warning in caught] == expected


@pytest.mark.parametrize("zeros", [False, True])
def test_a_log_cut_before_committed_adds_is_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zeros: bool
) -> None:
    # No crash does that: rows of an add come to the disk after all records before.
    monkeypatch.setattr(local, "_WRITING_SECONDS", 0)
    log, features = tmp_path / "g" / "log.0", tmp_path / "g" / "features.0"
    with Gallery(tmp_path / "g", columns=D) as gallery:
        fill(gallery, 3)
        first = log.stat().st_size
        fill(gallery, 5)
        second = log.stat().st_size
        fill(gallery, 1)
        gallery.remove([0])
    whole = log.read_bytes()
    for size in range(first + 20 + 8 + 40, second - 8, 16):
        log.write_bytes(whole[:size] + bytes(second - size) * zeros)
        before = log.read_bytes(), features.read_bytes()
        for read_only in (False, True):
            with pytest.raises(GalleryError, match=r"log\.0: cut short at byte .*features\.0 has rows of later adds"):
                Gallery(tmp_path / "g", read_only=read_only)
        assert (log.read_bytes(), features.read_bytes()) == before
    log.write_bytes(whole[:-9])  # within the removal
    torn = len(whole) - 9 - whole.rindex(b"PYRL")
    message = f"{log}: drops the last {torn} bytes, of an add or removal that did not finish"
    with warned([message]), Gallery(tmp_path / "g") as gallery:
        assert len(gallery) == 9
    log.write_bytes(whole[:-9])
    with features.open("ab") as file:  # a removal is not interrupted by an add
        file.write(bytes(4 * D))
    with pytest.raises(GalleryError, match="has rows of later adds"):
        Gallery(tmp_path / "g")


def test_a_reader_waits_for_the_record_that_is_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Gallery(tmp_path / "g", columns=D) as gallery:
        fill(gallery, 3)
        log = tmp_path / "g" / "log.0"
        first = log.stat().st_size
        fill(gallery, 5)
        whole = log.read_bytes()
        log.write_bytes(whole[: first + 60])
        monkeypatch.setattr(local.time, "sleep", lambda _: log.write_bytes(whole))
        with warned([]), Gallery.load(tmp_path / "g") as reader:
            assert len(reader) == 8


def test_damage_is_told_from_a_torn_end(tmp_path: Path) -> None:
    with Gallery(tmp_path / "g", columns=D) as gallery:
        fill(gallery, 3)
        middle = (tmp_path / "g" / "log.0").stat().st_size
        fill(gallery, 3)
    log, features = tmp_path / "g" / "log.0", tmp_path / "g" / "features.0"
    content = log.read_bytes()
    for position in (0, 10, 30, middle - 1):
        log.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        with pytest.raises(GalleryError, match="damaged at byte 0, with sound records behind it"):
            Gallery(tmp_path / "g")
    log.write_bytes(content)
    rows = features.read_bytes()
    features.write_bytes(rows[:-1] + b"\x55")
    with Gallery.load(tmp_path / "g") as gallery, pytest.raises(GalleryError, match="rows 3 to 5 are damaged"):
        gallery.verify()
    features.write_bytes(rows[:-1])
    with pytest.raises(GalleryError, match="expected 144 bytes for 6 rows of the log, got 143"):
        Gallery(tmp_path / "g")


def test_a_full_disk_adds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Gallery(tmp_path / "g", columns=D) as gallery:
        fill(gallery, 3)
        write = files.write

        def full(path: Path, parts: Any, mode: str) -> None:
            if path.name.startswith("log"):
                write(path, [part[:10] for part in parts], mode)
                raise OSError(28, "No space left on device")
            write(path, parts, mode)

        monkeypatch.setattr(files, "write", full)
        with pytest.raises(OSError, match="No space left"):
            fill(gallery, 3)
        monkeypatch.undo()
        with pytest.raises(GalleryError, match="an earlier write failed; open the gallery again"):
            fill(gallery, 3)
    dropped = f"{tmp_path}/g/features.0: drops the last 72 bytes, of an add that did not finish"
    with warned([dropped]), Gallery(tmp_path / "g") as gallery:
        assert gallery.keys().tolist() == [0, 1, 2]
        fill(gallery, 3)
        gallery.verify()


def test_features_are_on_the_disk_before_the_record_that_commits_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, int]] = []
    sync, replace = os.fsync, Path.replace

    def record(handle: int) -> None:
        synced.append((Path(f"/proc/self/fd/{handle}").readlink().name, os.fstat(handle).st_size))
        sync(handle)

    def rename(path: Path, target: Path) -> Path:
        synced.append((f"{path.name} to {target.name}", 0))
        return replace(path, target)

    with Gallery(tmp_path / "g", columns=D) as gallery:
        log = tmp_path / "g" / "log.0"
        monkeypatch.setattr(os, "fsync", record)
        keys = gallery.add(GOOD)
        assert synced == [("features.0", GOOD.nbytes), ("log.0", log.stat().st_size)]
        synced.clear()
        gallery.remove(keys[:1])
        assert synced == [("log.0", log.stat().st_size)]
        synced.clear()
        monkeypatch.setattr(Path, "replace", rename)
        gallery.compact()
        names = [name for name, _ in synced]
        for name, size in (("features.1", GOOD[1:].nbytes), ("log.1", (tmp_path / "g" / "log.1").stat().st_size)):
            last = len(names) - 1 - names[::-1].index(name)
            assert synced[last] == (name, size)  # all of it
            assert last < names.index(".manifest.new")
        # The folder before the rename, for the names of the new files, and behind it.
        assert names[names.index(".manifest.new") :] == [".manifest.new", "g", ".manifest.new to manifest.json", "g"]


def write_forever(path: str, report: Any, seed: int) -> None:
    """Adds, removes and compacts; tells what is about to be removed, and what is done."""
    generator = random.Random(seed)
    with Gallery(path, columns=D) as gallery:
        keys = gallery.keys().tolist()
        while True:
            if generator.random() < 0.1:
                gallery.compact()
            if len(keys) > 20 and generator.random() < 0.3:
                gone = generator.sample(keys, 5)
                report.send(("removing", gone))
                gallery.remove(gone)
                report.send(("removed", gone))
                keys = [key for key in keys if key not in gone]
            first = (keys[-1] if keys else -1) + 1
            count = generator.randint(1, 9)
            values = np.random.default_rng(first).standard_normal((count, D)).astype("f4")
            new = gallery.add(values, metadata=[{"sum": float(row.sum()), "of": first} for row in values]).tolist()
            report.send(("added", (new, values)))
            keys += new


@pytest.mark.slow
def test_a_kill_at_any_moment_loses_nothing_committed(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    generator = random.Random()
    runs = []
    for number in range(3):
        receiving, sending = context.Pipe(duplex=False)
        path = str(tmp_path / str(number))
        process = context.Process(target=write_forever, args=(path, sending, number), daemon=True)
        process.start()
        sending.close()
        runs.append((path, process, receiving))
    commits = 0
    for path, process, receiving in runs:
        kept: dict[int, np.ndarray] = {}
        removing: set[int] = set()
        end: float | None = None
        while True:  # the pipe must not fill up, so read until the end
            if end is not None and time.monotonic() > end and process.is_alive():
                os.kill(process.pid, signal.SIGKILL)  # type: ignore[arg-type]
            try:
                if not receiving.poll(0.01):
                    continue
                what, content = receiving.recv()
            except (EOFError, OSError):
                break
            end = end or time.monotonic() + generator.uniform(0.02, 0.6)
            if what == "added":
                kept.update(zip(*content, strict=True))
                commits += 1
            elif what == "removing":
                removing = set(content)
            else:
                for key in content:
                    del kept[key]
                removing = set()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        with Gallery(path) as gallery:
            gallery.verify()
            keys = set(gallery.keys().tolist())
            assert kept.keys() - keys in (set(), removing)  # a removal is whole or not at all
            extra = sorted(keys - kept.keys())  # an add that was not told of, whole or not at all
            records = gallery.get(sorted(keys))
            for key, row, metadata in zip(records.keys.tolist(), records.features, records.metadata, strict=True):
                assert metadata is not None
                assert metadata["sum"] == float(row.sum())
                if key in kept:
                    np.testing.assert_array_equal(row, kept[key])
            assert len({records.metadata[records.keys.tolist().index(key)]["of"] for key in extra}) <= 1  # type: ignore[index]
            gallery.add(np.zeros((1, D), "f4"))
    assert commits > 5


GOOD = np.zeros((2, D), "f4")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"features": GOOD[:, :3]}, ValueError, "features: expected 6 columns, as the gallery has, got 3"),
        ({"features": GOOD * np.nan}, ValueError, "features: 12 NaN or infinite values"),
        ({"features": GOOD, "ids": [1]}, ValueError, r"ids: expected shape \(2,\)"),
        ({"features": GOOD, "ids": [0.5, 1]}, TypeError, "ids: expected integers of 64 bits, got float64"),
        ({"features": GOOD, "timestamps": ["a", "b"]}, TypeError, "timestamps: expected numbers"),
        ({"features": GOOD, "timestamps": [0, np.inf]}, ValueError, "timestamps: expected finite numbers"),
        ({"features": GOOD, "metadata": [{}]}, ValueError, "metadata: expected 2 objects"),
        ({"features": GOOD, "metadata": [{}, 3]}, TypeError, "metadata: row 1: expected a JSON object"),
        ({"features": GOOD, "metadata": [{}, {"a": {1}}]}, TypeError, "metadata: row 1: expected what JSON can hold"),
    ],
)
def test_bad_items(tmp_path: Path, arguments: Any, error: type[Exception], message: str) -> None:
    with Gallery(tmp_path / "g", columns=D) as gallery:
        with pytest.raises(error, match=message):
            gallery.add(**arguments)
        assert len(gallery) == 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"query": GOOD[:, :3]}, ValueError, "query: expected 6 columns"),
        ({"query": GOOD * np.nan}, ValueError, "query: 12 NaN"),
        ({"query": GOOD, "k": 0}, ValueError, "k: expected at least 1, got 0"),
        ({"query": GOOD, "k": "1"}, TypeError, "k: expected an integer"),
        ({"query": GOOD, "ids": "a"}, TypeError, "ids: expected an integer or a list"),
        ({"query": GOOD, "time_range": 3}, TypeError, "time_range: expected a pair"),
        ({"query": GOOD, "time_range": (3, 2)}, ValueError, "time_range: expected the first time"),
        ({"query": GOOD, "metadata": "red"}, TypeError, "metadata: expected values by name"),
        ({"query": GOOD, "where": 3}, TypeError, "where: expected a callable"),
    ],
)
def test_bad_searches(tmp_path: Path, arguments: Any, error: type[Exception], message: str) -> None:
    with Gallery(tmp_path / "g", columns=D) as gallery:
        assert gallery.search(GOOD).keys.shape == (2, 0)
        with pytest.raises(error, match=message):
            gallery.search(**arguments)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
def test_faiss(tmp_path: Path, metric: Any) -> None:
    pytest.importorskip("faiss", reason="the extra faiss is not installed")
    rng = np.random.default_rng(0)
    query = rng.standard_normal((20, D)).astype("f4")
    with Gallery(tmp_path / "g", columns=D, metric=metric) as gallery:
        with pytest.raises(ValueError, match="gallery: expected at least one item"):
            FaissIndex.build(gallery)
        keys = gallery.add(rng.standard_normal((2000, D)))
        gallery.remove(keys[:10])
        exact = gallery.search(query, 10)
        flat = FaissIndex.build(gallery, "flat")
        distances, found = flat.search(query, 10)
        np.testing.assert_allclose(distances, exact.distances, rtol=1e-4, atol=1e-5)
        assert (found == exact.keys).mean() > 0.99
        assert flat.recall(query) > 0.99
        few, many = (FaissIndex.build(gallery, "ivf", nprobe=nprobe) for nprobe in (1, 50))
        assert few.recall(query) < 0.95 < many.recall(query)
        assert FaissIndex.build(gallery, "hnsw").recall(query) > 0.9
        distances, found = FaissIndex.build(gallery, "ivf", nlist=50, nprobe=1).search(query, 500)
        assert ((found < 0) == np.isinf(distances)).all()
        assert (found < 0).any()
        with pytest.raises(ValueError, match="nlist: expected at most 1990"):
            FaissIndex.build(gallery, nlist=3000)
        gallery.remove(keys[10])
        with pytest.raises(GalleryError, match="the gallery has changed since"):
            flat.search(query)
