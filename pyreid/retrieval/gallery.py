"""A gallery of features that lasts: add, remove, search with filters, in local files or in Milvus."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from pyreid.errors import GalleryError
from pyreid.ops._checks import Metric, check_choice
from pyreid.ops.feature_files import read_features
from pyreid.ops.features import checked_squared_norms, choose_device
from pyreid.retrieval.stores.base import UNKNOWN, Filter, Item, Records, Store
from pyreid.retrieval.stores.local import LocalStore

StoreKind = Literal["local", "milvus"]
_ROWS_AT_A_TIME = 8192  # of an add


@dataclass(frozen=True, slots=True)
class Hits:
    """What a search found: for each query the nearest items, nearest first.

    Attributes:
        distances: (Q, K) float32.
        keys: (Q, K) int64.
        ids: (Q, K) int64 identities, -1 where unknown.
        cameras: (Q, K) int64, -1 where unknown.
        timestamps: (Q, K) float64, NaN where unknown.
        metadata: for each query K JSON objects; None where there is none.
    """

    distances: np.ndarray
    keys: np.ndarray
    ids: np.ndarray
    cameras: np.ndarray
    timestamps: np.ndarray
    metadata: list[list[dict[str, Any] | None]]


class Gallery:
    """Features with identities, cameras, times and metadata, which are added, removed and searched.

    An item is known by its key, a number that the gallery gives it and never gives again. What :meth:`add` and
    :meth:`remove` have done is on the disk when they return.

    Args:
        path: a folder for ``store="local"``; for ``"milvus"`` a file, which Milvus Lite keeps, or the URI of a server.
        columns: D of the features. Needed for a new gallery; None: that of an existing one.
        metric: ``"euclidean"`` (of a new gallery), ``"sqeuclidean"`` or ``"cosine"``; None: that of an existing one.
        store: where it is kept.
        read_only: open local files beside the one process that may write. Shows what was committed when it was opened.
        options: of the store; for Milvus ``collection`` and what ``MilvusClient`` takes, for example ``token``.

    Raises:
        GalleryError: if another process writes to it, it is damaged, or has other columns or another metric.
        FileNotFoundError: if there is none and ``columns`` is not given.
        MissingDependencyError: for Milvus without pymilvus.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        columns: int | None = None,
        metric: Metric | None = None,
        store: StoreKind = "local",
        read_only: bool = False,
        **options: Any,
    ) -> None:
        check_choice("store", store, StoreKind)
        if metric is not None:
            check_choice("metric", metric, Metric)
        if columns is not None and (isinstance(columns, bool) or not isinstance(columns, int) or columns < 1):
            raise ValueError(f"columns: expected a positive integer, got {columns!r}")
        self._store: Store
        if store == "milvus":
            from pyreid.retrieval.stores.milvus import MilvusStore

            if read_only:
                raise ValueError("read_only: expected False, Milvus has no read-only galleries")
            self._store = MilvusStore(path, columns=columns, metric=metric, **options)
        else:
            if options:
                raise TypeError(f"{next(iter(options))}: expected no such option for local files")
            self._store = LocalStore(path, columns=columns, metric=metric, read_only=read_only)

    @property
    def columns(self) -> int:
        """D of the features."""
        return self._store.columns

    @property
    def metric(self) -> Metric:
        """Of the distances."""
        return self._store.metric

    @property
    def version(self) -> int:
        """Another number after each change through this object."""
        return self._store.version

    def __len__(self) -> int:
        return len(self._store)

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of files, the lock and connections."""
        self._store.close()

    def keys(self) -> np.ndarray:
        """(N,) int64 keys of all items, ascending."""
        return self._store.keys()

    def add(
        self,
        features: Any,
        *,
        ids: Any = None,
        cameras: Any = None,
        timestamps: Any = None,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
    ) -> np.ndarray:
        """Add items, all or none.

        Args:
            features: (N, D) floating-point numbers as for :func:`pyreid.search`; kept as float32.
            ids: (N,) integers from 0 to 2^63 - 1, -1 where unknown; None: all unknown.
            cameras: (N,) integers, likewise.
            timestamps: (N,) numbers, NaN where unknown; None: all unknown.
            metadata: N JSON objects, or None where an item has none.

        Returns:
            (N,) int64 keys, larger than all before. They are on the disk.

        Raises:
            TypeError: if features, ids, cameras or timestamps are not numbers, or metadata no JSON objects.
            ValueError: if shapes do not fit, features are NaN or infinite, or ids or cameras are out of range.
            GalleryError: if the gallery is read-only, closed, or was opened before this process was forked.
            OSError: if the disk is full; then nothing was added, and the gallery must be opened again.
        """
        matrix = read_features("features", features, may_be_empty=True)
        self._check_columns("features", matrix)
        checked_squared_norms("features", matrix, device=matrix.device, dtype=torch.float32)
        count = len(matrix)
        return self._store.add(
            Records(
                matrix.to(device="cpu", dtype=torch.float32).contiguous().numpy(),
                _integers("ids", ids, count),
                _integers("cameras", cameras, count),
                _times(timestamps, count),
                _objects(metadata, count),
                np.empty(0, np.int64),
            )
        )

    def remove(self, keys: Any) -> None:
        """Remove items, all or none.

        Raises:
            KeyError: if there is no item of a key; then none is removed.
            ValueError: if a key comes twice.
        """
        found = _keys(keys)
        if len(np.unique(found)) != len(found):
            raise ValueError("keys: expected different keys, got some twice")
        self._store.remove(found)

    def get(self, keys: Any) -> Records:
        """Features and all else of some items, in the order of the keys.

        Raises:
            KeyError: if there is no item of a key.
        """
        return self._store.records(_keys(keys))

    def search(
        self,
        query: Any,
        k: int = 10,
        *,
        ids: Any = None,
        cameras: Any = None,
        time_range: tuple[float | None, float | None] | None = None,
        metadata: Mapping[str, Any] | None = None,
        where: Callable[[Item], bool] | None = None,
        device: torch.device | str | None = None,
    ) -> Hits:
        """The nearest items of each query among those that meet all conditions given.

        Local files are searched exactly, by (distance, key).

        Args:
            query: (Q, D) features as for :func:`pyreid.search`.
            k: items for each query.
            ids: one identity or several; items have one of them.
            cameras: one camera or several, likewise.
            time_range: first and last timestamp, both included; None for an open side. Unknown times are outside.
            metadata: values by name, of JSON's types or NumPy scalars; an item's metadata has all of them. Numbers
                compare as in Python, but true is not 1.
            where: called with each :class:`Item` that meets the other conditions; truth keeps it.
            device: where to compute; None: where the queries are. Milvus computes where it runs.

        Returns:
            :class:`Hits` with K = ``k``, or the number of items that meet the conditions if that is smaller.

        Raises:
            TypeError: if the queries are not floating-point, or ``k`` or conditions are of another type.
            ValueError: if shapes do not fit, features are NaN or infinite, or ``k`` is not positive.
            GalleryError: if other processes remove items from Milvus during each of several tries.
        """
        matrix = read_features("query", query, may_be_empty=True)
        self._check_columns("query", matrix)
        if isinstance(k, bool) or not isinstance(k, int | np.integer):
            raise TypeError(f"k: expected an integer, got {type(k).__name__}")
        if k < 1:
            raise ValueError(f"k: expected at least 1, got {k}")
        chosen = choose_device(matrix, matrix, device)
        checked_squared_norms("query", matrix, device=chosen, dtype=torch.float32)
        if where is not None and not callable(where):
            raise TypeError(f"where: expected a callable, got {type(where).__name__}")
        conditions = Filter(_some("ids", ids), _some("cameras", cameras), _range(time_range), _values(metadata), where)
        matrix = matrix.to(device=chosen, dtype=torch.float32)
        distances, found = self._store.search(matrix, int(k), conditions, chosen)
        rows, width = found.keys.shape
        return Hits(
            distances,
            found.keys,
            found.ids,
            found.cameras,
            found.timestamps,
            [list(found.metadata[row * width : (row + 1) * width]) for row in range(rows)],
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Copy all items into new local files. They get new keys, from 0 on, in the order of the old ones.

        A copy that was not finished has fewer items, so look at its length after a kill. Items that others remove
        meanwhile may be left out.

        Raises:
            GalleryError: if there is a gallery already.
        """
        with Gallery(path, columns=self.columns, metric=self.metric) as copy:
            if len(copy):
                raise GalleryError(f"{path}: expected no gallery, found one of {len(copy)} items")
            keys = self.keys()
            for start in range(0, len(keys), _ROWS_AT_A_TIME):
                copy._store.add(self._left(keys[start : start + _ROWS_AT_A_TIME]))

    def _left(self, keys: np.ndarray) -> Records:
        """Those of the items that no one has removed meanwhile."""
        while True:
            try:
                return self._store.records(keys)
            except KeyError:
                left = keys[np.isin(keys, self._store.keys())]
                if len(left) == len(keys):
                    raise
                keys = left

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, read_only: bool = True) -> Gallery:
        """Open existing local files, by default beside a process that writes to them."""
        return cls(path, read_only=read_only)

    def compact(self) -> None:
        """Give back the space of removed items; keys stay. Local files only: Milvus does it on its own."""
        self._local("compact").compact()

    def verify(self) -> None:
        """Read all local files and compare checksums.

        Raises:
            GalleryError: if they are damaged.
        """
        self._local("verify").verify()

    def _local(self, name: str) -> LocalStore:
        if not isinstance(self._store, LocalStore):
            raise GalleryError(f"{name}: expected a gallery in local files")
        return self._store

    def _check_columns(self, name: str, matrix: torch.Tensor) -> None:
        if matrix.shape[1] != self.columns:
            raise ValueError(f"{name}: expected {self.columns} columns, as the gallery has, got {matrix.shape[1]}")


