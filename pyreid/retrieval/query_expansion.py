"""Query expansion and database-side augmentation: features averaged with those of their nearest gallery items."""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np
import torch
from torch import Tensor

from pyreid.ops._checks import Metric, check_choice, computing_dtype
from pyreid.ops.feature_files import read_features
from pyreid.ops.features import checked_squared_norms, choose_device
from pyreid.ops.nearest_neighbors import nearest_neighbors
from pyreid.retrieval.graph import NeighborGraph

_ELEMENTS_AT_A_TIME = 2**23  # of gathered features


@overload
def query_expansion(
    query: Any,
    gallery: Any,
    *,
    k: int = ...,
    alpha: float | None = ...,
    times: int = ...,
    metric: Metric = ...,
    graph: NeighborGraph | None = ...,
    return_torch: Literal[False] = ...,
) -> np.ndarray: ...
@overload
def query_expansion(
    query: Any,
    gallery: Any,
    *,
    k: int = ...,
    alpha: float | None = ...,
    times: int = ...,
    metric: Metric = ...,
    graph: NeighborGraph | None = ...,
    return_torch: bool,
) -> np.ndarray | Tensor: ...
def query_expansion(
    query: Any,
    gallery: Any,
    *,
    k: int = 5,
    alpha: float | None = None,
    times: int = 1,
    metric: Metric = "cosine",
    graph: NeighborGraph | None = None,
    return_torch: bool = False,
) -> np.ndarray | Tensor:
    """Each query averaged with its ``k`` nearest gallery items.

    Average query expansion (Chum et al., "Total Recall", ICCV 2007) for ``alpha=None``, and alpha query expansion
    (Radenovic et al., "Fine-tuning CNN Image Retrieval with No Human Annotation", TPAMI 2019, section 3.5) otherwise:

        x' = (x + sum_j w_j g_j) / (1 + sum_j w_j)        w_j = 1, or max(0, cos(x, g_j))^alpha

    A cosine of 0 or less has the weight 0 for every ``alpha``, so no power of a negative number is NaN. With
    ``metric="cosine"`` all rows are normalised first and the result again (a row of zeros stays one); otherwise the
    rows are averaged as they are. Memory beside the features is that of the lists and of a block of rows.

    It differs from fast-reid's ``aqe``: that expands queries and gallery by one another, whereas here only the queries
    change, and only by gallery items (:func:`database_augmentation` changes a gallery); it counts the item itself among
    the k; it averages the rows without their normalisation; and its negative similarities keep their sign under odd
    powers, and become NaN under powers that are no integers.

    Args:
        query: (Q, D) features, float16, bfloat16, float32 or float64: a torch tensor, a NumPy array, anything with
            DLPack, a path or an iterator of chunks as for :func:`pyreid.evaluate`. Computed in float32, or in float64
            if either side is float64. Inputs are not changed.
        gallery: (G, D) features; may differ from ``query`` in type.
        k: gallery items that are averaged, from 1 to G; the query itself is one more.
        alpha: exponent of the similarity, 0 or more; None: all have the weight 1.
        times: how often; the expanded queries search the gallery again.
        metric: what the nearest are found by, and whether rows are normalised.
        graph: lists of the joint set to take the gallery items from, instead of a search; only for ``times=1``.
        return_torch: return a torch tensor instead of a NumPy array.

    Returns:
        (Q, D) expanded queries, on the CPU.

    Raises:
        TypeError: if features are not floating-point or a parameter is not a number.
        ValueError: if shapes do not fit, features are NaN, infinite or out of range, a parameter is out of range, or
            the graph is not one of these features with ``k`` gallery items in each query's list.
    """
    check_choice("metric", metric, Metric)
    q, g = read_features("query", query, may_be_empty=True), read_features("gallery", gallery)
    if q.shape[1] != g.shape[1]:
        raise ValueError(f"gallery: expected {q.shape[1]} columns to match query, got shape {tuple(g.shape)}")
    dtype = computing_dtype(q, g)
    q, g = _as_rows("query", q, dtype, metric), _as_rows("gallery", g, dtype, metric)
    _check_parameters(k, len(g), "the rows of gallery", alpha, times, graph)
    given = None
    if graph is not None:
        graph.check(torch.cat([q, g]), len(q), metric == "cosine", 1)
        given = _gallery_lists(graph, int(k))
    for _ in range(int(times)):
        indices = nearest_neighbors(q, g, int(k), metric=_search_metric(metric))[1] if given is None else given
        q = _average(q, g, indices, alpha, metric)
    return q if return_torch else q.numpy()


