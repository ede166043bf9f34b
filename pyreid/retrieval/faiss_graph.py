"""Neighbor graphs from faiss: approximate lists in exact order, and how good they are. Internal."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

import torch
from torch import Tensor

from pyreid.ops.distance_tiles import inner_product_tiles
from pyreid.ops.k_reciprocal import pair_distances
from pyreid.ops.nearest_neighbors import nearest_neighbors
from pyreid.ops.set_neighbors import SetNeighbors
from pyreid.retrieval.joint_features import JointFeatures

_ROWS_AT_A_TIME = 16384
_CANDIDATES_AT_A_TIME = 2**23  # of an index that refines: 96 MiB
_LANDMARKS = 512  # of either kind, see `_farthest`
_REFINED = 16  # times k items by their codes, then k by their features: see docs/re-ranking.md
_LEAST_PER_CENTROID = 39  # points, for k-means in faiss to be content
_PROBED = 0.55  # of the lists: re-ID features fill space so evenly that less finds too little, see docs/re-ranking.md
_POINTS_PER_CENTROID = 64  # for k-means; faiss's own 256 make a better index hardly, and training four times as long


@dataclass(frozen=True, slots=True)
class FaissLists:
    """Approximate lists and what is known about them: attributes of a ``NeighborGraph``, and ``breadth``, the parameter
    whose larger values find more."""

    indices: Tensor
    distances: Tensor
    farthest: Tensor
    source: str
    recall: float
    farthest_ratio: float
    sampled_rows: int
    breadth: str


def faiss_lists(
    features: JointFeatures, k: int, *, index: str, parameters: str | None, sample: int, seed: int
) -> FaissLists:
    """See :meth:`pyreid.retrieval.NeighborGraph.faiss`; ``k``, ``sample`` and ``seed`` are checked."""
    x = features.x
    proposals, source, breadth = _proposals(x, k, index, parameters)
    indices, distances = _lists(x, proposals)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(x), generator=generator, device=x.device)[:sample].sort().values
    farthest = _farthest(x, generator)
    recall, ratio = _measure(x, features.norms, rows, indices, distances, farthest)
    return FaissLists(indices, distances, farthest, source, recall, ratio, len(rows), breadth)


def _proposals(x: Tensor, k: int, name: str, parameters: str | None) -> tuple[Tensor, str, str]:
    """(N, k) int64 items that the index finds for each item, -1 where it finds fewer; its description, and what of its
    parameters makes it find more."""
    faiss = importlib.import_module("faiss")
    if not isinstance(name, str):
        raise TypeError(f"index: expected a string, got {type(name).__name__}")
    factory = _factory(name, *x.shape)
    try:
        index = faiss.index_factory(x.shape[1], factory, faiss.METRIC_L2)
    except RuntimeError as error:
        raise ValueError(f"index: expected a factory string of faiss, got {name!r}") from error
    inverted, refining = faiss.try_extract_index_ivf(index), isinstance(index, faiss.IndexRefine)
    if inverted is not None:
        inverted.cp.max_points_per_centroid = _POINTS_PER_CENTROID
    widths = {}  # what of its parameters makes the index find more
    if inverted is not None:
        widths["nprobe"] = max(8, round(_PROBED * inverted.nlist))
    elif "HNSW" in factory:
        widths["efSearch"] = max(128, 2 * k)
    if refining:
        widths["k_factor_rf"] = _REFINED
    breadth = " or ".join(widths) or "the index's parameters"
    chosen = parameters if parameters is not None else ",".join(f"{name}={value}" for name, value in widths.items())
    single = x.float().numpy()
    try:
        index.train(single)
        index.add(single)
    except RuntimeError as error:  # for example more centroids than items
        raise ValueError(f"index: faiss cannot build {factory!r} of {len(x)} items: {error}") from error
    if chosen:
        try:
            faiss.ParameterSpace().set_index_parameters(index, chosen)
        except RuntimeError as error:
            raise ValueError(f"parameters: expected parameters of {factory!r}, got {chosen!r}") from error
    rows = _ROWS_AT_A_TIME
    if refining:  # it holds the candidates of all rows of a search
        rows = min(rows, max(1, _CANDIDATES_AT_A_TIME // int(max(1, index.k_factor * k))))
    found = [torch.from_numpy(index.search(single[start : start + rows], k)[1]) for start in range(0, len(x), rows)]
    return torch.cat(found), f"faiss {factory}" + (f" ({chosen})" if chosen else ""), breadth


def _factory(name: str, items: int, columns: int) -> str:
    """faiss's factory string for ``"PQ"`` and ``"IVF"`` of features of this shape; any other is its own."""
    if name == "PQ":
        if items < 16 * _LEAST_PER_CENTROID:  # a code of 4 bits has 16
            return "Flat"
        return f"PQ{columns // 2 if columns % 2 == 0 else columns}x4fs,RFlat"
    if name == "IVF":
        return f"IVF{max(1, min(round(items**0.5), items // _LEAST_PER_CENTROID))},Flat"
    return name