def _array(name: str, values: Any) -> np.ndarray:
    return values.cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def _as_int64(name: str, array: np.ndarray) -> np.ndarray:
    """Raises ValueError for what would become another number."""
    if array.dtype.kind == "u" and array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"{name}: {int(array.max())} does not fit a 64-bit signed integer")
    return array.astype(np.int64)


def _integers(name: str, values: Any, count: int) -> np.ndarray:
    if values is None:
        return np.full(count, UNKNOWN, np.int64)
    array = _array(name, values)
    if array.shape != (count,):
        raise ValueError(f"{name}: expected shape ({count},), one for each row of features, got {array.shape}")
    if array.dtype.kind not in "iu" and count:
        raise TypeError(f"{name}: expected integers of 64 bits, got {array.dtype}")
    integers = _as_int64(name, array)
    if count and integers.min() < UNKNOWN:
        raise ValueError(f"{name}: expected 0 or more, or {UNKNOWN} where unknown, got {integers.min()}")
    return integers


def _times(values: Any, count: int) -> np.ndarray:
    if values is None:
        return np.full(count, np.nan)
    array = _array("timestamps", values)
    if array.shape != (count,):
        raise ValueError(f"timestamps: expected shape ({count},), one for each row of features, got {array.shape}")
    if array.dtype.kind not in "iuf":
        raise TypeError(f"timestamps: expected numbers, got {array.dtype}")
    if np.isinf(array).any():
        raise ValueError("timestamps: expected finite numbers, or NaN where unknown, got infinity")
    return array.astype(np.float64)


