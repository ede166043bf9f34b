"""Exact search for the nearest gallery rows, of galleries that need not fit into memory or onto the device."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, Literal, overload

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from pyreid.ops._checks import Metric, check_choice, computing_dtype
from pyreid.ops.distance_tiles import inner_product_tiles, rank_column
from pyreid.ops.feature_files import read_features, spool
from pyreid.ops.features import checked_squared_norms, choose_device
from pyreid.ops.nearest_neighbors import MOST_NEIGHBORS_ON_CUDA, tile_columns
from pyreid.ops.shards import exchange, gather_facts, message_buffer, own_blocks, require_ranks, wire

_FOUND_BYTES = 64 * 2**20  # of the rows found, gathered at a time
_INDEX_BITS = 0xFFFFFFFF  # of a float32 neighbor, see csrc/nearest_neighbors.h


@overload
def search(
    query: Any,
    gallery: Any,
    k: int = ...,
    *,
    metric: Metric = ...,
    device: torch.device | str | None = ...,
    return_torch: Literal[False] = ...,
) -> tuple[np.ndarray, np.ndarray]: ...
@overload
def search(
    query: Any,
    gallery: Any,
    k: int = ...,
    *,
    metric: Metric = ...,
    device: torch.device | str | None = ...,
    return_torch: Literal[True],
) -> tuple[Tensor, Tensor]: ...
@overload
def search(
    query: Any,
    gallery: Any,
    k: int = ...,
    *,
    metric: Metric = ...,
    device: torch.device | str | None = ...,
    return_torch: bool,
) -> tuple[np.ndarray, np.ndarray] | tuple[Tensor, Tensor]: ...
def search(
    query: Any,
    gallery: Any,
    k: int = 10,
    *,
    metric: Metric = "euclidean",
    device: torch.device | str | None = None,
    return_torch: bool = False,
) -> tuple[np.ndarray, np.ndarray] | tuple[Tensor, Tensor]:
    """The ``k`` nearest gallery rows of each query, exactly: :func:`pyreid.ops.nearest_neighbors` for any features.

    Which rows are found and in which order is what :func:`pyreid.ops.nearest_neighbors` documents; ties come in the
    order of the gallery. The features are not copied as a whole, except that a gallery of another type or on another
    device than the computation becomes resident up to 512 MiB; beyond that it is read in blocks of 64 MiB, once for
    each strip of queries (1024, on CUDA 4096). So a mapped file may be larger than memory.

    Args:
        query: (Q, D) float16, bfloat16, float32 or float64: a torch tensor, a NumPy array, anything with DLPack, the
            path of a ``.npy`` or ``.safetensors`` file, or an iterator of (n, D) chunks. Q may be 0.
        gallery: (G, D), likewise; G may not be 0.
        k: neighbors of each query, from 1 to G; on CUDA at most 2048.
        metric: ``"euclidean"``, ``"sqeuclidean"`` or ``"cosine"``.
        device: where to compute; None: where the features are.
        return_torch: whether the result is torch tensors on the CPU instead of NumPy arrays.

    Returns:
        ``(distances, indices)``: (Q, k) float32, ascending along each row, and (Q, k) int64. float64 if a side is.

    Raises:
        TypeError: if features are of no such kind, or ``k`` is no integer.
        ValueError: if shapes do not fit, values are NaN or infinite or out of the range of the type, ``k`` is out of
            range, or metric or device are unknown.
        OSError: if a file cannot be opened, or the disk is full.
    """
    q, g, k, norms = _checked(query, gallery, k, metric, device)
    distances, indices = search_rows(q, g, k, metric, query_norms=norms[0], gallery_norms=norms[1])
    return (distances, indices) if return_torch else (distances.numpy(), indices.numpy())


def search_strips(
    query: Any, gallery: Any, k: int, *, metric: Metric, device: torch.device | str | None = None
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """:func:`search` in strips of queries, for a caller that shows how far it is. The sets are checked once, before.

    Returns:
        triples ``(rows, distances, indices)``: a slice of queries, their (R, k) distances and indices, on the CPU.

    Raises:
        TypeError, ValueError, OSError: as :func:`search`.
    """
    q, g, k, norms = _checked(query, gallery, k, metric, device)
    return _strips(q, g, k, metric, query_norms=norms[0], gallery_norms=norms[1])


def _checked(
    query: Any, gallery: Any, k: object, metric: Metric, device: torch.device | str | None
) -> tuple[Tensor, Tensor, int, tuple[Tensor, Tensor]]:
    """Queries, gallery and k, and the squared norms of both, on the device and in the type of the computation."""
    check_choice("metric", metric, Metric)
    q = read_features("query", query, may_be_empty=True)
    g = read_features("gallery", gallery)
    if q.shape[1] != g.shape[1]:
        raise ValueError(f"gallery: expected {q.shape[1]} columns to match query, got shape {tuple(g.shape)}")
    chosen = choose_device(q, g, device)
    count = check_count(k, len(g), chosen)
    dtype = computing_dtype(q, g)
    query_norms = checked_squared_norms("query", q, device=chosen, dtype=dtype)
    gallery_norms = checked_squared_norms("gallery", g, device=chosen, dtype=dtype)
    return q, g, count, (query_norms, gallery_norms)


def check_count(k: object, rows: int, device: torch.device) -> int:
    """``k`` as an int from 1 to ``rows`` that the kernels of ``device`` can keep."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer):
        raise TypeError(f"k: expected an integer, got {type(k).__name__}")
    if not 1 <= k <= rows:
        raise ValueError(f"k: expected 1 to {rows}, the rows of gallery, got {k}")
    if device.type == "cuda" and k > MOST_NEIGHBORS_ON_CUDA:
        raise ValueError(f"k: expected at most {MOST_NEIGHBORS_ON_CUDA} on CUDA, got {k}")
    return int(k)


