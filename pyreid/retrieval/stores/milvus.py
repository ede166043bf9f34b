"""A gallery in Milvus: a file of Milvus Lite or a server, by one code path."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from pyreid.errors import GalleryError, require
from pyreid.ops._checks import Metric
from pyreid.retrieval.stores.base import Filter, Item, Records, has_values

_METRICS = {"euclidean": "L2", "sqeuclidean": "L2", "cosine": "COSINE"}
_PREFIX = "features_"  # of the vectors' field; the metric follows, as Milvus Lite keeps no descriptions
_NO_TIME = -1.7976931348623157e308  # Milvus has no NaN
_ROWS_AT_A_TIME = 1000  # of a message; Milvus limits their size
_SEARCHES = 5  # before it is an error that other processes remove what was found


class MilvusStore:
    """Items in a collection of Milvus, found by its FLAT index.

    An add is one insert for each 1000 rows; Milvus makes each of them durable, not all together; if one fails, the
    rows before are deleted again, as far as Milvus still answers. Keys are those that
    Milvus gives.

    Args:
        path: a file, whose name ends in ``.db``, or a URI such as ``http://host:19530``.
        columns: D; None to take that of the collection.
        metric: of the distances; None to take that of the collection, or euclidean.
        collection: its name.
        options: for ``MilvusClient``, for example ``token``.

    Raises:
        MissingDependencyError: without pymilvus.
        GalleryError: if the collection has other columns or another metric, or Milvus fails.
        FileNotFoundError: if there is no file or no collection and ``columns`` is None.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        columns: int | None = None,
        metric: Metric | None = None,
        collection: str = "gallery",
        **options: Any,
    ) -> None:
        require("pymilvus", extra="milvus")
        from pyreid.retrieval.stores.milvus_client import Client

        self.version = 0
        self._path = path
        self._guard = threading.RLock()  # no removal by this object between a search and its records
        self._name = collection
        self._client = Client(path, create=columns is not None, options=options)
        try:
            self._open(path, columns, metric)
        except BaseException:
            self.close()
            raise

    def _open(self, path: str | os.PathLike[str], columns: int | None, metric: Metric | None) -> None:
        if not self._client.has_collection(self._name):
            if columns is None:
                raise FileNotFoundError(f"{path}: no collection {self._name}; give columns= to make one")
            self._create(columns, metric or "euclidean")
        self._client.load_collection(self._name)
        vectors = [
            field
            for field in self._client.describe_collection(self._name)["fields"]
            if field["name"].removeprefix(_PREFIX) in _METRICS
        ]
        if len(vectors) != 1:
            raise GalleryError(f"{path}: collection {self._name}: expected one of a gallery, got other fields")
        self._vector = str(vectors[0]["name"])
        self.columns = int(vectors[0]["params"]["dim"])
        self.metric: Metric = self._vector.removeprefix(_PREFIX)  # type: ignore[assignment]  # checked above
        for name, given, own in (("columns", columns, self.columns), ("metric", metric, self.metric)):
            if given is not None and given != own:
                raise GalleryError(f"{path}: {name}: expected {own}, as the gallery has, got {given}")

    def _create(self, columns: int, metric: Metric) -> None:
        from pymilvus import DataType

        schema = self._client.create_schema(auto_id=True)
        schema.add_field("key", DataType.INT64, is_primary=True)
        schema.add_field(_PREFIX + metric, DataType.FLOAT_VECTOR, dim=columns)
        schema.add_field("id", DataType.INT64)
        schema.add_field("camera", DataType.INT64)
        schema.add_field("timestamp", DataType.DOUBLE)
        schema.add_field("metadata", DataType.JSON)
        index = self._client.prepare_index_params()
        index.add_index(_PREFIX + metric, index_type="FLAT", metric_type=_METRICS[metric])
        self._client.create_collection(self._name, schema=schema, index_params=index, consistency_level="Strong")

    def __len__(self) -> int:
        return self._count("")

    def _count(self, expression: str) -> int:
        return int(self._client.query(self._name, filter=expression, output_fields=["count(*)"])[0]["count(*)"])

    def keys(self) -> np.ndarray:
        found = [row["key"] for row in self._rows("", ["key"])]
        return np.array(sorted(found), np.int64)

    def add(self, records: Records) -> np.ndarray:
        keys: list[int] = []
        times = np.where(np.isnan(records.timestamps), _NO_TIME, records.timestamps)
        for start in range(0, len(records), _ROWS_AT_A_TIME):
            rows = [
                {
                    self._vector: records.features[row].tolist(),
                    "id": int(records.ids[row]),
                    "camera": int(records.cameras[row]),
                    "timestamp": float(times[row]),
                    # As text: Milvus would read some numbers back as others, and has no null at the top.
                    "metadata": {"json": json.dumps(records.metadata[row])},
                }
                for row in range(start, min(start + _ROWS_AT_A_TIME, len(records)))
            ]
            try:
                keys += [int(key) for key in self._client.insert(self._name, rows)["ids"]]
            except BaseException:
                self._take_back(keys)
                raise
        self.version += 1
        return np.array(keys, np.int64)

    def _take_back(self, keys: list[int]) -> None:
        """Delete what an add that failed has inserted. The add's error is the news, also if Milvus fails here again."""
        self.version += 1
        with contextlib.suppress(Exception):
            for start in range(0, len(keys), _ROWS_AT_A_TIME):
                self._client.delete(self._name, ids=keys[start : start + _ROWS_AT_A_TIME])

    def remove(self, keys: np.ndarray) -> None:
        with self._guard:
            self.records(keys)
            for start in range(0, len(keys), _ROWS_AT_A_TIME):
                self._client.delete(self._name, ids=keys[start : start + _ROWS_AT_A_TIME].tolist())
            self.version += 1

    def records(self, keys: np.ndarray) -> Records:
        found: dict[int, dict[str, Any]] = {}
        for start in range(0, len(keys), _ROWS_AT_A_TIME):
            some = keys[start : start + _ROWS_AT_A_TIME].tolist()
            for row in self._client.query(self._name, filter=f"key in {some}", output_fields=["*"]):
                found[row["key"]] = row
        missing = [key for key in keys.tolist() if key not in found]
        if missing:
            raise KeyError(f"keys: no item {missing[0]}")
        rows = [found[key] for key in keys.tolist()]
        times = np.array([row["timestamp"] for row in rows], np.float64)
        return Records(
            np.array([row[self._vector] for row in rows], np.float32).reshape(len(rows), self.columns),
            np.array([row["id"] for row in rows], np.int64),
            np.array([row["camera"] for row in rows], np.int64),
            np.where(times == _NO_TIME, np.nan, times),
            [_metadata(row) for row in rows],
            np.array(keys, np.int64),
        )

    def search(self, query: torch.Tensor, k: int, filter: Filter, device: torch.device) -> tuple[np.ndarray, Records]:
        """As :class:`Store` says, with distances as Milvus rounds them.

        A search is several calls of Milvus; if another process removes a hit between them, the search is made again.

        Raises:
            GalleryError: if that happens each time.
        """
        with self._guard:
            expression = self._expression(filter)  # what where= kept stays kept
            for _ in range(_SEARCHES):
                nearest = self._nearest(query, k, expression)
                if nearest is None:
                    continue
                distances, keys = nearest
                different, places = np.unique(keys, return_inverse=True)
                places = places.reshape(keys.shape)
                try:
                    found = self.records(different)
                except KeyError:
                    continue
                break
            else:
                raise GalleryError(
                    f"{self._path}: other processes removed items while they were searched, {_SEARCHES} times in a row"
                )
        metadata = [copy.deepcopy(found.metadata[place]) for place in places.ravel().tolist()]
        none = np.empty((0, self.columns), np.float32)
        return distances, Records(
            none, found.ids[places], found.cameras[places], found.timestamps[places], metadata, keys
        )

    def _nearest(self, query: torch.Tensor, k: int, expression: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Distances and keys; None if there are fewer items now than when they were counted."""
        rows = (
            []
            if len(query) == 0
            else list(self._client.query(self._name, filter=expression, output_fields=["count(*)"]))
        )
        k = min(k, int(rows[0]["count(*)"])) if rows else 0
        distances = np.empty((len(query), k), np.float32)
        keys = np.empty((len(query), k), np.int64)
        for start in range(0, len(query) if k else 0, _ROWS_AT_A_TIME):
            part = query[start : start + _ROWS_AT_A_TIME].cpu().tolist()
            for row, hits in enumerate(self._client.search(self._name, data=part, filter=expression, limit=k), start):
                if len(hits) < k:
                    return None
                values = np.array([hit["distance"] for hit in hits], np.float64)
                values = 1 - values if self.metric == "cosine" else np.maximum(values, 0)
                values = np.sqrt(values) if self.metric == "euclidean" else values
                found = np.array([hit["key"] for hit in hits], np.int64)
                order = np.lexsort((found, values))
                distances[row], keys[row] = values[order], found[order]
        return distances, keys

    def close(self) -> None:
        self._client.close()

    def _expression(self, filter: Filter) -> str:
        """The conditions in Milvus' language. It knows no callables, so what these keep goes in by the keys."""
        parts = [
            f"{name} in {values.tolist()}"
            for name, values in (("id", filter.ids), ("camera", filter.cameras))
            if values is not None
        ]
        if filter.time_range is not None:
            first, last = filter.time_range
            parts.append(f"timestamp > {_NO_TIME!r}")
            parts += [f"timestamp >= {first!r}"] if np.isfinite(first) else []
            parts += [f"timestamp <= {last!r}"] if np.isfinite(last) else []
        expression = " and ".join(parts)
        if filter.metadata is None and filter.where is None:
            return expression
        keys = []
        for row in self._rows(expression, ["key", "id", "camera", "timestamp", "metadata"]):
            metadata, time = _metadata(row), row["timestamp"]
            if filter.metadata is not None and not has_values(metadata, filter.metadata):
                continue
            item = Item(row["key"], row["id"], row["camera"], np.nan if time == _NO_TIME else time, metadata or {})
            if filter.where is None or filter.where(item):
                keys.append(row["key"])
        return f"key in {keys}"

    def _rows(self, expression: str, fields: list[str]) -> Iterator[dict[str, Any]]:
        rows = self._client.query_iterator(
            self._name, batch_size=_ROWS_AT_A_TIME, filter=expression, output_fields=fields
        )
        try:
            while True:
                with self._client.translated():
                    batch = rows.next()
                if not batch:
                    return
                yield from batch
        finally:
            rows.close()


def _metadata(row: dict[str, Any]) -> dict[str, Any] | None:
    stored = row["metadata"]
    stored = json.loads(stored) if isinstance(stored, str) else stored
    found: dict[str, Any] | None = json.loads(stored["json"])
    return found