@overload
def database_augmentation(
    gallery: Any,
    *,
    k: int = ...,
    alpha: float | None = ...,
    times: int = ...,
    metric: Metric = ...,
    graph: NeighborGraph | None = ...,
    return_torch: Literal[False] = ...,
) -> np.ndarray: ...
@overload
def database_augmentation(
    gallery: Any,
    *,
    k: int = ...,
    alpha: float | None = ...,
    times: int = ...,
    metric: Metric = ...,
    graph: NeighborGraph | None = ...,
    return_torch: bool,
) -> np.ndarray | Tensor: ...
def database_augmentation(
    gallery: Any,
    *,
    k: int = 5,
    alpha: float | None = None,
    times: int = 1,
    metric: Metric = "cosine",
    graph: NeighborGraph | None = None,
    return_torch: bool = False,
) -> np.ndarray | Tensor:
    """Each gallery item averaged with its ``k`` nearest others.

    Database-side feature augmentation (Turcot and Lowe, 2009; Arandjelovic and Zisserman, CVPR 2012), with the weights
    and the normalisation of :func:`query_expansion`. An item is not among its own neighbors; its copies may be.

    Args:
        gallery: (G, D) features as for :func:`query_expansion`.
        k: others that are averaged, from 1 to G - 1; the item itself is one more.
        alpha: exponent of the similarity, 0 or more; None: all have the weight 1.
        times: how often; the augmented gallery is searched again.
        metric: what the nearest are found by, and whether rows are normalised.
        graph: lists of the gallery alone, ``num_query`` 0, instead of a search; only for ``times=1``.
        return_torch: return a torch tensor instead of a NumPy array.

    Returns:
        (G, D) augmented features, on the CPU.

    Raises:
        TypeError, ValueError: as :func:`query_expansion`.
    """
    check_choice("metric", metric, Metric)
    g = read_features("gallery", gallery)
    g = _as_rows("gallery", g, computing_dtype(g), metric)
    _check_parameters(k, len(g) - 1, "the other rows of gallery", alpha, times, graph)
    k = int(k)
    if graph is not None:
        graph.check(g, 0, metric == "cosine", 1)
        if graph.k <= k:
            raise ValueError(f"graph: expected lists of at least {k + 1} items for k={k}, got {graph.k}")
    for _ in range(int(times)):
        if graph is None:
            nearest = nearest_neighbors(g, g, k + 1, metric=_search_metric(metric))[1]
        else:
            nearest = graph.indices[:, : k + 1].long()
        g = _average(g, g, _without_self(nearest), alpha, metric)
    return g if return_torch else g.numpy()


def _as_rows(name: str, features: Tensor, dtype: torch.dtype, metric: Metric) -> Tensor:
    """A copy on the CPU, for cosine with normalised rows."""
    cpu = choose_device(features, features, "cpu")
    norms = checked_squared_norms(name, features, device=cpu, dtype=dtype)
    rows = features.to(device=cpu, dtype=dtype, copy=True)
    return _normalised(rows, norms) if metric == "cosine" else rows


def _normalised(x: Tensor, norms: Tensor) -> Tensor:
    return x.mul_(torch.where(norms > 0, norms.rsqrt(), 0)[:, None])


