"""Approximate search by a faiss index over a gallery, with its recall measured against the exact search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from pyreid.errors import GalleryError, require
from pyreid.ops._checks import check_choice
from pyreid.ops.feature_files import read_features
from pyreid.ops.features import checked_squared_norms
from pyreid.retrieval.gallery import Gallery

Kind = Literal["flat", "ivf", "hnsw"]
_ROWS_AT_A_TIME = 8192
_MOST_TRAINING_ROWS = 256  # for each list, as faiss uses them


@dataclass(frozen=True, slots=True)
class FaissIndex:
    """An index of a gallery's items at one time; made by :meth:`build`.

    Attributes:
        kind: ``"flat"`` (exact), ``"ivf"`` or ``"hnsw"``.
        gallery: that was indexed.
        keys: (N,) int64 keys by the index's numbers.
        index: the faiss index.
        version: of the gallery when it was indexed.
    """

    kind: Kind
    gallery: Gallery
    keys: np.ndarray
    index: Any
    version: int

    @classmethod
    def build(
        cls,
        gallery: Gallery,
        kind: Kind = "ivf",
        *,
        nlist: int | None = None,
        nprobe: int = 8,
        links: int = 32,
        ef_search: int = 64,
    ) -> FaissIndex:
        """Index all items of a gallery; in memory they need 4 D bytes each, and 8 ``links`` more for HNSW.

        Args:
            gallery: not empty. For cosine its features are normalised.
            kind: of the index.
            nlist: lists of ``"ivf"``; None: 4 sqrt(N), with at least 39 items each.
            nprobe: lists that are searched; more find more.
            links: of a node of ``"hnsw"``.
            ef_search: candidates that ``"hnsw"`` keeps; more find more.

        Raises:
            MissingDependencyError: without faiss.
            ValueError: if the gallery is empty or an option is out of range.
            GalleryError: if items are removed meanwhile.
        """
        check_choice("kind", kind, Kind)
        require("faiss", extra="faiss")
        import faiss

        version = gallery.version  # before the keys: a change during the build makes the index refuse
        keys = gallery.keys()
        if len(keys) == 0:
            raise ValueError("gallery: expected at least one item, got none")
        lists = max(1, min(int(4 * len(keys) ** 0.5), len(keys) // 39)) if nlist is None else nlist
        for name, value in (("nlist", lists), ("nprobe", nprobe), ("links", links), ("ef_search", ef_search)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}: expected a positive integer, got {value!r}")
        if lists > len(keys):
            raise ValueError(f"nlist: expected at most {len(keys)}, the items of the gallery, got {lists}")
        columns = gallery.columns + 2 * (gallery.metric == "cosine")
        index: Any
        if kind == "flat":
            index = faiss.IndexFlatL2(columns)
        elif kind == "hnsw":
            index = faiss.IndexHNSWFlat(columns, links)
            index.hnsw.efSearch = ef_search
        else:
            index = faiss.IndexIVFFlat(faiss.IndexFlatL2(columns), columns, lists)
            index.nprobe = min(nprobe, lists)
            some = np.random.default_rng(0).permutation(len(keys))[: lists * _MOST_TRAINING_ROWS]
            index.train(_features(gallery, keys[np.sort(some)]))
        for start in range(0, len(keys), _ROWS_AT_A_TIME):
            index.add(_features(gallery, keys[start : start + _ROWS_AT_A_TIME]))
        return cls(kind, gallery, keys, index, version)

    def search(self, query: Any, k: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """About the nearest items of each query.

        Args:
            query: (Q, D) features as for :func:`pyreid.search`.
            k: items for each query; fewer are found if the lists searched hold fewer.

        Returns:
            (Q, k) float32 distances in the gallery's metric, infinite where nothing was found, and (Q, k) int64 keys,
            -1 there.

        Raises:
            GalleryError: if the gallery has changed since it was indexed.
            TypeError, ValueError: as :meth:`Gallery.search`.
        """
        if self.gallery.version != self.version:
            raise GalleryError("index: the gallery has changed since; build it anew")
        matrix = read_features("query", query, may_be_empty=True).to("cpu", torch.float32)
        if matrix.shape[1] != self.gallery.columns:
            raise ValueError(f"query: expected {self.gallery.columns} columns, got {matrix.shape[1]}")
        if isinstance(k, bool) or not isinstance(k, int | np.integer):
            raise TypeError(f"k: expected an integer, got {type(k).__name__}")
        if k < 1:
            raise ValueError(f"k: expected at least 1, got {k}")
        checked_squared_norms("query", matrix, device=torch.device("cpu"), dtype=torch.float32)
        values, rows = self.index.search(_ready(matrix.numpy(), self.gallery.metric, zero=1), int(k))
        if self.gallery.metric == "euclidean":
            values = np.sqrt(np.maximum(values, 0))
        elif self.gallery.metric == "cosine":
            values = values / 2  # |q - g|^2 of unit vectors is twice the distance
        missing = rows < 0
        return np.where(missing, np.inf, values).astype(np.float32), np.where(missing, -1, self.keys[rows])

    def recall(self, query: Any, k: int = 10) -> float:
        """The share of the exact ``k`` nearest items that the index finds, over the queries.

        Raises:
            ValueError: if there is no query.
        """
        matrix = read_features("query", query)
        _, found = self.search(matrix, k)
        exact = self.gallery.search(matrix, k).keys
        return float(np.mean([np.isin(e, f).mean() for e, f in zip(exact, found, strict=True)]))


def _features(gallery: Gallery, keys: np.ndarray) -> np.ndarray:
    try:
        found = gallery.get(keys)
    except KeyError as error:
        raise GalleryError("gallery: items were removed while it was indexed; build the index anew") from error
    return _ready(found.features, gallery.metric)


def _ready(features: np.ndarray, metric: str, *, zero: int = 0) -> np.ndarray:
    """For cosine unit vectors with two columns more: a row of zeros points along column ``zero`` of these, so that its
    distance is 1 from all, as in the gallery; items and queries use different ones."""
    features = np.ascontiguousarray(features, np.float32)
    if metric != "cosine":
        return features
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    units = np.divide(features, lengths, out=np.zeros_like(features), where=lengths > 0)
    more = np.zeros((len(units), 2), np.float32)
    more[lengths[:, 0] == 0, zero] = 1
    return np.concatenate([units, more], axis=1)
