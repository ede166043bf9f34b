"""Local files of a gallery in bad hands: kills at every step, foreign and damaged files, several writers."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyreid.errors import GalleryError
from pyreid.retrieval import Gallery
from pyreid.retrieval.stores import files, local
from pyreid.retrieval.stores.base import Records
from pyreid.retrieval.stores.local import LocalStore

D = 3


def items(count: int, first: int) -> Records:
    """Features that tell an item's key."""
    features = np.arange(first, first + count, dtype="f4")[:, None].repeat(D, axis=1)
    numbers = np.arange(first, first + count)
    metadata = [{"key": int(number)} for number in numbers]
    return Records(features, numbers, numbers, numbers.astype(float), metadata, np.empty(0, np.int64))


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.name != "lock"}


def use(path: Path, done: Callable[[list[int]], None]) -> None:
    """Adds, a removal and a compaction; tells after each what is there. Without torch, whose threads do not fork."""
    store = LocalStore(path, columns=D)
    done([])
    store.add(items(4, 0))
    done([0, 1, 2, 3])
    store.remove(np.array([1, 2]))
    done([0, 3])
    store.add(items(2, 4))
    done([0, 3, 4, 5])
    store.compact()
    done([0, 3, 4, 5])
    store.add(items(1, 6))
    done([0, 3, 4, 5, 6])
    store.close()