def _search_metric(metric: Metric) -> Metric:
    # Rows are unit vectors already: both metrics give the same order, and this one is that of a graph's lists.
    return "sqeuclidean" if metric == "cosine" else metric


def _check_parameters(
    k: object, most: int, what: str, alpha: object, times: object, graph: NeighborGraph | None
) -> None:
    for name, value in (("k", k), ("times", times)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise TypeError(f"{name}: expected an integer, got {type(value).__name__}")
    assert isinstance(k, int | np.integer)
    assert isinstance(times, int | np.integer)
    if not 1 <= k <= most:
        raise ValueError(f"k: expected 1 to {most}, {what}, got {k}")
    if times < 1:
        raise ValueError(f"times: expected at least 1, got {times}")
    if alpha is not None:
        if isinstance(alpha, bool) or not isinstance(alpha, int | float | np.integer | np.floating):
            raise TypeError(f"alpha: expected a number or None, got {type(alpha).__name__}")
        if not 0 <= alpha < float("inf"):
            raise ValueError(f"alpha: expected a finite number of at least 0, or None, got {alpha}")
    if graph is not None:
        if not isinstance(graph, NeighborGraph):
            raise TypeError(f"graph: expected a NeighborGraph or None, got {type(graph).__name__}")
        if times > 1:
            raise ValueError(f"times: expected 1 with a graph, which has the neighbors of the first time, got {times}")


def _gallery_lists(graph: NeighborGraph, k: int) -> Tensor:
    """(Q, k) the first gallery items of the queries' lists."""
    lists = graph.indices[: graph.num_query].long()
    foreign = lists < graph.num_query
    found = graph.k - foreign.sum(dim=1)
    if bool((found < k).any()):
        row = int((found < k).nonzero()[0])
        raise ValueError(f"graph: expected {k} gallery items in each query's list, got {int(found[row])} in row {row}")
    order = foreign.byte().sort(dim=1, stable=True).indices[:, :k]
    return lists.gather(1, order) - graph.num_query


def _without_self(nearest: Tensor) -> Tensor:
    """(G, k) of (G, k + 1) lists: without the item itself, or the last where an item has so many copies before it."""
    own = nearest == torch.arange(len(nearest), device=nearest.device)[:, None]
    own[:, -1] |= ~own.any(dim=1)
    return nearest[~own].view(len(nearest), -1)


def _average(x: Tensor, gallery: Tensor, indices: Tensor, alpha: float | None, metric: Metric) -> Tensor:
    """Rows averaged with gallery rows, which are added in the order of their list."""
    out = torch.empty_like(x)
    step = max(1, _ELEMENTS_AT_A_TIME // (indices.shape[1] * x.shape[1]))
    for start in range(0, len(x), step):
        rows = x[start : start + step]
        nearest = gallery[indices[start : start + step]]
        if alpha is None:
            weights = rows.new_ones(nearest.shape[:2])
        else:
            similarities = _similarities(rows, nearest)
            weights = torch.where(similarities > 0, similarities ** float(alpha), 0)  # 0 to the power of 0 would be 1
        sums = rows.clone()
        for j in range(nearest.shape[1]):
            sums += weights[:, j, None] * nearest[:, j]
        out[start : start + step] = sums / (1 + weights.sum(dim=1, keepdim=True))
    return _normalised(out, out.square().sum(dim=1)) if metric == "cosine" else out


def _similarities(rows: Tensor, nearest: Tensor) -> Tensor:
    """(R, k) cosines, negative ones as 0, and 0 with a row of zeros."""
    # Divided one by one: the product of two large norms could overflow.
    near, own = nearest.square().sum(dim=2), rows.square().sum(dim=1, keepdim=True)
    cosines = (nearest * rows[:, None]).sum(dim=2) * near.rsqrt() * own.rsqrt()
    return torch.where((near > 0) & (own > 0), cosines, 0).clamp_(0, 1)
