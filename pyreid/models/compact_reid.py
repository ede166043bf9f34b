"""Compact-ReID: HA-CNN with shuffle blocks, generalised-mean pooling and unit-length features ("Compact Network
Training for Person ReID", Sect. 3.2 and Table 1).

The rows of the paper's ablation (Table 3) are overrides: ``pooling="avg"`` for "no GeM", ``l2_norm=False``,
``block="inception"`` with no repeats for "no shuffle blocks", and ``compact_reid_1x`` for "no deeper & wider".
"""

from __future__ import annotations

from pyreid.models.hacnn import HACNNConfig
from pyreid.models.registry import register_model


@register_model
def compact_reid_1x() -> HACNNConfig:
    """Compact-ReID 1x: 2.9 M parameters; shuffle blocks, soft and hard attention, GeM pooling; 160x64."""
    return HACNNConfig(
        block="shuffle",
        pooling="gem",
        l2_norm=True,
        repeats1=7,
        repeats2=10,
        repeats3=7,
        classifier_bias=False,
    )


@register_model
def compact_reid_2x() -> HACNNConfig:
    """Compact-ReID 2x: the deeper and wider one, 5.8 M parameters and 2.4 times the cost; 160x64.

    The paper counts 6.4 M parameters, which no reading of its Table 1 gives together with the printed widths;
    ``feat_dim_local=1280`` comes to that number.
    """
    return HACNNConfig(
        block="shuffle",
        pooling="gem",
        l2_norm=True,
        stem_width=36,
        width1=240,
        width2=320,
        width3=480,
        repeats1=8,
        repeats2=11,
        repeats3=8,
        feat_dim_global=960,
        feat_dim_local=960,
        classifier_bias=False,
    )