def die_at(step: int, half: bool) -> None:
    """Let this process end at the given one of the calls that change files, before it or in the middle of it."""
    calls = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == step:
                if half and function is write:
                    path, parts, mode = arguments
                    whole = b"".join(parts)
                    write(path, [whole[: len(whole) // 2]], mode)
                elif half:
                    function(*arguments, **options)
                os._exit(9)
            return function(*arguments, **options)

        return call

    write = files.write
    files.write, files.cut, files.sync_folder = (counted(f) for f in (write, files.cut, files.sync_folder))
    Path.replace, Path.unlink = counted(Path.replace), counted(Path.unlink)  # type: ignore[method-assign]


def test_a_kill_at_every_step_loses_nothing_committed(tmp_path: Path) -> None:
    states: list[list[int]] = []
    use(tmp_path / "whole", states.append)
    ended, step, dropped = False, 0, 0
    while not ended:
        step += 1
        for half in (False, True):
            path, told = tmp_path / f"{step}{half}", tmp_path / f"{step}{half}.told"
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    die_at(step, half)
                    with told.open("a") as file:
                        use(path, lambda keys: print(json.dumps(keys), file=file, flush=True))
                    code = 0
                finally:
                    os._exit(code)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert code in (0, 9)
            lines = told.read_text().splitlines()
            ended = code == 0
            assert ended == (len(lines) == len(states))
            held = sizes(path)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                store = LocalStore(path, columns=D)
            told_of = {tuple(re.findall(r"(\S+): drops the last (\d+) bytes", str(each.message))) for each in caught}
            now = sizes(path)  # the files of another generation are no one's
            assert told_of == {
                ((str(name), str(held[name] - now[name])),) for name in now if now[name] < held.get(name, 0)
            }
            dropped += len(told_of)
            store.verify()
            allowed = states[max(0, len(lines) - 1) : len(lines) + 1]  # what it told, or what it was about to tell
            keys = store.keys().tolist()
            assert keys in allowed, (step, half)
            found = store.records(np.array(keys, np.int64))
            assert found.features[:, 0].tolist() == keys
            assert found.metadata == [{"key": key} for key in keys]
            new = store.add(items(1, 100))
            assert new[0] == len({key for state in states[: states.index(keys) + 1] for key in state})
            store.close()
            assert LocalStore(path, read_only=True).keys().tolist() == [*keys, *new]
    assert step > 25
    assert dropped > 5


def sizes(folder: Path) -> dict[Path, int]:
    return {file: file.stat().st_size for file in folder.glob("*.[0-9]")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "gallery"
    store = LocalStore(path, columns=D)
    store.add(items(3, 0))
    store.close()
    return path


def record(head: dict[str, Any]) -> bytes:
    """A record with sound checksums."""
    import struct
    import zlib

    text = json.dumps(head).encode()
    payload = struct.pack("<Q", len(text)) + text
    start = struct.pack("<4sQI", b"PYRL", len(payload), zlib.crc32(payload))
    return start + struct.pack("<I", zlib.crc32(start)) + payload


MANIFEST = {"format": 1, "columns": D, "metric": "euclidean", "generation": 0}


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("manifest.json", lambda old: b"", "no manifest of a gallery"),
        ("manifest.json", lambda old: old[:-9], "no manifest of a gallery"),
        ("manifest.json", lambda old: b"\x89PNG\r\n\x1a\n\xff", "no manifest of a gallery"),
        ("manifest.json", lambda old: b"[1]", "no manifest of a gallery"),
        ("manifest.json", lambda old: b'{"format": 1}', "no manifest of a gallery .*columns"),
        ("manifest.json", lambda old: json.dumps(MANIFEST | {"format": 2}).encode(), "expected format 1, got 2"),
        ("manifest.json", lambda old: json.dumps(MANIFEST | {"columns": "3"}).encode(), "columns '3'"),
        ("manifest.json", lambda old: json.dumps(MANIFEST | {"columns": 0}).encode(), "columns 0"),
        ("manifest.json", lambda old: json.dumps(MANIFEST | {"generation": None}).encode(), "generation None"),
        ("manifest.json", lambda old: json.dumps(MANIFEST | {"metric": "l1"}).encode(), "metric 'l1'"),
        ("log.0", lambda old: b"a log of another program\n" * 3, "damaged at byte 0, not as an interrupted write"),
        ("log.0", lambda old: bytes([old[0] ^ 1]) + old[1:], "damaged at byte 0, not as an interrupted write"),
        ("log.0", lambda old: old[:6] + b"\x01" + old[7:], "damaged at byte 0, not as an interrupted write"),
        ("log.0", lambda old: old[:50] + b"\x01" + old[51:], "damaged at byte 0, not as an interrupted write"),
        ("log.0", lambda old: old + b"more", "damaged at byte .*, not as an interrupted write"),
        ("log.0", lambda old: old + record({"op": "move", "count": 0}), "a record of another version or program"),
        ("log.0", lambda old: old + record({"op": "add", "count": 0}), "a record of another version or program"),
        ("log.0", lambda old: old + record({"op": "remove", "count": 2}), "a record of another version or program"),
        ("log.0", lambda old: old + removal(7), "a record removes what is not there"),
        ("features.0", lambda old: old[:-1], "expected 36 bytes for 3 rows of the log, got 35"),
        ("features.0", lambda old: b"", "expected 36 bytes for 3 rows of the log, got 0"),
    ],
)
def test_a_foreign_or_damaged_file_is_named_and_left(
    folder: Path, name: str, spoil: Callable[[bytes], bytes], message: str
) -> None:
    (folder / name).write_bytes(spoil((folder / name).read_bytes()))
    before = content(folder)
    for read_only in (False, True):
        with pytest.raises(GalleryError, match=message) as caught:
            Gallery(folder, read_only=read_only)
        assert str(folder / name) in str(caught.value)
        assert content(folder) == before


def removal(key: int) -> bytes:
    from pyreid.retrieval.stores.log import pack

    return pack({"op": "remove"}, (np.array([key]),))


@pytest.mark.parametrize("name", ["log.0", "features.0"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(GalleryError, match=f"{name}: missing, though manifest.json names it"):
        Gallery(folder)


def test_an_end_of_zeros_is_that_of_an_interrupted_write(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A file system may have made the file longer before it wrote into it.
    log = folder / "log.0"
    old, new = log.read_bytes(), removal(1)
    monkeypatch.setattr(local, "_WRITING_SECONDS", 0)
    for written in range(0, len(new) - 8, 5):
        log.write_bytes(old + new[:written] + bytes(len(new) - written))
        message = f"log.0: leaves out the last {len(new)} bytes"
        with pytest.warns(UserWarning, match=message), Gallery(folder, read_only=True) as gallery:
            assert len(gallery) == 3
    message = f"log.0: drops the last {len(new)} bytes"
    with pytest.warns(UserWarning, match=message), Gallery(folder) as gallery:
        assert len(gallery) == 3
    assert log.read_bytes() == old


def test_no_gallery_is_made_over_one_that_lost_its_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    before = content(folder)
    with pytest.raises(GalleryError, match=r"(log|features)\.0: there is no manifest.json beside it"):
        Gallery(folder, columns=D)
    assert content(folder) == before


def test_other_files_in_the_folder_are_left(tmp_path: Path) -> None:
    names = ("features.npy", "log.txt", "log.0.txt", ".manifest.json.swp")
    for name in names:
        (tmp_path / name).write_text("mine")
    with Gallery(tmp_path, columns=D) as gallery:
        gallery.add(np.ones((2, D), "f4"))
        gallery.compact()
    with Gallery(tmp_path) as gallery:
        assert len(gallery) == 2
    assert [(tmp_path / name).read_text() for name in names] == ["mine"] * len(names)
    assert {file.name for file in tmp_path.iterdir()} == {*names, "features.1", "log.1", "manifest.json", "lock"}


def test_a_fork_does_not_write(folder: Path) -> None:
    # It has the parent's lock.
    store = LocalStore(folder)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            store.add(items(1, 3))
        except GalleryError as error:
            code = 7 if "opened by another process" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert store.add(items(1, 3)).tolist() == [3]
    with pytest.raises(GalleryError, match="another process or object writes"):
        LocalStore(folder)
    store.close()


def test_threads_write_one_after_the_other(folder: Path) -> None:
    store = LocalStore(folder)
    added: list[np.ndarray] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            for _ in range(10):
                keys = store.add(items(2, 0))
                added.append(keys)
                store.remove(keys[:1])
                store.records(keys[1:])
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(np.concatenate(added).tolist()) == list(range(3, 83))
    store.close()
    with Gallery(folder) as gallery:
        assert len(gallery) == 43
        gallery.verify()


def test_a_file_system_without_locks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*arguments: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(OSError, match="No locks available"):
        LocalStore(folder)


def test_an_interruption_after_the_commit_keeps_the_add(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What is in memory is then behind the disk: another add would overwrite the rows.
    store = LocalStore(folder)

    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "concatenate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.add(items(2, 3))
    monkeypatch.undo()
    for change in (lambda: store.add(items(1, 9)), lambda: store.remove(np.array([0])), store.compact):
        with pytest.raises(GalleryError, match="an earlier write failed; open the gallery again"):
            change()
    store.close()
    again = LocalStore(folder)
    again.verify()
    assert again.keys().tolist() == [0, 1, 2, 3, 4]
    again.close()


def test_a_compaction_that_fails_behind_the_rename(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The new files are the gallery, but this object still has the old ones: adds to these would be lost.
    store = LocalStore(folder)
    store.remove(np.array([1]))
    replace, sync = Path.replace, files.sync_folder

    def renamed(path: Path, target: Path) -> Path:
        def fails(folder: Path) -> None:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(files, "sync_folder", fails)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", renamed)
    with pytest.raises(OSError, match="Input/output error"):
        store.compact()
    monkeypatch.setattr(files, "sync_folder", sync)
    with pytest.raises(GalleryError, match="an earlier write failed"):
        store.add(items(1, 3))
    store.close()
    shutil.copytree(folder, folder.with_name("copy"))
    for path in (folder, folder.with_name("copy")):
        again = LocalStore(path)
        assert again.keys().tolist() == [0, 2]
        again.verify()
        again.close()


@pytest.mark.parametrize("what", ["ids", "cameras"])
@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ([1, -2], ValueError, "expected 0 or more, or -1 where unknown, got -2"),
        (np.array([1, 2**63], np.uint64), ValueError, "9223372036854775808 does not fit a 64-bit signed integer"),
        ([1, 2**63], TypeError, "expected integers of 64 bits, got float64"),
        ([1, 2**64], TypeError, "expected integers of 64 bits, got object"),
        ([1, -(2**63)], ValueError, "got -9223372036854775808"),
        (["1", "2"], TypeError, "expected integers of 64 bits, got <U1"),
        ([True, False], TypeError, "expected integers of 64 bits, got bool"),
        ([None, 1], TypeError, "expected integers of 64 bits, got object"),
        ([1.0, 2.0], TypeError, "expected integers of 64 bits, got float64"),
    ],
)
def test_numbers_that_do_not_fit_are_refused_before_anything_is_written(
    folder: Path, what: str, values: Any, error: type[Exception], message: str
) -> None:
    with Gallery(folder) as gallery:
        before = content(folder)
        with pytest.raises(error, match=f"{what}: .*{message}"):
            gallery.add(np.zeros((2, D), "f4"), **{what: values})
        assert content(folder) == before
        largest = [-1, 2**63 - 1]
        keys = gallery.add(np.zeros((2, D), "f4"), **{what: largest})
    with Gallery(folder) as gallery:
        assert getattr(gallery.get(keys), what).tolist() == largest


def test_large_numbers_do_not_become_others(folder: Path) -> None:
    with Gallery(folder) as gallery:
        gallery.add(np.zeros((1, D), "f4"))  # id -1
        query, large = np.zeros((1, D), "f4"), np.array([2**64 - 1], np.uint64)
        for call in (
            lambda: gallery.search(query, ids=large),
            lambda: gallery.search(query, cameras=large),
            lambda: gallery.remove(large),
            lambda: gallery.get(large),
        ):
            with pytest.raises(ValueError, match="18446744073709551615 does not fit"):
                call()
        assert len(gallery) == 4


def test_an_identity_removed_may_be_added_again(folder: Path) -> None:
    query = np.full((1, D), 9, "f4")
    with Gallery(folder) as gallery:
        for _ in range(3):
            old = gallery.search(query, ids=1).keys[0]
            gallery.remove(old)
            assert gallery.search(query, ids=1).keys.shape == (1, 0)
            new = gallery.add(query, ids=[1])
            assert gallery.search(query, ids=1).keys.tolist() == [new.tolist()]
            assert gallery.search(query, ids=1).distances.tolist() == [[0.0]]
            assert new > old
    with Gallery(folder) as gallery:
        hits = gallery.search(query, ids=1)
        assert hits.keys.tolist() == [[5]]
        assert hits.distances.tolist() == [[0.0]]
        assert len(gallery) == 3
