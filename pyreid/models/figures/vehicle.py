"""The EEEM071 coursework report, Table 2, and the last row of Table 1. The report prints no sizes and no costs."""

from __future__ import annotations

from pyreid.models.figures.base import PaperFigure, PaperResult


def _coursework(
    model: str, rank1: float, mean_ap: float, *, source: str = "EEEM071 coursework, Table 2", side: int = 224
) -> PaperFigure:
    return PaperFigure(
        row=model,
        model=model,
        overrides=(),
        input_size=(side, side),
        params=None,
        cost=None,
        params_unit="params",
        cost_unit="macs",
        params_tolerance=0.0,
        cost_tolerance=0.0,
        source=source,
        results=(PaperResult("VeRi-776", mean_ap, rank1),),
    )


FIGURES = (
    _coursework("cw_mobilenet_v3_small", 92.4, 66.7, source="EEEM071 coursework, Table 1", side=512),
    _coursework("cw_resnet18", 90.5, 63.0),
    _coursework("cw_se_resnet18", 90.3, 63.5),
    _coursework("cw_se_resnet18_concat", 90.9, 64.3),
    _coursework("cw_se_resnet18_add", 89.6, 62.4),
    _coursework("cw_resnet18_cbam", 89.9, 62.8),
    _coursework("cw_resnet18_cbam_concat", 89.5, 63.3),
    _coursework("cw_se_resnet18_gconcat", 89.9, 63.2),
    _coursework("cw_se_resnext50", 93.6, 68.9),
)
