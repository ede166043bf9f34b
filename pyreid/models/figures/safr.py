"""SAFR, Table 2."""

from __future__ import annotations

from pyreid.models.figures.base import PaperFigure, PaperResult


def _safr(
    model: str, params: float, cost: float, tolerances: tuple[float, float], mean_ap: float, rank1: float
) -> PaperFigure:
    # SAFR trains at 350 x 350 but its costs are those at 224 x 224, in multiply-accumulates.
    return PaperFigure(
        row=model,
        model=model,
        overrides=(),
        input_size=(224, 224),
        params=params,
        cost=cost,
        params_unit="params",
        cost_unit="macs",
        params_tolerance=tolerances[0],
        cost_tolerance=tolerances[1],
        source="SAFR, Table 2",
        results=(PaperResult("VeRi-776", mean_ap, rank1),),
    )


FIGURES = (
    _safr("safr_baseline", 26e6, 4e9, (0.10, 0.05), 74.14, 88.14),
    _safr("safr_large", 30e6, 4.5e9, (0.10, 0.10), 81.34, 96.93),
    _safr("safr_medium", 21e6, 3.8e9, (0.05, 0.05), 79.34, 93.34),
    _safr("safr_small", 12e6, 1.8e9, (0.10, 0.05), 77.14, 93.14),
)
