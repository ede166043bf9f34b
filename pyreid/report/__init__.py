"""Pictures of results: training curves and rank lists."""

from __future__ import annotations

from pyreid.report.curves import plot_training
from pyreid.report.rank_lists import RankList, draw_rank_lists, make_rank_lists

__all__ = ["RankList", "draw_rank_lists", "make_rank_lists", "plot_training"]
