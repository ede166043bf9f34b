"""A gallery in local files that survive a kill at any moment: mapped features, and a log that commits them."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
import threading
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, get_args

import numpy as np
import torch

from pyreid.errors import GalleryError
from pyreid.ops._checks import Metric
from pyreid.ops.distance_tiles import as_tensor, squared_norms
from pyreid.retrieval.search import search_rows
from pyreid.retrieval.stores import files
from pyreid.retrieval.stores.base import Filter, Item, Records
from pyreid.retrieval.stores.log import DamageError, pack, unpack
from pyreid.retrieval.stores.metadata_columns import MetadataColumns

_FORMAT = 1
_GATHER_BYTES = 256 * 2**20  # a filter's rows up to these are searched as a copy, if they are few
_GATHER_SHARE = 4  # few: at most one of these
_BLOCK_ROWS = 4096  # copied at a time by a compaction
_GENERATION_FILE = re.compile(r"(log|features)\.\d+")


class LocalStore:
    """Items in a folder; ``docs/search.md`` has the format.

    Args:
        path: the folder; a new one is made if ``columns`` is given.
        columns: D; None to take that of the folder.
        metric: of the distances; None to take that of the folder, or euclidean.
        read_only: open without the lock of the writer. Shows what was committed then; the folder must exist.

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

    def _open(self) -> None:
        for attempt in range(5):  # a compaction may remove the files between two reads
            settings = self._manifest()
            self.columns: int = settings["columns"]
            self.metric: Metric = settings["metric"]
            self._generation: int = settings["generation"]
            try:
                content = self._log.read_bytes()
                if self._file is not None:
                    self._file.close()
                self._file = self._features.open("rb")  # stays readable when a compaction removes its name
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
        assert self._file is not None
        size = os.fstat(self._file.fileno()).st_size
        if size < len(self._keys) * self._row_bytes:
            raise GalleryError(
                f"{self._features}: expected {len(self._keys) * self._row_bytes} bytes for {len(self._keys)} rows of "
                f"the log, got {size}"
            )
        if not self.read_only:  # what a killed writer left
            files.cut(self._log, self._committed)
            files.cut(self._features, len(self._keys) * self._row_bytes)
            (self.path / ".manifest.new").unlink(missing_ok=True)
            for file in self._generation_files():
                if file not in (self._log, self._features):
                    file.unlink()

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

    def _manifest(self) -> dict[str, Any]:
        path = self.path / "manifest.json"
        try:
            found: dict[str, Any] = json.loads(path.read_bytes())
            if found["format"] != _FORMAT:
                raise GalleryError(f"{path}: expected format {_FORMAT}, got {found['format']}")
            columns, metric, generation = (found[name] for name in ("columns", "metric", "generation"))
            if type(columns) is not int or type(generation) is not int or columns < 1 or generation < 0:
                raise ValueError(f"columns {columns!r}, generation {generation!r}")
            if metric not in get_args(Metric):
                raise ValueError(f"metric {metric!r}")
        except (ValueError, KeyError, TypeError) as error:
            raise GalleryError(f"{path}: no manifest of a gallery ({error})") from error
        return found

    def _write_manifest(self, columns: int, metric: str, generation: int, records: Iterable[bytes] = ()) -> None:
        """Make a generation the current one: its log first, then the manifest, by a rename."""
        files.write(self.path / f"log.{generation}", records, "wb")
        files.write(self.path / f"features.{generation}", (), "ab")
        content = {"format": _FORMAT, "columns": columns, "metric": metric, "generation": generation}
        temporary = self.path / ".manifest.new"
        files.write(temporary, [json.dumps(content, indent=2).encode() + b"\n"], "wb")
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
                file.flush()
                os.fsync(file.fileno())
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
