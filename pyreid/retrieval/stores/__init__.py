"""Where a gallery keeps its items: local files, or Milvus. What a store has to do is :class:`Store`."""

from __future__ import annotations

from pyreid.retrieval.stores.base import Filter, Item, Records, Store

__all__ = ["Filter", "Item", "Records", "Store"]