def _objects(values: Any, count: int) -> list[dict[str, Any] | None]:
    if values is None:
        return [None] * count
    if isinstance(values, str | Mapping) or len(values) != count:
        raise ValueError(f"metadata: expected {count} objects, one for each row of features")
    objects = []
    for row, value in enumerate(values):
        if value is not None and not isinstance(value, Mapping):
            raise TypeError(f"metadata: row {row}: expected a JSON object or None, got {type(value).__name__}")
        try:  # what is read back later is what is kept now
            objects.append(None if value is None else json.loads(json.dumps(_as_json(value), allow_nan=False)))
        except (TypeError, ValueError) as error:
            raise TypeError(f"metadata: row {row}: expected what JSON can hold ({error})") from error
    return objects


def _keys(values: Any) -> np.ndarray:
    array = np.atleast_1d(_array("keys", values))
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise TypeError(f"keys: expected a list of integers, got {array.dtype} of shape {array.shape}")
    return _as_int64("keys", array)


def _some(name: str, values: Any) -> np.ndarray | None:
    if values is None:
        return None
    array = np.atleast_1d(_array(name, list(values) if isinstance(values, set | frozenset) else values))
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise TypeError(f"{name}: expected an integer or a list of integers, got {array.dtype} of shape {array.shape}")
    return _as_int64(name, array)


def _values(metadata: Any) -> dict[str, Any] | None:
    """Wanted values in the form in which items keep theirs."""
    if metadata is None:
        return None
    if not isinstance(metadata, Mapping):
        raise TypeError(f"metadata: expected values by name, got {type(metadata).__name__}")
    found = {}
    for name, value in metadata.items():
        if isinstance(value, np.ndarray | torch.Tensor):
            raise TypeError(f"metadata: {name}: expected a value of JSON's types, got {type(value).__name__}")
        found[name] = _as_json(value)
    return found


def _as_json(value: Any) -> Any:
    """As JSON gives it back: NumPy scalars are numbers, tuples lists. Names must be text: 1 and "1" would be one."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise TypeError(f"names must be text, got {name!r}")
        return {name: _as_json(item) for name, item in value.items()}
    return value


def _range(values: Any) -> tuple[float, float] | None:
    if values is None:
        return None
    try:
        first, last = values
        pair = (-np.inf if first is None else float(first), np.inf if last is None else float(last))
    except (TypeError, ValueError) as error:
        raise TypeError(f"time_range: expected a pair of numbers or None, got {values!r}") from error
    if not pair[0] <= pair[1]:
        raise ValueError(f"time_range: expected the first time not after the last, got {values!r}")
    return pair
