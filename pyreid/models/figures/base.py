"""What a paper prints about a model."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

ParamsUnit = Literal["params", "weight_params", "folded_params"]
FlopsUnit = Literal["macs", "flops", "macs_and_norms"]


@dataclasses.dataclass(frozen=True, slots=True)
class PaperResult:
    """Accuracy that a paper reports: mean average precision, None where it reports none, and rank-1, in percent."""

    dataset: str
    map: float | None
    rank1: float


@dataclasses.dataclass(frozen=True, slots=True)
class PaperFigure:
    """Size and cost that a paper prints for one model, and how to count ours the same way.

    Attributes:
        row: name of the table's row.
        model: name in the zoo.
        overrides: settings of the row, as pairs.
        input_size: (H, W) that the printed cost belongs to.
        params: printed parameters; None if the paper prints none.
        cost: printed "FLOPs"; None if the paper prints none.
        params_unit: field of :class:`~pyreid.models.Complexity` that the printed parameters are.
        cost_unit: field of :class:`~pyreid.models.Complexity` that the printed cost is.
        params_tolerance: largest relative difference to accept; mostly the rounding of the printed figure.
        cost_tolerance: likewise for the cost.
        cost_range: smallest and largest cost to accept, in place of the tolerance, where a paper prints several.
        classifier: whether the printed figures include the identity classifier, which ``num_classes`` in ``overrides``
            then has to make.
        printed: False if the paper prints no size, and ``params`` were counted on another network, written from its
            text alone.
        source: paper and table.
        results: accuracy reported for the model.
        open_question: why no reading of the paper meets the printed figure, or none does so surely; else empty.
    """

    row: str
    model: str
    overrides: tuple[tuple[str, Any], ...]
    input_size: tuple[int, int]
    params: float | None
    cost: float | None
    params_unit: ParamsUnit
    cost_unit: FlopsUnit
    params_tolerance: float
    cost_tolerance: float
    source: str
    results: tuple[PaperResult, ...]
    open_question: str = ""
    cost_range: tuple[float, float] | None = None
    classifier: bool = False
    printed: bool = True
