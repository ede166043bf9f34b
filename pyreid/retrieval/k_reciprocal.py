"""k-reciprocal re-ranking (Zhong et al., CVPR 2017) from features, in memory for the neighbors instead of the pairs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, overload

import numpy as np
import torch
from torch import Tensor

from pyreid.ops._checks import Metric
from pyreid.ops.nearest_neighbors import MOST_NEIGHBORS_ON_CUDA
from pyreid.ops.set_neighbors import SetNeighbors, query_strips
from pyreid.retrieval.encoded_set import EncodedSet
from pyreid.retrieval.encoding import Compat, Parameters, check_parameters
from pyreid.retrieval.graph import NeighborGraph
from pyreid.retrieval.graph_re_ranking import nearest_by_graph
from pyreid.retrieval.joint_features import JointFeatures

# On the CPU items are inserted into lists one by one, which for long lists costs more than to sort all; on CUDA a list
# lies in shared memory.
_LONGEST_LIST = {"cpu": 256, "cuda": MOST_NEIGHBORS_ON_CUDA}


@dataclass(frozen=True, slots=True)
class KReciprocal:
    """k-reciprocal re-ranking as an option: ``pyreid.evaluate(..., rerank=KReciprocal())``.

    Attributes:
        k1: neighbors, beside the item itself, among which reciprocal ones are looked for.
        k2: neighbors, the item itself included, whose encodings are averaged (local query expansion); 1: none.
        lambda_value: weight of the original distance, from 0 to 1; the Jaccard distance has the rest.
        compat: whose results, see :func:`k_reciprocal`.
        graph: neighbors made before, for these queries and this gallery, see :func:`k_reciprocal`. Then only the
            queries are multiplied with the gallery.

    Raises:
        TypeError: if ``k1`` or ``k2`` is no integer, ``lambda_value`` no number, or ``graph`` no graph.
        ValueError: if a parameter is out of range.
    """

    k1: int = 20
    k2: int = 6
    lambda_value: float = 0.3
    compat: Compat = "official"
    graph: NeighborGraph | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_parameters(self.k1, self.k2, self.lambda_value, self.compat)
        if self.graph is not None and not isinstance(self.graph, NeighborGraph):
            raise TypeError(f"graph: expected a NeighborGraph or None, got {type(self.graph).__name__}")

    @property
    def parameters(self) -> Parameters:
        """All but the graph."""
        return Parameters(self.k1, self.k2, float(self.lambda_value), self.compat)

    def settings(self) -> dict[str, Any]:
        """The parameters by name, for the settings of a result."""
        return {
            "method": "k_reciprocal",
            "k1": int(self.k1),
            "k2": int(self.k2),
            "lambda_value": float(self.lambda_value),
            "compat": self.compat,
        } | ({} if self.graph is None else {"graph": self.graph.settings()})

    def strips(
        self, query: Any, gallery: Any, *, metric: Metric = "euclidean", device: torch.device | str | None = None
    ) -> Iterator[tuple[slice, Tensor]]:
        """Re-ranked distances in strips of queries, without the matrix of all.

        The whole set is searched for neighbors before the first strip. Then the queries are multiplied with the set
        again, strip by strip.

        Args:
            query: (Q, D) features as for :func:`k_reciprocal`.
            gallery: (G, D).
            metric: ``"cosine"`` normalises the rows first; ``"euclidean"`` and ``"sqeuclidean"`` are the same here.
            device: where to compute; None: where the features are.

        Returns:
            pairs ``(rows, distances)``: a slice of queries and their (R, G) distances on that device, valid until the
            next.

        Raises:
            TypeError, ValueError: as :func:`k_reciprocal`.
        """
        return _strips(JointFeatures.of(query, gallery, metric, device), self)


@overload
def k_reciprocal(
    query: Any,
    gallery: Any,
    *,
    k1: int = ...,
    k2: int = ...,
    lambda_value: float = ...,
    topk: None = ...,
    device: torch.device | str | None = ...,
    compat: Compat = ...,
    metric: Metric = ...,
    graph: NeighborGraph | None = ...,
    return_torch: Literal[False] = ...,
) -> np.ndarray: ...
@overload
def k_reciprocal(
    query: Any,
    gallery: Any,
    *,
    k1: int = ...,
    k2: int = ...,
    lambda_value: float = ...,
    topk: int,
    device: torch.device | str | None = ...,
    compat: Compat = ...,
    metric: Metric = ...,
    graph: NeighborGraph | None = ...,
    return_torch: Literal[False] = ...,
) -> tuple[np.ndarray, np.ndarray]: ...
@overload
def k_reciprocal(
    query: Any,
    gallery: Any,
    *,
    k1: int = ...,
    k2: int = ...,
    lambda_value: float = ...,
    topk: int | None = ...,
    device: torch.device | str | None = ...,
    compat: Compat = ...,
    metric: Metric = ...,
    graph: NeighborGraph | None = ...,
    return_torch: bool = ...,
) -> np.ndarray | Tensor | tuple[np.ndarray, np.ndarray] | tuple[Tensor, Tensor]: ...
def k_reciprocal(
    query: Any,
    gallery: Any,
    *,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    topk: int | None = None,
    device: torch.device | str | None = None,
    compat: Compat = "official",
    metric: Metric = "euclidean",
    graph: NeighborGraph | None = None,
    return_torch: bool = False,
) -> np.ndarray | Tensor | tuple[np.ndarray, np.ndarray] | tuple[Tensor, Tensor]:
    """Re-ranked distances between queries and gallery by k-reciprocal encoding.

    The method of Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding" (CVPR 2017), as their
    published Python code computes it, except that all matrices are sparse: beside one copy of the features in the type
    of the computation, memory is proportional to the number of items and neighbors, and 64 MiB (on CUDA 1 GiB), or 32
    rows, for products. All items, queries and gallery, take part in one graph of neighbors; so the result for a query
    depends on the other queries, as it does there.

    The distance in the sum is ``d(q, g)^2 / max_x d(q, x)^2`` with the Euclidean d and the maximum over all items, and
    so it is in the weights; where all items are equal it is 0. Neighbors are in the order of
    (``|y|^2 / 2 - x.y``, index), ties in the order of the indices, queries before the gallery. A set of no more than k1
    items is one in which all are neighbors. ``compat`` chooses between:

    - ``"official"``: zhunzhong07/person-re-ranking, given Euclidean distances, as its demonstration does. Its lists
      hold ``k1 + 1`` and ``round(k1 / 2) + 1`` items, the item itself among them, rounded half to even.
    - ``"torchreid"``: the same with the fourth power of the Euclidean distance where the other has its square:
      torchreid's evaluation passes squared distances to a function that squares them again.
    - ``"fastreid"``: what fast-reid computes from a working faiss: lists of ``k1`` items, the item itself among them;
      squared distances that are not divided by their maximum, neither in the weights nor in the sum; Jaccard distances
      clipped at 0. With ``metric="cosine"`` the sum has ``1 - cos(q, g)`` instead of the squared distance.

    With a ``graph`` no neighbors are searched. Without ``topk`` the queries are still multiplied with the gallery. With
    ``topk`` they are not: a gallery item that shares no column with the query's encoding (m = 0) is at
    ``(1 - lambda_value) + lambda_value d``, so the best come from those that share one and, in the order of d, from the
    query's list. Only where a list is too short to know is the gallery searched for that query:

    - With an exact graph, where an item outside both could be among the ``topk``. The result is that without a graph,
      up to rounding.
    - With an approximate graph, where both together have fewer than ``topk`` items. All distances are right for the
      encodings and divisors that the graph gives; what is limited by the graph is the encodings (its recall), the
      divisor (its ``farthest``, an estimate), and items with m = 0 beyond the end of the list, which may be missing
      where the last distance returned is above ``(1 - lambda_value) + lambda_value d`` of the list's last item.

    The results agree with those of the peers up to rounding, unless rounding decides about a neighbor, and so do those
    of a CPU and a CUDA device. They are the same for any number of threads, and without a graph the same bits with and
    without ``topk``.

    Args:
        query: (Q, D) features, float16, bfloat16, float32 or float64: a torch tensor, a NumPy array (also
            memory-mapped), anything with DLPack, a path or an iterator of chunks as for :func:`pyreid.evaluate`.
            Computed in float32, or in float64 if either side is float64.
        gallery: (G, D) features; may differ from ``query`` in type.
        k1: neighbors, beside the item itself, among which reciprocal ones are looked for.
        k2: neighbors, the item itself included, whose encodings are averaged (local query expansion); 1: none.
        lambda_value: weight of the original distance, from 0 to 1; the Jaccard distance has the rest.
        topk: return only the ``topk`` nearest gallery items of each query; no (Q, G) matrix is made.
        device: where to compute; None: where the features are. On CUDA lists have at most 2048 neighbors.
        compat: see above.
        metric: ``"cosine"`` normalises the rows first (a row of zeros stays one); ``"euclidean"`` and ``"sqeuclidean"``
            are the same here.
        graph: a :class:`pyreid.retrieval.NeighborGraph` of these features and this metric, with lists of at least
            ``max(k1 + 1, k2)`` items (``k1`` for fastreid), made once instead of at each call. On the CPU only.
        return_torch: return torch tensors, on the CPU, instead of NumPy arrays.

    Returns:
        (Q, G) distances in the type of the computation, or with ``topk`` the (Q, topk) distances, ascending, and
        (Q, topk) int64 gallery indices, ties in the order of the indices.

    Raises:
        TypeError: if features are not floating-point or a parameter is not a number.
        ValueError: if shapes do not fit, features are NaN, infinite or out of range, a parameter is out of range, or
            the graph is not one of these features, too short, or given together with a CUDA device.
    """
    method = KReciprocal(k1, k2, lambda_value, compat, graph)
    features = JointFeatures.of(query, gallery, metric, device)
    if topk is None:
        dense = _dense(features, method).cpu()
        return dense if return_torch else dense.numpy()
    if isinstance(topk, bool) or not isinstance(topk, int | np.integer):
        raise TypeError(f"topk: expected an integer or None, got {type(topk).__name__}")
    if not 1 <= topk <= features.num_gallery:
        raise ValueError(f"topk: expected 1 to {features.num_gallery}, the rows of gallery, got {topk}")
    if graph is None or features.num_query == 0:
        x = features.x
        found = nearest_in_strips(
            _strips(features, method), features.num_query, int(topk), dtype=x.dtype, device=x.device
        )
        distances, indices = (t.cpu() for t in found)
    else:
        distances, indices = nearest_by_graph(features, method.parameters, graph, int(topk))
    return (distances, indices) if return_torch else (distances.numpy(), indices.numpy())


def _dense(features: JointFeatures, method: KReciprocal) -> Tensor:
    out = features.x.new_empty((features.num_query, features.num_gallery))
    if out.numel():
        encoded = EncodedSet.of(features, method.parameters, method.graph, query_products=out)
        encoded.re_rank(out, slice(0, features.num_query))
    return out


def nearest_in_strips(
    strips: Iterator[tuple[slice, Tensor]],
    num_query: int,
    topk: int,
    *,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """(Q, topk) smallest distances of strips, ascending, and their int64 columns; ties in the order of the columns."""
    lists = SetNeighbors.empty(num_query, topk, dtype, device)
    for rows, values in strips:
        if topk <= _LONGEST_LIST[values.device.type]:
            lists.add(rows, values, 0)
        else:
            ranking = values.sort(dim=1, stable=True)
            lists.values[rows], lists.indices[rows] = ranking.values[:, :topk], ranking.indices[:, :topk].int()
    return lists.values, lists.indices.long()


def _strips(features: JointFeatures, method: KReciprocal) -> Iterator[tuple[slice, Tensor]]:
    if features.num_query == 0 or features.num_gallery == 0:
        return
    encoded = EncodedSet.of(features, method.parameters, method.graph)
    for rows, products in query_strips(features.x, features.num_query):
        values = products[:, features.num_query :]
        encoded.re_rank(values, rows)
        yield rows, values
