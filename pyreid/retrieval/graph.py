"""The graph of nearest neighbors as a thing of its own: exact or from faiss, made once and used for several methods."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pyreid.errors import require
from pyreid.ops._checks import Metric
from pyreid.ops.k_reciprocal import pair_distances
from pyreid.ops.set_neighbors import set_neighbors
from pyreid.retrieval.faiss_graph import faiss_lists, rows_distances
from pyreid.retrieval.joint_features import JointFeatures

_log = logging.getLogger(__name__)
_CHECKED_ROWS = 64  # of a graph, against the features that it is used with
_LEAST_RECALL = 0.9  # without a warning
Farthest = Literal["exact", "sampled"]


@dataclass(frozen=True, slots=True)
class NeighborGraph:
    """The nearest items of each item of a joint set, queries before the gallery.

    Made by :meth:`exact` or :meth:`faiss`; used by ``k_reciprocal(graph=...)``, ``KReciprocal(graph=...)``,
    :func:`pyreid.retrieval.query_expansion` and :func:`pyreid.retrieval.database_augmentation`.

    Attributes:
        indices: (N, K) int32 on the CPU. An item is in its own list, as a rule the first; where K or more others are
            equal to it, the indices decide.
        distances: (N, K) squared Euclidean distances, of the normalised rows for cosine: twice ``1 - cos``.
        num_query: how many of the N items are queries; they are the first.
        metric: what the lists were made for; ``"euclidean"`` and ``"sqeuclidean"`` have the same lists.
        farthest: (N,) squared distance of the farthest item of the set, or an estimate that is not above it but for
            rounding.
        farthest_kind: ``"exact"``, or ``"sampled"`` for the estimate: the maximum over the items that lie farthest from
            the mean of all and a seeded sample of the others.
        source: what made the lists, in words.
        recall: the measured part of the entries that are right; None for exact lists, which are all right.
        farthest_ratio: the measured mean of ``farthest`` over the exact value; None where it is exact.
        sampled_rows: how many rows both were measured on; 0 if nothing had to be.
        seed: of the samples.
    """

    indices: Tensor = field(repr=False)
    distances: Tensor = field(repr=False)
    num_query: int
    metric: Metric
    farthest: Tensor = field(repr=False)
    farthest_kind: Farthest = "exact"
    source: str = "exact"
    recall: float | None = None
    farthest_ratio: float | None = None
    sampled_rows: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.indices.dim() != 2 or self.indices.dtype != torch.int32 or not self.indices.is_cpu:
            raise ValueError(
                f"indices: expected a 2-D int32 tensor on the CPU, got {self.indices.dtype} of shape "
                f"{tuple(self.indices.shape)} on {self.indices.device}"
            )
        if self.distances.shape != self.indices.shape:
            raise ValueError(
                f"distances: expected shape {tuple(self.indices.shape)} to match indices, "
                f"got {tuple(self.distances.shape)}"
            )
        if self.farthest.shape != self.indices.shape[:1]:
            raise ValueError(
                f"farthest: expected shape ({len(self.indices)},) to match indices, got {tuple(self.farthest.shape)}"
            )
        if not 0 <= self.num_query <= len(self.indices):
            raise ValueError(f"num_query: expected 0 to {len(self.indices)}, got {self.num_query}")

    @property
    def num_items(self) -> int:
        """N, queries and gallery."""
        return self.indices.shape[0]

    @property
    def k(self) -> int:
        """How long the lists are."""
        return self.indices.shape[1]

    @property
    def is_exact(self) -> bool:
        """Whether lists and farthest distances are those of all pairs."""
        return self.recall is None and self.farthest_kind == "exact"

    @classmethod
    def exact(cls, query: Any, gallery: Any, k: int, *, metric: Metric = "euclidean") -> NeighborGraph:
        """The exact lists, and the exact farthest distances, from the inner products of all pairs.

        The same lists as :func:`pyreid.k_reciprocal` makes, bit for bit. Memory beside one copy of the features is that
        of the result and a strip of products.

        Args:
            query: (Q, D) features as for :func:`pyreid.k_reciprocal`; Q may be 0.
            gallery: (G, D).
            k: entries of a list, the item itself among them, from 1 to Q + G.
            metric: ``"cosine"`` normalises the rows first; ``"euclidean"`` and ``"sqeuclidean"`` are the same here.

        Raises:
            TypeError, ValueError: as :func:`pyreid.k_reciprocal`, and for a ``k`` out of range.
        """
        features = JointFeatures.of(query, gallery, metric, None)
        length = check_neighbors(k, len(features.x))
        lists = set_neighbors(features.x, features.norms, length, num_query=features.num_query)
        return cls(
            lists.indices,
            list_distances(features.x, lists.indices),
            features.num_query,
            metric,
            features.farthest_distances(lists),
        )

    @classmethod
    def faiss(
        cls,
        query: Any,
        gallery: Any,
        k: int,
        *,
        index: str = "PQ",
        parameters: str | None = None,
        metric: Metric = "euclidean",
        sample: int = 1000,
        seed: int = 0,
    ) -> NeighborGraph:
        """Approximate lists from a faiss index (the extra ``faiss``), with their measured recall.

        faiss proposes the items, in float32. Distances are then summed from the differences of the features, in the
        type of the computation; the item itself is one of the proposals whether faiss found it or not; and lists are
        in the order of (distance, index). Where an index finds fewer than ``k`` items, that list is made exactly.

        ``recall`` is measured on a seeded sample of rows against the exact engine: the part of their entries that are
        no farther than the exact list's last one. Below 0.9 a warning is logged, with the parameter to raise. The
        divisor of re-ranking, the farthest distance, would need all pairs: ``farthest`` is the maximum over up to 512
        items that lie farthest from the mean of all and a seeded sample of 512 others, and ``farthest_ratio`` its mean
        part of the exact distance, measured on the same rows.

        Lists from PQ and IVF indexes are the same in every run. faiss builds HNSW in several threads, whose order
        decides about links: lists of two runs may differ unless it has one thread.

        Args:
            query: (Q, D) features as for :func:`pyreid.k_reciprocal`; Q may be 0.
            gallery: (G, D).
            k: entries of a list, the item itself among them, from 1 to Q + G.
            index: ``"PQ"`` for ``"PQmx4fs,RFlat"`` with m = D / 2 (D if that is odd): codes of 4 bits for 2 columns,
                of which all are read, and features for the nearest by their codes; of less than 624 items all features
                are read (``"Flat"``). ``"IVF"`` for ``"IVFn,Flat"`` with n about sqrt(N), ``"HNSW32"``, or any string
                for faiss's ``index_factory``, such as ``"IVF4096,PQ64x4fs,RFlat"``.
            parameters: of the search, as faiss's ParameterSpace has them, for example ``"k_factor_rf=64"``,
                ``"nprobe=64"`` or ``"efSearch=256"``. None: ``16 k`` items by their codes, which found 0.95 of the
                neighbors of re-ID-like features (docs/re-ranking.md); 55 % of an IVF index's lists but 8 at least,
                which found 0.91; or the larger of 128 and ``2 k`` for HNSW. Features in clearly apart clusters need
                far fewer lists.
            metric: as for :meth:`exact`.
            sample: rows to measure on; all if there are fewer.
            seed: of the samples.

        Raises:
            MissingDependencyError: if faiss cannot be imported.
            TypeError, ValueError: as for :meth:`exact`; if faiss knows no such index or parameters, or ``sample`` is
                less than 1.
        """
        require("faiss", extra="faiss")
        for name, value, least in (("sample", sample, 1), ("seed", seed, 0)):
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise TypeError(f"{name}: expected an integer, got {type(value).__name__}")
            if value < least:
                raise ValueError(f"{name}: expected at least {least}, got {value}")
        features = JointFeatures.of(query, gallery, metric, None)
        length = check_neighbors(k, len(features.x))
        lists = faiss_lists(features, length, index=index, parameters=parameters, sample=int(sample), seed=int(seed))
        graph = cls(
            lists.indices,
            lists.distances,
            features.num_query,
            metric,
            lists.farthest,
            "sampled",
            lists.source,
            lists.recall,
            lists.farthest_ratio,
            lists.sampled_rows,
            int(seed),
        )
        _log.info("%s", graph)
        if lists.recall < _LEAST_RECALL:
            _log.warning(
                "recall@%d is %.2f, below %.1f: raise %s (parameters=) for more, or use NeighborGraph.exact; it is %s",
                graph.k,
                lists.recall,
                _LEAST_RECALL,
                lists.breadth,
                lists.source,
            )
        return graph

    def summary(self) -> str:
        """One line for people, with the measured recall."""
        parts = [
            f"{self.num_items} items, {self.num_query} of them queries",
            f"{self.k} neighbors each, {self.metric}, {self.source}",
        ]
        if self.recall is not None:
            parts.append(f"recall@{self.k} {self.recall:.4f} on {self.sampled_rows} rows (seed {self.seed})")
        ratio = "" if self.farthest_ratio is None else f", {self.farthest_ratio:.4f} of the exact distance"
        parts.append(f"farthest {self.farthest_kind}{ratio}")
        return "NeighborGraph: " + "; ".join(parts)

    def __str__(self) -> str:
        return self.summary()

    def settings(self) -> dict[str, Any]:
        """What made the graph, for the settings of a result."""
        return {
            "source": self.source,
            "k": self.k,
            "recall": self.recall,
            "farthest": self.farthest_kind,
            "farthest_ratio": self.farthest_ratio,
            "seed": self.seed,
        }

    def check(self, x: Tensor, num_query: int, cosine: bool, length: int) -> None:
        """Raise ValueError unless this can be the graph of the joint features ``x``, with lists of ``length`` items.

        The distances of some rows are computed anew: a graph of other features would give results without a sense.
        """
        expected = num_query, len(x) - num_query
        if (self.num_query, self.num_items - self.num_query) != expected:
            raise ValueError(
                f"graph: expected one of {expected[0]} queries and {expected[1]} gallery items, got "
                f"{self.num_query} and {self.num_items - self.num_query}"
            )
        if (self.metric == "cosine") != cosine:
            raise ValueError(f"graph: expected one for the metric of the call, got one for {self.metric!r}")
        if self.k < length:
            raise ValueError(f"graph: expected lists of at least {length} items for these k1 and k2, got {self.k}")
        count = min(_CHECKED_ROWS, len(x))
        rows = torch.arange(count, device="cpu") * (len(x) - 1) // max(1, count - 1)
        lists = self.indices[rows]
        want = rows_distances(x, rows, lists)
        if bool(((want - self.distances[rows]).abs() > self._rounding(x, rows, lists, want)).any()):
            raise ValueError("graph: expected the neighbors of these features, got other distances than they have")

    def _rounding(self, x: Tensor, rows: Tensor, lists: Tensor, distances: Tensor) -> Tensor:
        """(R, K) what the distances of these features may differ by when they are computed again.

        A sum of D squared differences has a relative error, wherever the features lie. An error of the features
        themselves goes by their length, and there is one only if they were normalised, or if the graph is of another
        type.
        """
        coarser = max(torch.finfo(dtype).eps for dtype in (x.dtype, self.distances.dtype))
        relative = (x.shape[1] + 4) * coarser * distances
        if self.metric != "cosine" and self.distances.dtype == x.dtype:
            return relative
        lengths = x[rows].norm(dim=1)[:, None] + torch.stack([x[list_.long()].norm(dim=1) for list_ in lists])
        moved = 2 * coarser * lengths
        return relative + moved * (2 * distances.sqrt() + moved)


def check_neighbors(k: object, items: int) -> int:
    """``k`` as an integer, checked to be a list's length in a set of so many items."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer):
        raise TypeError(f"k: expected an integer, got {type(k).__name__}")
    if not 1 <= k <= items:
        raise ValueError(f"k: expected 1 to {items}, the rows of query and gallery, got {k}")
    return int(k)


def list_distances(x: Tensor, indices: Tensor) -> Tensor:
    """(N, K) squared distances of (N, D) ``x`` to the items of the lists, summed from differences."""
    starts = torch.arange(len(x) + 1, device=x.device) * indices.shape[1]
    return pair_distances(x, starts, indices.flatten()).view(indices.shape)
