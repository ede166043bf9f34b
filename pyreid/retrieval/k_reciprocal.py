"""k-reciprocal re-ranking (Zhong et al., CVPR 2017) from features, in memory for the neighbors instead of the pairs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, overload

import numpy as np
import torch
from torch import Tensor

from pyreid.ops._checks import Metric, check_choice, computing_dtype
from pyreid.ops.features import as_features, checked_squared_norms, choose_device
from pyreid.ops.k_reciprocal import pair_distances, re_rank_strip
from pyreid.ops.nearest_neighbors import MOST_NEIGHBORS_ON_CUDA
from pyreid.ops.set_neighbors import SetNeighbors, query_strips, set_neighbors
from pyreid.retrieval.encoding import Compat, Encoding, check_parameters, encode, list_length

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

    Raises:
        TypeError: if ``k1`` or ``k2`` is no integer or ``lambda_value`` no number.
        ValueError: if a parameter is out of range.
    """

    k1: int = 20
    k2: int = 6
    lambda_value: float = 0.3
    compat: Compat = "official"

    def __post_init__(self) -> None:
        check_parameters(self.k1, self.k2, self.lambda_value, self.compat)

    def settings(self) -> dict[str, Any]:
        """The parameters by name, for the settings of a result."""
        return {
            "method": "k_reciprocal",
            "k1": int(self.k1),
            "k2": int(self.k2),
            "lambda_value": float(self.lambda_value),
            "compat": self.compat,
        }

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
        return _strips(_JointFeatures.of(query, gallery, metric, device), self)


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

    The results agree with those of the peers up to rounding, unless rounding decides about a neighbor, and so do those
    of a CPU and a CUDA device. They are the same for any number of threads, and the same bits with and without
    ``topk``.

    Args:
        query: (Q, D) features, float16, bfloat16, float32 or float64: a torch tensor, a NumPy array (also
            memory-mapped) or anything with DLPack. Computed in float32, or in float64 if either side is float64.
        gallery: (G, D) features; may differ from ``query`` in type.
        k1: neighbors, beside the item itself, among which reciprocal ones are looked for.
        k2: neighbors, the item itself included, whose encodings are averaged (local query expansion); 1: none.
        lambda_value: weight of the original distance, from 0 to 1; the Jaccard distance has the rest.
        topk: return only the ``topk`` nearest gallery items of each query; no (Q, G) matrix is made.
        device: where to compute; None: where the features are. On CUDA lists have at most 2048 neighbors.
        compat: see above.
        metric: ``"cosine"`` normalises the rows first (a row of zeros stays one); ``"euclidean"`` and ``"sqeuclidean"``
            are the same here.
        return_torch: return torch tensors, on the CPU, instead of NumPy arrays.

    Returns:
        (Q, G) distances in the type of the computation, or with ``topk`` the (Q, topk) distances, ascending, and
        (Q, topk) int64 gallery indices, ties in the order of the indices.

    Raises:
        TypeError: if features are not floating-point or a parameter is not a number.
        ValueError: if shapes do not fit, features are NaN, infinite or out of range, or a parameter is out of range.
    """
    method = KReciprocal(k1, k2, lambda_value, compat)
    features = _JointFeatures.of(query, gallery, metric, device)
    if topk is None:
        dense = _dense(features, method).cpu()
        return dense if return_torch else dense.numpy()
    if isinstance(topk, bool) or not isinstance(topk, int | np.integer):
        raise TypeError(f"topk: expected an integer or None, got {type(topk).__name__}")
    if not 1 <= topk <= features.num_gallery:
        raise ValueError(f"topk: expected 1 to {features.num_gallery}, the rows of gallery, got {topk}")
    distances, indices = (t.cpu() for t in _nearest(features, method, int(topk)))
    return (distances, indices) if return_torch else (distances.numpy(), indices.numpy())


@dataclass(frozen=True, slots=True)
class _JointFeatures:
    """Queries and gallery below one another, in the type of the computation.

    Attributes:
        x: (Q + G, D) contiguous.
        norms: (Q + G,) squared norms.
        num_query: Q.
        cosine: whether the rows were normalised.
    """

    x: Tensor
    norms: Tensor
    num_query: int
    cosine: bool

    @property
    def num_gallery(self) -> int:
        return len(self.x) - self.num_query

    @classmethod
    def of(cls, query: Any, gallery: Any, metric: Metric, device: torch.device | str | None) -> _JointFeatures:
        check_choice("metric", metric, Metric)
        q = as_features("query", query, may_be_empty=True)
        g = as_features("gallery", gallery, may_be_empty=True)
        if q.shape[1] != g.shape[1]:
            raise ValueError(f"gallery: expected {q.shape[1]} columns to match query, got shape {tuple(g.shape)}")
        chosen, dtype = choose_device(q, g, device), computing_dtype(q, g)
        sides = (("query", q), ("gallery", g))
        norms = [checked_squared_norms(name, f, device=chosen, dtype=dtype) for name, f in sides]
        x = torch.empty(len(q) + len(g), q.shape[1], dtype=dtype, device=chosen)
        x[: len(q)], x[len(q) :] = q, g
        joint = torch.cat(norms)
        if metric == "cosine":
            x *= torch.where(joint > 0, joint.rsqrt(), 0)[:, None]
            joint = checked_squared_norms("query and gallery", x, device=chosen, dtype=dtype)
        return cls(x, joint, len(q), metric == "cosine")


@dataclass(frozen=True, slots=True)
class _Graph:
    """All that re-ranks strips of inner products: encodings, and how products become distances.

    Attributes:
        encoding: of all items.
        offset: (G,) half the squared norms of the gallery.
        query_norms: (Q,) squared norms.
        limits: (Q,) the largest squared distance of each query.
        divisors: (Q,) what squared distances are divided by.
        method: the parameters.
    """

    encoding: Encoding
    offset: Tensor
    query_norms: Tensor
    limits: Tensor
    divisors: Tensor
    method: KReciprocal

    @classmethod
    def of(cls, features: _JointFeatures, method: KReciprocal, query_products: Tensor | None = None) -> _Graph:
        x, norms, num_query = features.x, features.norms, features.num_query
        length = list_length(method.k1, method.k2, len(x), method.compat)
        if x.is_cuda and length > MOST_NEIGHBORS_ON_CUDA:
            name, k = max(("k1", method.k1), ("k2", method.k2), key=lambda parameter: parameter[1])
            raise ValueError(
                f"{name}: expected lists of at most {MOST_NEIGHBORS_ON_CUDA} neighbors on CUDA, got {length} with "
                f"{name} = {k}; pass device='cpu'"
            )
        lists = set_neighbors(x, norms, length, num_query=num_query, query_products=query_products)
        largest = _farthest_distances(x, lists)

        def distances(starts: Tensor, columns: Tensor) -> Tensor:
            squared = pair_distances(x, starts, columns)
            if method.compat == "fastreid":
                return squared
            squared /= torch.where(largest > 0, largest, 1).repeat_interleave(starts.diff())
            return squared.square_() if method.compat == "torchreid" else squared

        encoding = encode(lists.indices, num_query, method.k1, method.k2, distances)
        limits = largest[:num_query]
        divisors = torch.full_like(limits, 2 if features.cosine else 1) if method.compat == "fastreid" else limits
        return cls(encoding, norms[num_query:] / 2, norms[:num_query], limits, divisors, method)

    def re_rank(self, values: Tensor, rows: slice) -> None:
        """Turn the (R, G) inner products of the queries ``rows`` into re-ranked distances, in place."""
        re_rank_strip(
            values,
            self.encoding.queries(rows),
            self.encoding.gallery,
            lambda_value=float(self.method.lambda_value),
            offset=self.offset,
            query_norms=self.query_norms[rows],
            limits=self.limits[rows],
            divisors=self.divisors[rows],
            squared=self.method.compat == "torchreid",
            clip=self.method.compat == "fastreid",
        )


def _farthest_distances(x: Tensor, lists: SetNeighbors) -> Tensor:
    """(N,) the largest squared distance of each item: exactly 0 if all items are equal."""
    return pair_distances(x, torch.arange(len(x) + 1, device=x.device), lists.farthest.int())


def _dense(features: _JointFeatures, method: KReciprocal) -> Tensor:
    out = features.x.new_empty((features.num_query, features.num_gallery))
    if out.numel():
        _Graph.of(features, method, query_products=out).re_rank(out, slice(0, features.num_query))
    return out


def _nearest(features: _JointFeatures, method: KReciprocal, topk: int) -> tuple[Tensor, Tensor]:
    lists = SetNeighbors.empty(features.num_query, topk, features.x.dtype, features.x.device)
    for rows, values in _strips(features, method):
        if topk <= _LONGEST_LIST[values.device.type]:
            lists.add(rows, values, 0)
        else:
            ranking = values.sort(dim=1, stable=True)
            lists.values[rows], lists.indices[rows] = ranking.values[:, :topk], ranking.indices[:, :topk].int()
    return lists.values, lists.indices.long()


def _strips(features: _JointFeatures, method: KReciprocal) -> Iterator[tuple[slice, Tensor]]:
    if features.num_query == 0 or features.num_gallery == 0:
        return
    graph = _Graph.of(features, method)
    for rows, products in query_strips(features.x, features.num_query):
        values = products[:, features.num_query :]
        graph.re_rank(values, rows)
        yield rows, values
