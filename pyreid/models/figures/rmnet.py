"""RMNet, Table 3."""

from __future__ import annotations

from pyreid.models.figures.base import PaperFigure, PaperResult


def _rmnet(row: str, input_size: tuple[int, int], cost: float, mean_ap: float, rank1: float) -> PaperFigure:
    # RMNet's 0.81 M are the convolution weights without the calibration layer, which the deployed models leave out.
    return PaperFigure(
        row=row,
        model="rmnet",
        overrides=(("calibration", "none"),),
        input_size=input_size,
        params=0.81e6,
        cost=cost,
        params_unit="weight_params",
        cost_unit="flops",
        params_tolerance=0.02,
        cost_tolerance=0.05,
        source="RMNet, Table 3",
        results=(PaperResult("Market-1501", mean_ap, rank1),),
    )


def _deployed() -> PaperFigure:
    # Batch norms are folded there, so every filter has a bias. How its 0.124 G are counted is not said.
    return PaperFigure(
        row="rmnet deployed",
        model="rmnet",
        overrides=(("calibration", "none"),),
        input_size=(160, 64),
        params=0.820e6,
        cost=None,
        params_unit="folded_params",
        cost_unit="flops",
        params_tolerance=0.001,
        cost_tolerance=0.0,
        source="Open Model Zoo, person-reidentification-retail-0079",
        results=(PaperResult("Market-1501", 81.63, 91.66),),
    )


FIGURES = (
    _rmnet("rmnet light", (160, 64), 0.12e9, 81.6, 91.7),
    _rmnet("rmnet strong", (384, 128), 0.58e9, 82.5, 92.4),
    _deployed(),
)
