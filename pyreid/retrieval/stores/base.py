"""The interface of a gallery's store, and what goes through it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from pyreid.ops._checks import Metric

UNKNOWN = -1  # the identity or camera of an item that has none; an unknown time is NaN


@dataclass(frozen=True, slots=True)
class Item:
    """What is known about an item, for the callable of a filter."""

    key: int
    id: int
    camera: int
    timestamp: float
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Records:
    """N items.

    Attributes:
        features: (N, D) float32.
        ids: (N,) int64 identities, -1 where unknown.
        cameras: (N,) int64, -1 where unknown.
        timestamps: (N,) float64, NaN where unknown.
        metadata: N JSON objects; None where there is none.
        keys: (N,) int64; empty before a store has given them.
    """

    features: np.ndarray
    ids: np.ndarray
    cameras: np.ndarray
    timestamps: np.ndarray
    metadata: Sequence[dict[str, Any] | None]
    keys: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which items take part in a search: those that meet every condition that is not None.

    Attributes:
        ids: int64 identities, one of which the item has.
        cameras: int64 cameras, likewise.
        time_range: first and last timestamp, both included; infinite for an open side. Unknown times are outside.
        metadata: values by name; the item's metadata has each of these names with an equal value.
        where: called with each :class:`Item` that meets the other conditions.
    """

    ids: np.ndarray | None = None
    cameras: np.ndarray | None = None
    time_range: tuple[float, float] | None = None
    metadata: Mapping[str, Any] | None = None
    where: Callable[[Item], bool] | None = None


class Store(Protocol):
    """Keeps items and finds the nearest. Arguments are checked by the gallery."""

    @property
    def columns(self) -> int:
        """D of the features."""

    @property
    def metric(self) -> Metric:
        """Of the distances."""

    @property
    def version(self) -> int:
        """Another number after each change that this object has made or seen."""

    def __len__(self) -> int:
        """Items in the store."""

    def keys(self) -> np.ndarray:
        """(N,) int64 keys of all items, ascending."""

    def add(self, records: Records) -> np.ndarray:
        """Store items, all or none; durable on return. Returns their new (N,) int64 keys, larger than all before."""

    def remove(self, keys: np.ndarray) -> None:
        """Remove the items of these keys, which exist, all or none."""

    def records(self, keys: np.ndarray) -> Records:
        """The items of these keys, in this order.

        Raises:
            KeyError: if there is none of a key.
        """

    def search(self, query: torch.Tensor, k: int, filter: Filter, device: torch.device) -> tuple[np.ndarray, Records]:
        """(Q, K) float32 distances and the K nearest items that pass the filter, by (distance, key); K is the smaller
        one of ``k`` and their number. The records are those of one moment, whatever other threads change: (Q, K) keys,
        ids, cameras and timestamps, Q K metadata in the same order, no features."""

    def close(self) -> None:
        """Let go of files and connections."""


def has_values(metadata: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> bool:
    """Whether metadata holds all the wanted values. As in JSON, true is not 1."""
    if metadata is None:
        return not wanted
    return all(name in metadata and _equal(metadata[name], value) for name, value in wanted.items())


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(value, b[name]) for name, value in a.items())
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)
