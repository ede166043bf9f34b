"""The papers' figures for the models of the zoo: one file per family."""

from __future__ import annotations

from pyreid.models.figures import compact_reid, dare, rmnet, safr, shufflenet_v2_plus, vehicle
from pyreid.models.figures.base import FlopsUnit, PaperFigure, PaperResult, ParamsUnit

FIGURES = (
    *safr.FIGURES,
    *shufflenet_v2_plus.FIGURES,
    *rmnet.FIGURES,
    *compact_reid.FIGURES,
    *dare.FIGURES,
    *vehicle.FIGURES,
)

__all__ = ["FIGURES", "FlopsUnit", "PaperFigure", "PaperResult", "ParamsUnit"]
