"""Queries and gallery as one set of items, as k-reciprocal re-ranking and neighbor graphs take them. Internal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyreid.ops._checks import Metric, check_choice, computing_dtype
from pyreid.ops.feature_files import read_features
from pyreid.ops.features import checked_squared_norms, choose_device
from pyreid.ops.k_reciprocal import pair_distances
from pyreid.ops.set_neighbors import SetNeighbors


@dataclass(frozen=True, slots=True)
class JointFeatures:
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
    def of(cls, query: Any, gallery: Any, metric: Metric, device: torch.device | str | None) -> JointFeatures:
        check_choice("metric", metric, Metric)
        q = read_features("query", query, may_be_empty=True)
        g = read_features("gallery", gallery, may_be_empty=True)
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

    def farthest_distances(self, lists: SetNeighbors) -> Tensor:
        """(N,) the largest squared distance of each item: exactly 0 if all items are equal."""
        return pair_distances(self.x, torch.arange(len(self.x) + 1, device=self.x.device), lists.farthest.int())
