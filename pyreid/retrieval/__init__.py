"""Retrieval in galleries: search, neighbor graphs, query expansion, and re-ranking without a matrix of all pairs."""

from __future__ import annotations

from pyreid.retrieval.faiss_index import FaissIndex
from pyreid.retrieval.gallery import Gallery, Hits
from pyreid.retrieval.graph import NeighborGraph
from pyreid.retrieval.k_reciprocal import KReciprocal, k_reciprocal
from pyreid.retrieval.query_expansion import database_augmentation, query_expansion
from pyreid.retrieval.re_ranking import re_ranking
from pyreid.retrieval.search import search, search_sharded

__all__ = [
    "FaissIndex",
    "Gallery",
    "Hits",
    "KReciprocal",
    "NeighborGraph",
    "database_augmentation",
    "k_reciprocal",
    "query_expansion",
    "re_ranking",
    "search",
    "search_sharded",
]
