"""ShuffleNetV2+ Small, as its authors publish it for ImageNet: what SAFR-Micro is built on, as a check of the trunk."""

from __future__ import annotations

from pyreid.models.figures.base import PaperFigure

FIGURES = (
    PaperFigure(
        row="shufflenet_v2_plus_small",
        model="shufflenet_v2_plus_small",
        overrides=(("num_classes", 1000),),
        input_size=(224, 224),
        params=5.1e6,
        cost=156e6,
        params_unit="params",
        cost_unit="macs",
        params_tolerance=0.01,
        cost_tolerance=0.01,
        source="ShuffleNetV2+, the authors' table for ImageNet",
        results=(),
        classifier=True,
    ),
)
