"""A gallery in local files that survive a kill at any moment: mapped features, and a log that commits them."""

from __future__ import annotations

import contextlib
import copy
import os
import re
import threading
import time
import warnings
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from pyreid.errors import GalleryError
from pyreid.ops._checks import Metric
from pyreid.ops.distance_tiles import as_tensor, squared_norms
from pyreid.retrieval.search import search_rows
from pyreid.retrieval.stores import files
from pyreid.retrieval.stores.base import Filter, Item, Records
from pyreid.retrieval.stores.log import DamageError, pack, torn_items, unpack
from pyreid.retrieval.stores.manifest import pack_manifest, read_manifest
from pyreid.retrieval.stores.metadata_columns import MetadataColumns

_GATHER_BYTES = 256 * 2**20  # a filter's rows up to these are searched as a copy, if they are few
_GATHER_SHARE = 4  # few: at most one of these
_BLOCK_ROWS = 4096  # copied at a time by a compaction
_WRITING_SECONDS = 0.1  # in which a writer completes the record that a reader has seen half of
_GENERATION_FILE = re.compile(r"(log|features)\.\d+")


class LocalStore:
    """Items in a folder; ``docs/search.md`` has the format.

    Args:
        path: the folder; a new one is made if ``columns`` is given.
        columns: D; None to take that of the folder.
        metric: of the distances; None to take that of the folder, or euclidean.
        read_only: open without the lock of the writer. Shows what was committed then; the folder must exist.

    Warns:
        UserWarning: if an add or removal did not finish; tells the file and the bytes that are dropped.

    Raises:
        GalleryError: if another process writes to the folder, it is damaged, or has other columns or another metric.
        FileNotFoundError: if there is no gallery and it is not to be made.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        columns: int | None = None,
        metric: Metric | None = None,
        read_only: bool = False,
    ) -> None:
        self.path = Path(path)
        self.read_only = read_only
        self.version = 0
        self._lock: BinaryIO | None = None
        self._file: BinaryIO | None = None
        self._broken = False
        self._asking = False  # the caller's where=
        self._process = os.getpid()
        self._guard = threading.RLock()  # of all that is in memory
        manifest = self.path / "manifest.json"
        if not manifest.exists() and (read_only or columns is None):
            raise FileNotFoundError(f"{path}: no gallery; give columns= to make one")
        if not read_only:
            self.path.mkdir(parents=True, exist_ok=True)
            files.sync_folder(self.path.parent)
            self._lock = files.lock(self.path)
        try:
            if not manifest.exists():
                self._check_empty()
                self._write_manifest(int(columns or 0), metric or "euclidean", 0)
            self._open()
            for name, given, found in (("columns", columns, self.columns), ("metric", metric, self.metric)):
                if given is not None and given != found:
                    raise GalleryError(f"{path}: {name}: expected {found}, as the gallery has, got {given}")
        except BaseException:
            self.close()
            raise

    def _open(self, *, again: bool = False) -> None:
        for attempt in range(5):  # a compaction may remove the files between two reads
            settings = read_manifest(self.path / "manifest.json")
            self.columns: int = settings["columns"]
            self.metric: Metric = settings["metric"]
            self._generation: int = settings["generation"]
            try:
                if self._file is not None:
                    self._file.close()
                self._file = self._features.open("rb")  # stays readable when a compaction removes its name
                held = os.fstat(self._file.fileno()).st_size  # before the log is read: a writer may go on
                content = self._log.read_bytes()
                break
            except FileNotFoundError as error:
                if not self.read_only or attempt == 4:
                    raise GalleryError(f"{error.filename}: missing, though manifest.json names it") from error
        self._keys, self._ids, self._cameras = (np.empty(0, np.int64) for _ in range(3))
        self._times, self._alive = np.empty(0), np.empty(0, bool)
        self._metadata: list[dict[str, Any] | None] = []
        self._columns = MetadataColumns(self._metadata)
        self._sums: list[tuple[int, int]] = []  # rows and CRC-32 of each add
        self._next_key, self._committed = 0, 0
        self._norms: torch.Tensor | None = None
        adds: list[list[np.ndarray]] = []
        removed = []
        try:
            for head, columns, end in unpack(content):
                if head["op"] == "add":
                    adds.append(columns)
                    self._metadata.extend(head["metadata"] or [None] * head["count"])
                    self._sums.append((head["count"], head["features_crc32"]))
                    self._next_key = head["next_key"]
                else:
                    removed.append(columns[0])
                self._committed = end
        except DamageError as error:
            raise GalleryError(f"{self._log}: {error}; restore it from a copy") from None
        if adds:
            self._keys, self._ids, self._cameras, self._times = (np.concatenate(c) for c in zip(*adds, strict=True))
            self._alive = np.ones(len(self._keys), bool)
        for keys in removed:
            try:
                self._alive[self._rows(keys)] = False
            except KeyError as error:
                raise GalleryError(f"{self._log}: a record removes what is not there ({error})") from error
        torn, rows_end = len(content) - self._committed, len(self._keys) * self._row_bytes
        if torn and self.read_only and not again:
            time.sleep(_WRITING_SECONDS)
            return self._open(again=True)
        # Features come before their record, and one change after the other: what is behind the rows of the record that
        # is cut short belongs to later adds, which were committed.
        count = torn_items(content, self._committed, self._next_key) if torn else None
        if count is not None and held > rows_end + count * self._row_bytes:
            raise GalleryError(
                f"{self._log}: cut short at byte {len(content)}: {self._features} has rows of later adds, which were "
                "committed; restore it from a copy"
            )
        assert self._file is not None
        size = os.fstat(self._file.fileno()).st_size
        if size < rows_end:
            raise GalleryError(
                f"{self._features}: expected {rows_end} bytes for {len(self._keys)} rows of the log, got {size}"
            )
        does = "leaves out" if self.read_only else "drops"
        if torn:
            _warn(f"{self._log}: {does} the last {torn} bytes, of an add or removal that did not finish")
        if not self.read_only:  # what a killed writer left
            if size > rows_end:
                _warn(f"{self._features}: drops the last {size - rows_end} bytes, of an add that did not finish")
            files.cut(self._log, self._committed)
            files.cut(self._features, rows_end)
            (self.path / ".manifest.new").unlink(missing_ok=True)
            for file in self._generation_files():
                if file not in (self._log, self._features):
                    file.unlink()
        return None

    def _generation_files(self) -> list[Path]:
        return [file for file in self.path.iterdir() if _GENERATION_FILE.fullmatch(file.name)]

    def _check_empty(self) -> None:
        """Raise GalleryError rather than make a gallery over the files of one that has lost its manifest."""
        for file in self._generation_files():  # empty ones are those of a process killed before it made the manifest
            if file.stat().st_size:
                raise GalleryError(f"{file}: there is no manifest.json beside it; restore that, or move the files away")

    @property
    def _log(self) -> Path:
        return self.path / f"log.{self._generation}"

    @property
    def _features(self) -> Path:
        return self.path / f"features.{self._generation}"

    @property
    def _row_bytes(self) -> int:
        return 4 * self.columns

    def _write_manifest(self, columns: int, metric: str, generation: int, records: Iterable[bytes] = ()) -> None:
        """Make a generation the current one: its log first, then the manifest, by a rename."""
        files.write(self.path / f"log.{generation}", records, "wb")
        files.write(self.path / f"features.{generation}", (), "ab")  # new, or what a compaction has written: synced
        temporary = self.path / ".manifest.new"
        files.write(temporary, [pack_manifest(columns, metric, generation)], "wb")
        files.sync_folder(self.path)  # before the rename, so that the manifest never names what is not there
        temporary.replace(self.path / "manifest.json")
        files.sync_folder(self.path)

    def __len__(self) -> int:
        return int(self._alive.sum())

    def keys(self) -> np.ndarray:
        with self._guard:
            return self._keys[self._alive]

    def add(self, records: Records) -> np.ndarray:
        with self._writing():
            keys = np.arange(self._next_key, self._next_key + len(records))
            features = np.ascontiguousarray(records.features, "<f4")
            crc = zlib.crc32(features.tobytes())
            metadata = list(records.metadata)
            head = {
                "op": "add",
                "next_key": self._next_key + len(records),
                "features_crc32": crc,
                "metadata": metadata if any(m is not None for m in metadata) else None,
            }
            record = pack(head, (keys, records.ids, records.cameras, records.timestamps))
            # The features are on the disk before the record that commits them.
            self._append(self._features, features.tobytes(), len(self._keys) * self._row_bytes)
            self._commit(record)
            self._keys = np.concatenate([self._keys, keys])
            self._ids = np.concatenate([self._ids, records.ids])
            self._cameras = np.concatenate([self._cameras, records.cameras])
            self._times = np.concatenate([self._times, records.timestamps])
            self._alive = np.concatenate([self._alive, np.ones(len(keys), bool)])
            self._metadata.extend(metadata)
            self._sums.append((len(keys), crc))
            self._next_key += len(keys)
            if self._norms is not None:
                added = squared_norms(torch.from_numpy(features), device=torch.device("cpu"), dtype=torch.float32)
                self._norms = torch.cat([self._norms, added])
            self.version += 1
            return keys

    def remove(self, keys: np.ndarray) -> None:
        with self._guard:
            rows = self._rows(keys)
            with self._writing():
                self._commit(pack({"op": "remove"}, (keys,)))
                self._alive[rows] = False  # metadata stay until a compaction: a search may be about to return them
                self.version += 1

    def records(self, keys: np.ndarray) -> Records:
        with self._guard:
            rows = self._rows(keys)
            return Records(
                np.array(self._matrix()[rows]),
                self._ids[rows],
                self._cameras[rows],
                self._times[rows],
                [copy.deepcopy(self._metadata[row]) for row in rows.tolist()],  # the caller may change them
                self._keys[rows],
            )

    def search(self, query: torch.Tensor, k: int, filter: Filter, device: torch.device) -> tuple[np.ndarray, Records]:
        """As :class:`Store` says; exact, by :func:`pyreid.search`'s engine on the mapped features.

        A filter that leaves at most a quarter of the rows, and these within 256 MiB, has them copied and searched; for
        other filters and after removals all rows are multiplied, and the others left out of the ranking.
        """
        with self._guard:  # what a later add or removal leaves as it is
            selected = self._selected(filter)
            if self._norms is None:
                cpu = torch.device("cpu")
                self._norms = squared_norms(as_tensor("features", self._matrix()), device=cpu, dtype=torch.float32)
            matrix, norms, numbers = self._matrix(), self._norms, np.arange(len(self._keys))
            ids, cameras, times, metadata, keys = self._ids, self._cameras, self._times, self._metadata, self._keys

        def found(rows: np.ndarray) -> Records:
            known = [copy.deepcopy(metadata[row]) for row in rows.ravel().tolist()]
            none = np.empty((0, self.columns), np.float32)
            return Records(none, ids[rows], cameras[rows], times[rows], known, keys[rows])

        count = int(selected.sum())
        k = min(k, count)
        if k == 0 or len(query) == 0:
            return np.empty((len(query), k), np.float32), found(np.empty((len(query), k), np.int64))
        mask: torch.Tensor | None = None
        if count * _GATHER_SHARE <= len(keys) and count * self._row_bytes <= _GATHER_BYTES:
            matrix, norms, numbers = matrix[selected], norms[torch.from_numpy(selected)], numbers[selected]
        elif count < len(keys):
            mask = torch.from_numpy(selected)
        query_norms = squared_norms(query, device=device, dtype=torch.float32)
        distances, rows = search_rows(
            query,
            as_tensor("features", matrix),
            k,
            self.metric,
            query_norms=query_norms,
            gallery_norms=norms.to(device),
            selected=mask,
        )
        return distances.numpy(), found(numbers[rows.numpy()])

    def compact(self) -> None:
        """Rewrite the files without the items removed. A kill leaves the old files or the new ones."""
        with self._writing():
            rows = self._alive.nonzero()[0]
            matrix, generation, crc = self._matrix(), self._generation + 1, 0
            with (self.path / f"features.{generation}").open("wb") as file:
                for start in range(0, len(rows), _BLOCK_ROWS):
                    block = matrix[rows[start : start + _BLOCK_ROWS]].tobytes()
                    crc = zlib.crc32(block, crc)
                    file.write(block)
            head = {
                "op": "add",
                "next_key": self._next_key,
                "features_crc32": crc,
                "metadata": [self._metadata[row] for row in rows.tolist()],
            }
            columns = (self._keys[rows], self._ids[rows], self._cameras[rows], self._times[rows])
            self._write_manifest(self.columns, self.metric, generation, [pack(head, columns)])
            self._open()
            self.version += 1

    def verify(self) -> None:
        """Read all features and compare their checksums.

        Raises:
            GalleryError: if they are not what was added.
        """
        with self._guard:  # a compaction leaves the mapped file as it is
            matrix, sums, path = self._matrix(), list(self._sums), self._features
        start = 0
        for count, expected in sums:
            crc = 0
            for row in range(start, start + count, _BLOCK_ROWS):
                crc = zlib.crc32(matrix[row : min(row + _BLOCK_ROWS, start + count)].tobytes(), crc)
            if crc != expected:
                raise GalleryError(f"{path}: rows {start} to {start + count - 1} are damaged")
            start += count

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        if self._file is not None:
            self._file.close()  # maps stay
            self._file = None

    def _matrix(self) -> np.ndarray:
        """(N, D) features of all rows, also those removed, mapped."""
        if self._file is None:
            raise GalleryError(f"{self.path}: closed")
        if len(self._keys) == 0:
            return np.empty((0, self.columns), "<f4")
        return np.memmap(self._file, "<f4", "r", shape=(len(self._keys), self.columns))

    def _rows(self, keys: np.ndarray) -> np.ndarray:
        rows = np.searchsorted(self._keys, keys)
        inside = np.minimum(rows, max(0, len(self._keys) - 1))
        wrong = np.ones(len(keys), bool)
        if len(self._keys):
            wrong = (self._keys[inside] != keys) | ~self._alive[inside]
        if wrong.any():
            raise KeyError(f"keys: no item {int(keys[wrong.nonzero()[0][0]])}")
        return rows

    def _selected(self, filter: Filter) -> np.ndarray:
        selected = self._alive.copy()
        if filter.ids is not None:
            selected &= np.isin(self._ids, filter.ids)
        if filter.cameras is not None:
            selected &= np.isin(self._cameras, filter.cameras)
        if filter.time_range is not None:
            first, last = filter.time_range
            selected &= (self._times >= first) & (self._times <= last)
        if filter.metadata is not None:
            selected = self._columns.matching(filter.metadata, selected)
        if filter.where is not None:
            asking, self._asking = self._asking, True
            try:
                for row in selected.nonzero()[0].tolist():
                    item = Item(
                        int(self._keys[row]),
                        int(self._ids[row]),
                        int(self._cameras[row]),
                        float(self._times[row]),
                        copy.deepcopy(self._metadata[row] or {}),
                    )
                    selected[row] = bool(filter.where(item))
            finally:
                self._asking = asking
        return selected

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """One change at a time. After an error it is not known what is on the disk, so no other one may follow."""
        if self.read_only:
            raise GalleryError(f"{self.path}: opened read-only")
        if self._process != os.getpid():  # a fork has the parent's lock as well
            raise GalleryError(f"{self.path}: opened by another process; open it in this one")
        with self._guard:
            if self._lock is None:
                raise GalleryError(f"{self.path}: closed")
            if self._asking:  # the same thread; others wait for the guard
                raise GalleryError(f"{self.path}: where= of a search cannot change the gallery")
            if self._broken:
                raise GalleryError(f"{self.path}: an earlier write failed; open the gallery again")
            self._broken = True
            yield
            self._broken = False

    def _commit(self, record: bytes) -> None:
        self._append(self._log, record, self._committed)
        self._committed += len(record)

    def _append(self, path: Path, data: bytes, end: int) -> None:
        """Write behind ``end``, which is what is committed, to the disk itself."""
        try:
            files.cut(path, end)  # an add that failed may have left something
            files.write(path, [data], "ab")
        except BaseException:
            with contextlib.suppress(OSError):
                files.cut(path, end)
            raise


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=5)  # where the gallery is opened
