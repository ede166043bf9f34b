"""DaRe, Table 1.

The paper prints no sizes, and costs only as the axes of its Figs. 5 and 6. The sizes here were counted on other
networks, written from the text alone.
"""

from __future__ import annotations

from pyreid.models.figures.base import PaperFigure, PaperResult

DATASETS = ("Market-1501", "MARS", "CUHK03-NP labeled", "CUHK03-NP detected", "DukeMTMC-reID")

R50, D201 = 27.977e6, 23.223e6

Scores = tuple[tuple[float, float], ...]


def _dare(row: str, model: str, params: float | None, plain: Scores, re_ranked: Scores) -> PaperFigure:
    """A row from pairs (rank-1, mAP), in the order of the table's columns."""
    return PaperFigure(
        row=row,
        model=model,
        overrides=(),
        input_size=(256, 128),
        params=params,
        cost=None,
        params_unit="params",
        cost_unit="macs",
        params_tolerance=0.01,
        cost_tolerance=0.0,
        source="DaRe, Table 1",
        results=(*_results(plain, ""), *_results(re_ranked, ", re-ranked")),
        printed=False,
    )


def _results(scores: Scores, suffix: str) -> tuple[PaperResult, ...]:
    # zip stops early for TriNet, of which the table has the first two data sets only.
    return tuple(
        PaperResult(dataset + suffix, mean_ap, rank1)
        for dataset, (rank1, mean_ap) in zip(DATASETS, scores, strict=False)
    )


FIGURES = (
    _dare(
        "dare_r50",
        "dare_r50",
        R50,
        ((86.4, 69.3), (83.0, 69.7), (58.1, 53.7), (55.1, 51.3), (75.2, 57.4)),
        ((88.3, 82.0), (83.0, 79.3), (66.0, 66.7), (62.8, 63.6), (80.4, 74.5)),
    ),
    _dare(
        "dare_r50 + random erasing",
        "dare_r50",
        R50,
        ((88.5, 74.2), (82.6, 71.7), (64.5, 60.2), (61.6, 58.1), (79.1, 63.0)),
        ((90.8, 85.9), (83.9, 80.6), (72.9, 73.7), (69.8, 71.2), (84.4, 79.6)),
    ),
    _dare(
        "dare_d201",
        "dare_d201",
        D201,
        ((86.0, 69.9), (84.2, 72.1), (56.4, 52.2), (54.3, 50.1), (74.5, 56.3)),
        ((88.6, 82.2), (84.8, 80.3), (63.4, 64.1), (60.2, 61.6), (79.7, 73.3)),
    ),
    _dare(
        "dare_d201 + random erasing",
        "dare_d201",
        D201,
        ((89.0, 76.0), (85.5, 74.0), (66.1, 61.6), (63.3, 59.0), (80.2, 64.5)),
        ((90.9, 86.7), (85.1, 81.9), (73.8, 74.7), (70.6, 71.6), (84.4, 80.0)),
    ),
    _dare("trinet_r50", "trinet_r50", None, ((84.9, 69.1), (79.8, 67.7)), ((86.7, 81.1), (81.2, 77.4))),
)
