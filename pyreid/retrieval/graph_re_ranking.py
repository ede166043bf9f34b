"""The best re-ranked items of each query from a given neighbor graph, without the products of all pairs. Internal."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from pyreid.ops.k_reciprocal import pair_distances
from pyreid.ops.nearest_neighbors import nearest_neighbors
from pyreid.retrieval.encoded_set import EncodedSet
from pyreid.retrieval.encoding import Parameters
from pyreid.retrieval.graph import NeighborGraph
from pyreid.retrieval.joint_features import JointFeatures

_log = logging.getLogger(__name__)
_PAIRS_AT_A_TIME = 2**22  # of queries and gallery items that share a column, counted once for each column


def nearest_by_graph(
    features: JointFeatures, parameters: Parameters, graph: NeighborGraph, topk: int
) -> tuple[Tensor, Tensor]:
    """(Q, topk) distances, ascending, and int64 gallery indices; see :func:`pyreid.k_reciprocal`.

    Some queries, with no more than ``_PAIRS_AT_A_TIME`` pairs or a single one, are ranked at a time.
    """
    encoded = EncodedSet.of(features, parameters, graph)
    distances = features.x.new_empty((features.num_query, topk))
    indices = torch.empty((features.num_query, topk), dtype=torch.int64, device="cpu")
    search = _Search(features, encoded, graph, topk)
    undecided = []
    for queries in search.blocks(torch.arange(features.num_query, device="cpu"), graph.k):
        lists = graph.indices[queries].long() - features.num_query
        distances[queries], indices[queries], decided = search.best(queries, lists)
        undecided.append(queries[~decided])
    left = torch.cat(undecided)
    if len(left):
        _log.info("lists of %d of %d queries are too short for topk=%d", len(left), features.num_query, topk)
    for queries in search.blocks(left, topk):
        distances[queries], indices[queries], _ = search.best(queries, search.first_without_overlap(queries))
    return distances, indices


class _Search:
    """Ranks, for some queries, the gallery items that share a column with them and others that are named."""

    def __init__(self, features: JointFeatures, encoded: EncodedSet, graph: NeighborGraph, topk: int) -> None:
        self._x, self._num_query, self._num_gallery = features.x, features.num_query, features.num_gallery
        self._encoded, self._graph, self._topk = encoded, graph, topk
        self._starts = encoded.encoding.rows.starts
        columns = encoded.encoding.rows.columns[: int(self._starts[self._num_query])].long()
        self._sizes = encoded.encoding.gallery.starts.diff()[columns]  # gallery items for each entry of a query
        self._pairs = torch.cat([self._sizes.new_zeros(1), self._sizes.cumsum(0)])

    def blocks(self, queries: Tensor, others: int) -> Iterator[Tensor]:
        """Parts of ascending ``queries`` that are ranked at once, with ``others`` named items each."""
        costs = self._pairs[self._starts[queries + 1]] - self._pairs[self._starts[queries]] + others
        ends, start = costs.cumsum(0), 0
        while start < len(queries):
            done = int(ends[start - 1]) if start else 0
            stop = max(start + 1, int(torch.searchsorted(ends, done + _PAIRS_AT_A_TIME, right=True)))
            yield queries[start:stop]
            start = stop

    def first_without_overlap(self, queries: Tensor) -> Tensor:
        """(R, topk) gallery items: the best of those with m = 0 are among them, or are preceded by topk of them."""
        if self._encoded.parameters.lambda_value == 0:  # they tie, and the indices decide
            return torch.arange(self._topk, device="cpu").expand(len(queries), -1)
        return nearest_neighbors(self._x[queries], self._x[self._num_query :], self._topk, metric="sqeuclidean")[1]

    def best(self, queries: Tensor, named: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The best of ascending ``queries``, as far as there are, and for which queries nothing else can be one.

        ``named`` (R, E) are further gallery items, negative ones are none.
        """
        rows, items, overlap = self._candidates(queries, named)
        counts = torch.bincount(rows, minlength=len(queries))
        entries = torch.zeros(len(self._x) + 1, dtype=torch.int64, device="cpu")
        entries[queries + 1] = counts
        squared = pair_distances(self._x, entries.cumsum(0), (items + self._num_query).int())
        final = self._blend(overlap, squared, queries[rows])
        # Rows and items ascend, and lexsort is stable: ties stay in the order of the indices.
        order = torch.from_numpy(np.lexsort((final.numpy(), rows.numpy())))
        starts = counts.cumsum(0) - counts
        places = starts[:, None] + torch.arange(self._topk, device="cpu")
        enough = counts >= self._topk
        chosen = order[places.clamp(max=len(order) - 1)] if len(order) else places.new_zeros(places.shape)
        distances = final[chosen] if len(order) else self._x.new_zeros(places.shape)
        indices = items[chosen] if len(order) else places
        return distances, indices, enough & self._decided(queries, distances[:, -1])

    def _candidates(self, queries: Tensor, named: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pairs of a place in ``queries`` and a gallery item, ascending, and their m."""
        rows_of, gallery = self._encoded.encoding.rows, self._encoded.encoding.gallery
        lengths = self._starts[queries + 1] - self._starts[queries]
        entries = _ranges(self._starts[queries], lengths)
        sizes = self._sizes[entries]
        places = _ranges(gallery.starts[rows_of.columns[entries].long()], sizes)
        smaller = torch.minimum(rows_of.weights[entries].repeat_interleave(sizes), gallery.weights[places])
        own = torch.arange(len(queries), device="cpu").repeat_interleave(lengths).repeat_interleave(sizes)
        keys = own * self._num_gallery + gallery.columns[places]
        more = (torch.arange(len(queries), device="cpu")[:, None] * self._num_gallery + named)[named >= 0]
        unique, place = torch.cat([keys, more]).unique(return_inverse=True)
        # One after the other, by ascending columns, as on strips: the same bits. (torch may add in threads.)
        overlap = torch.zeros(len(unique), dtype=self._x.dtype, device="cpu")
        np.add.at(overlap.numpy(), place[: len(keys)].numpy(), smaller.numpy())
        return unique // self._num_gallery, unique % self._num_gallery, overlap

    def _blend(self, overlap: Tensor, squared: Tensor, queries: Tensor) -> Tensor:
        parameters, divisors = self._encoded.parameters, self._encoded.divisors
        weight = parameters.lambda_value
        jaccard = 1 - overlap / (2 - overlap)
        if parameters.compat == "fastreid":
            jaccard.clamp_(min=0)
        d = squared / torch.where(divisors > 0, divisors, 1)[queries]
        return (1 - weight) * jaccard + weight * (d.square() if parameters.compat == "torchreid" else d)

    def _decided(self, queries: Tensor, last: Tensor) -> Tensor:
        """Whether no item without a shared column, beyond the query's list, can be as near as the last one found."""
        if self._graph.k == len(self._x):
            return torch.ones(len(queries), dtype=torch.bool, device="cpu")
        if not self._graph.is_exact and self._encoded.parameters.lambda_value > 0:
            # what is beyond the list is unknown in any case
            return torch.ones(len(queries), dtype=torch.bool, device="cpu")
        beyond = self._graph.distances[queries, -1].to(last.dtype)
        return last < self._blend(torch.zeros_like(beyond), beyond, queries)


def _ranges(starts: Tensor, lengths: Tensor) -> Tensor:
    """The numbers from each start on, so many as its length says, behind one another."""
    first = lengths.cumsum(0) - lengths
    return torch.arange(int(lengths.sum()), device=lengths.device) + (starts - first).repeat_interleave(lengths)