def _lists(x: Tensor, proposals: Tensor) -> tuple[Tensor, Tensor]:
    """Lists and distances in the order (distance, index), each item itself a candidate for its own list."""
    items, k = proposals.shape
    short = (proposals < 0).any(dim=1).nonzero().flatten()
    if len(short):
        proposals[short] = nearest_neighbors(x[short], x, k, metric="sqeuclidean")[1]
    indices = torch.empty((items, k), dtype=torch.int32, device=x.device)
    distances = x.new_empty((items, k))
    for start in range(0, items, _ROWS_AT_A_TIME):
        own = torch.arange(start, min(items, start + _ROWS_AT_A_TIME), device=x.device)[:, None]
        # By index first: the stable sort by distance then leaves ties in the order of the indices.
        candidates = torch.cat([proposals[start : start + len(own)], own], dim=1).sort(dim=1).values
        repeated = torch.zeros_like(candidates, dtype=torch.bool)
        repeated[:, 1:] = candidates[:, 1:] == candidates[:, :-1]
        d = rows_distances(x, own.flatten(), candidates).masked_fill_(repeated, torch.inf)
        order = d.sort(dim=1, stable=True)
        distances[start : start + len(own)] = order.values[:, :k]
        indices[start : start + len(own)] = candidates.gather(1, order.indices[:, :k]).int()
    return indices, distances


def rows_distances(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(R, C) squared distances between the ascending ``rows`` of ``x`` and for each the items in (R, C) ``columns``."""
    counts = torch.zeros(len(x) + 1, dtype=torch.int64, device=x.device)
    counts[rows + 1] = columns.shape[1]
    return pair_distances(x, counts.cumsum(0), columns.flatten().int()).view(columns.shape)


def _farthest(x: Tensor, generator: torch.Generator) -> Tensor:
    """(N,) the largest squared distance to a landmark: items far from the mean of all, and a sample of all.

    What is farthest from an item is as a rule far from the mean, on the other side. Never above the true maximum but
    for rounding. Summed around the mean, where the formula by products loses least.
    """
    centered = x - x.mean(dim=0)
    radii = centered.square().sum(dim=1)
    outer = radii.topk(min(_LANDMARKS, len(x))).indices
    landmarks = torch.cat([outer, torch.randperm(len(x), generator=generator, device=x.device)[:_LANDMARKS]]).unique()
    farthest = torch.empty(len(x), dtype=torch.int32, device=x.device)
    offset = radii[landmarks] / 2
    for rows, _, products in inner_product_tiles(centered, centered[landmarks], device=x.device, dtype=x.dtype):
        farthest[rows] = landmarks[(offset - products).argmax(dim=1)].int()
    return pair_distances(x, torch.arange(len(x) + 1, device=x.device), farthest)


def _measure(
    x: Tensor, norms: Tensor, rows: Tensor, indices: Tensor, distances: Tensor, farthest: Tensor
) -> tuple[float, float]:
    """Recall of the lists of ``rows``, and the mean part that their farthest distances are of the exact ones."""
    k = indices.shape[1]
    exact = SetNeighbors.empty(len(rows), k, x.dtype)
    for strip, _, products in inner_product_tiles(x[rows], x, device=x.device, dtype=x.dtype):
        exact.add(strip, products, 0, offset=norms / 2)
    last = rows_distances(x, rows, exact.indices).amax(dim=1)
    true = rows_distances(x, rows, exact.farthest[:, None]).flatten()
    recall = (distances[rows] <= last[:, None]).double().mean()
    part = torch.where(true > 0, farthest[rows] / true, 1).double().mean()
    return float(recall), float(part)