def search_rows(
    query: Tensor,
    gallery: Tensor,
    k: int,
    metric: Metric,
    *,
    query_norms: Tensor,
    gallery_norms: Tensor,
    selected: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The search itself, of checked features, on the device and in the type of the norms.

    Args:
        query: (Q, D).
        gallery: (G, D).
        k: neighbors, at most as many as rows are selected.
        metric: of the distances.
        query_norms: (Q,) squared norms.
        gallery_norms: (G,) squared norms.
        selected: (G,) bool, which gallery rows take part; None: all.

    Returns:
        (Q, k) distances and (Q, k) int64 indices, on the CPU.
    """
    distances = torch.empty(len(query), k, dtype=gallery_norms.dtype, device="cpu")
    indices = torch.empty(len(query), k, dtype=torch.int64, device="cpu")
    if indices.numel():
        strips = _strips(
            query, gallery, k, metric, query_norms=query_norms, gallery_norms=gallery_norms, selected=selected
        )
        for rows, nearest, found in strips:
            distances[rows], indices[rows] = nearest, found
    return distances, indices


def _strips(
    query: Tensor,
    gallery: Tensor,
    k: int,
    metric: Metric,
    *,
    query_norms: Tensor,
    gallery_norms: Tensor,
    selected: Tensor | None = None,
    blocks: Sequence[slice] | None = None,
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """See :func:`search_rows`; strip by strip, with at least one neighbor for each query."""
    device, dtype = gallery_norms.device, gallery_norms.dtype
    column = rank_column(gallery_norms, metric)
    if selected is not None:  # NaN comes after everything else, and there are k others
        column = {name: values.masked_fill(~selected.to(device), torch.nan) for name, values in column.items()}
    offset, scale = column.get("offset"), column.get("scale")
    words = dtype.itemsize // 4
    width = tile_columns(device, k)
    tiles = inner_product_tiles(query, gallery, device=device, dtype=dtype, columns=width, blocks=blocks)
    kept = torch.empty(0, dtype=torch.int64)
    for rows, columns, products in tiles:
        if columns.start == 0:
            kept = torch.empty(len(products), k * words, dtype=torch.int64, device=device)
        torch.ops.pyreid.keep_nearest(
            kept,
            products,
            None if offset is None else offset[columns],
            None if scale is None else scale[columns],
            columns.start,
        )
        if columns.stop == len(gallery):
            yield rows, *_measured(kept, query[rows], gallery, query_norms[rows], gallery_norms, metric)


def _measured(
    kept: Tensor, query: Tensor, gallery: Tensor, query_norms: Tensor, gallery_norms: Tensor, metric: Metric
) -> tuple[Tensor, Tensor]:
    """Distances and indices of the neighbors kept. Of the gallery only the rows found are read and converted."""
    device, dtype = gallery_norms.device, gallery_norms.dtype
    k = kept.shape[1] // (dtype.itemsize // 4)
    distances = torch.empty(len(query), k, dtype=dtype, device="cpu")
    indices = torch.empty(len(query), k, dtype=torch.int64, device="cpu")
    step = max(1, _FOUND_BYTES // (k * gallery.shape[1] * dtype.itemsize))
    for start in range(0, len(query), step):
        part = slice(start, min(start + step, len(query)))
        some = kept[part].contiguous()
        found = some[:, 1::2] if dtype == torch.float64 else some & _INDEX_BITS
        # Ascending, so the neighbors keep their order under the new numbers.
        items, numbers = found.unique(return_inverse=True)
        if dtype == torch.float64:
            some[:, 1::2] = numbers
        else:
            some = (some & ~_INDEX_BITS) | numbers
        distances[part], order = (
            result.cpu()
            for result in torch.ops.pyreid.nearest_distances(
                some,
                query[part].to(device=device, dtype=dtype).contiguous(),
                gallery[items.to(gallery.device)].to(device=device, dtype=dtype).contiguous(),
                query_norms[part],
                gallery_norms[items],
                metric,
            )
        )
        indices[part] = items.cpu()[order]
    return distances, indices


def search_sharded(
    query: Any,
    gallery: Any,
    k: int = 10,
    *,
    metric: Metric = "euclidean",
    device: torch.device | str | None = None,
    group: dist.ProcessGroup | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """:func:`search` of features that are spread over the ranks of torch.distributed.

    Every rank calls it with its share of the queries and of the gallery, in any uneven way; shares may be empty,
    (0, D). The sets are the shares one after the other in the order of the ranks, and indices are rows of that gallery.
    The shares go from rank to rank in chunks of 16 MiB, into a temporary file of each rank (``TMPDIR``; it needs the
    size of all features). Then each rank searches every n-th block of 512 queries.

    The result is the same, to the bit, for any number of ranks and any division, with the same number of threads for
    each rank. From that of :func:`search` it differs at most by the rounding of an inner product.

    Args:
        query: (Q_r, D) features of this rank, as for :func:`search`.
        gallery: (G_r, D) features of this rank.
        k: neighbors, from 1 to the rows of all ranks, and the same on all ranks, as ``metric``.
        metric: as for :func:`search`.
        device: where this rank computes; None: where its features are.
        group: the ranks that take part; None: all.

    Returns:
        As :func:`search`, for the queries of all ranks, on every rank.

    Raises:
        RuntimeError: if torch.distributed is not initialised.
        TypeError, ValueError, OSError: as by :func:`search`, or if the ranks disagree about the number of columns, the
            types or the options. An error on one rank is an error on every rank; none waits for it. A rank that is not
            in ``group`` gets one at once, by itself.
    """
    require_ranks("search_sharded", "search", group)
    buffer = torch.empty(0)
    own, chosen, facts = (torch.empty(0), torch.empty(0)), torch.device("cpu"), {}
    error: Exception | None = None
    try:
        check_choice("metric", metric, Metric)
        own = (
            read_features("query", query, may_be_empty=True),
            read_features("gallery", gallery, may_be_empty=True),
        )
        chosen = choose_device(*own, device)
        for name, features in zip(("query", "gallery"), own, strict=True):
            checked_squared_norms(name, features, device=chosen, dtype=computing_dtype(*own))
        buffer = message_buffer(group, *own)
        facts = {
            "columns": [features.shape[1] for features in own],
            "types": [str(features.dtype) for features in own],
            "options": {"k": check_count(k, 2**32 - 1, chosen), "metric": metric},
            "rows": [len(features) for features in own],
        }
    except Exception as problem:
        error = problem
    shares = gather_facts(facts, error, group)
    num_query, k = _check_agreement(shares)

    whole: list[Tensor] = []
    for side, name in enumerate(("query", "gallery")):
        rows = [share["rows"][side] for share in shares]
        try:
            if sum(rows):
                whole.append(exchange(own[side], rows, group, buffer, functools.partial(spool, name)))
            else:
                whole.append(own[side].cpu())
        except Exception as problem:  # the others still send and receive the gallery; so must this rank
            error = error or problem
    gather_facts({}, error, group)

    sent: list[Tensor] = []
    try:
        dtype = computing_dtype(*whole)
        distances = torch.zeros(num_query, k, dtype=dtype)
        indices = torch.zeros(num_query, k, dtype=torch.int64)
        norms = [
            checked_squared_norms(name, features, device=chosen, dtype=dtype)
            for name, features in zip(("query", "gallery"), whole, strict=True)
        ]
        blocks = own_blocks(num_query, group)
        strips = _strips(whole[0], whole[1], k, metric, query_norms=norms[0], gallery_norms=norms[1], blocks=blocks)
        for part, nearest, found in strips:
            distances[part], indices[part] = nearest, found
        sent = [distances.to(wire(group)), indices.to(wire(group))]
    except Exception as problem:
        error = problem
    gather_facts({}, error, group)
    for result in sent:  # rows that a rank did not search are 0 there, and 0 is neutral
        dist.all_reduce(result, dist.ReduceOp.SUM, group=group)
    return sent[0].cpu().numpy(), sent[1].cpu().numpy()


def _check_agreement(shares: list[dict[str, Any]]) -> tuple[int, int]:
    """The queries of all ranks, and k.

    Raises:
        ValueError: if the ranks disagree, or their shares do not fit; the same on every rank.
    """
    first = shares[0]
    for rank, share in enumerate(shares):
        for what in ("columns", "types", "options"):
            if share[what] != first[what]:
                raise ValueError(
                    f"rank {rank}: expected the {what} of rank 0, {first[what]}, but this one has {share[what]}"
                )
    columns = first["columns"]
    if columns[0] != columns[1]:
        raise ValueError(f"gallery: expected {columns[0]} columns to match query, got {columns[1]}")
    num_query, num_gallery = (sum(share["rows"][side] for share in shares) for side in (0, 1))
    if num_gallery == 0:
        raise ValueError("gallery: expected at least one row on some rank")
    if first["options"]["k"] > num_gallery:
        raise ValueError(
            f"k: expected 1 to {num_gallery}, the rows of gallery on all ranks, got {first['options']['k']}"
        )
    return num_query, first["options"]["k"]
