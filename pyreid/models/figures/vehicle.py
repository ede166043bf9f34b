"""The EEEM071 coursework report, Table 2, and the last row of Table 1.

The report prints no sizes and no costs. The sizes here were counted on other networks, written from the text alone,
with the head of 1024 and the classifier of VeRi-776's 576 identities.
"""

from __future__ import annotations

from pyreid.models.figures.base import PaperFigure, PaperResult


def _coursework(
    model: str,
    params: float,
    rank1: float,
    mean_ap: float,
    *,
    source: str = "EEEM071 coursework, Table 2",
    side: int = 224,
) -> PaperFigure:
    return PaperFigure(
        row=model,
        model=model,
        overrides=(("num_classes", 576),),
        input_size=(side, side),
        params=params,
        cost=None,
        params_unit="params",
        cost_unit="macs",
        params_tolerance=0.01,
        cost_tolerance=0.0,
        source=source,
        results=(PaperResult("VeRi-776", mean_ap, rank1),),
        classifier=True,
        printed=False,
    )


FIGURES = (
    _coursework("cw_mobilenet_v3_small", 2.110e6, 92.4, 66.7, source="EEEM071 coursework, Table 1", side=512),
    _coursework("cw_resnet18", 12.294e6, 90.5, 63.0),
    _coursework("cw_se_resnet18", 12.339e6, 90.3, 63.5),
    _coursework("cw_se_resnet18_concat", 12.994e6, 90.9, 64.3),
    _coursework("cw_se_resnet18_add", 12.470e6, 89.6, 62.4),
    _coursework("cw_resnet18_cbam", 12.338e6, 89.9, 62.8),
    _coursework("cw_resnet18_cbam_concat", 12.994e6, 89.5, 63.3),
    _coursework("cw_se_resnet18_gconcat", 14.141e6, 89.9, 63.2),
    _coursework("cw_se_resnext50", 28.202e6, 93.6, 68.9),
)
