"""Retrieval in galleries: k-reciprocal re-ranking without a matrix of all pairs."""

from __future__ import annotations

from pyreid.retrieval.k_reciprocal import KReciprocal, k_reciprocal
from pyreid.retrieval.re_ranking import re_ranking
from pyreid.retrieval.search import search, search_sharded

__all__ = ["KReciprocal", "k_reciprocal", "re_ranking", "search", "search_sharded"]
