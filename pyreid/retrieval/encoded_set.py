"""A set's k-reciprocal encodings, from searched or given neighbors, and re-ranking by them. Internal."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyreid.ops.k_reciprocal import pair_distances, re_rank_strip
from pyreid.ops.nearest_neighbors import MOST_NEIGHBORS_ON_CUDA
from pyreid.ops.set_neighbors import query_strips, set_neighbors
from pyreid.retrieval.encoding import Encoding, Parameters, encode, list_length
from pyreid.retrieval.graph import NeighborGraph
from pyreid.retrieval.joint_features import JointFeatures


def _given_neighbors(features: JointFeatures, graph: NeighborGraph, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Lists of ``length`` items, the farthest distances, and what distances of queries are clamped to."""
    if features.x.is_cuda:
        raise ValueError(
            f"graph: re-ranking from a graph runs on the CPU, got '{features.x.device}'; pass device='cpu'"
        )
    graph.check(features.x, features.num_query, features.cosine, length)
    largest = graph.farthest.to(features.x.dtype)
    limits = largest[: features.num_query]
    # An estimate is not above the maximum: items beyond it must not tie.
    limits = limits if graph.farthest_kind == "exact" else torch.full_like(limits, torch.inf)
    return graph.indices[:, :length].contiguous(), largest, limits


@dataclass(frozen=True, slots=True)
class EncodedSet:
    """The encodings of a set, and what makes re-ranked distances of inner products.

    Attributes:
        encoding: of all items.
        offset: (G,) half the squared norms of the gallery.
        query_norms: (Q,) squared norms.
        limits: (Q,) the largest squared distance of each query.
        divisors: (Q,) what squared distances are divided by.
        parameters: of the method.
    """

    encoding: Encoding
    offset: Tensor
    query_norms: Tensor
    limits: Tensor
    divisors: Tensor
    parameters: Parameters

    @classmethod
    def of(
        cls,
        features: JointFeatures,
        parameters: Parameters,
        graph: NeighborGraph | None = None,
        *,
        query_products: Tensor | None = None,
    ) -> EncodedSet:
        """Encode all items, from the lists of a graph or, without one, from those of a search.

        Args:
            features: of the set.
            parameters: of the method.
            graph: lists made before.
            query_products: (Q, G), filled with the inner products of the queries and the gallery.

        Raises:
            ValueError: if the graph is not one of these features or they are on CUDA, or the lists are too long there.
        """
        x, norms, num_query = features.x, features.norms, features.num_query
        length = list_length(parameters.k1, parameters.k2, len(x), parameters.compat)
        if graph is not None:
            neighbors, largest, limits = _given_neighbors(features, graph, length)
            if query_products is not None:
                for rows, products in query_strips(x, num_query):
                    query_products[rows] = products[:, num_query:]
        else:
            if x.is_cuda and length > MOST_NEIGHBORS_ON_CUDA:
                name, k = max(("k1", parameters.k1), ("k2", parameters.k2), key=lambda named: named[1])
                raise ValueError(
                    f"{name}: expected lists of at most {MOST_NEIGHBORS_ON_CUDA} neighbors on CUDA, got {length} with "
                    f"{name} = {k}; pass device='cpu'"
                )
            lists = set_neighbors(x, norms, length, num_query=num_query, query_products=query_products)
            neighbors, largest, limits = lists.indices, features.farthest_distances(lists), None

        def distances(starts: Tensor, columns: Tensor) -> Tensor:
            squared = pair_distances(x, starts, columns)
            if parameters.compat == "fastreid":
                return squared
            squared /= torch.where(largest > 0, largest, 1).repeat_interleave(starts.diff())
            return squared.square_() if parameters.compat == "torchreid" else squared

        encoding = encode(neighbors, num_query, parameters.k1, parameters.k2, distances)
        divisors = largest[:num_query]
        limits = divisors if limits is None else limits
        if parameters.compat == "fastreid":
            divisors = torch.full_like(limits, 2 if features.cosine else 1)
        return cls(encoding, norms[num_query:] / 2, norms[:num_query], limits, divisors, parameters)

    def re_rank(self, values: Tensor, rows: slice) -> None:
        """Turn the (R, G) inner products of the queries ``rows`` into re-ranked distances, in place."""
        re_rank_strip(
            values,
            self.encoding.queries(rows),
            self.encoding.gallery,
            lambda_value=float(self.parameters.lambda_value),
            offset=self.offset,
            query_norms=self.query_norms[rows],
            limits=self.limits[rows],
            divisors=self.divisors[rows],
            squared=self.parameters.compat == "torchreid",
            clip=self.parameters.compat == "fastreid",
        )
