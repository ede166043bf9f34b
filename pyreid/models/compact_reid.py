"""Compact-ReID: HA-CNN with shuffle blocks, generalised-mean pooling and unit-length features ("Compact Network
Training for Person ReID", Sect. 3.2 and Table 1).

The rows of the paper's ablation (Table 3) are overrides: ``pooling="avg"`` for "no GeM", ``l2_norm=False``,
``block="inception"`` for "no shuffle blocks", and ``compact_reid_1x`` for "no deeper & wider".

The repeats of Table 1 are Shuffle-A blocks, so with ``block="inception"`` there are none: two Inception blocks in each
stage, as HA-CNN has them, at Compact-ReID's widths. ``repeats1`` to ``repeats3`` add Inception-A blocks where that is
wanted.
"""

from __future__ import annotations

from pyreid.models.hacnn import Block, HACNNConfig
from pyreid.models.registry import register_model


def _repeats(block: Block, of_table_1: tuple[int, int, int]) -> tuple[int, int, int]:
    """The repeated blocks of the three stages, which only shuffle blocks have."""
    return of_table_1 if block == "shuffle" else (0, 0, 0)


@register_model
def compact_reid_1x(block: Block = "shuffle") -> HACNNConfig:
    """Compact-ReID 1x: 2.9 M parameters; shuffle blocks, soft and hard attention, GeM pooling; 160x64."""
    repeats1, repeats2, repeats3 = _repeats(block, (7, 10, 7))
    return HACNNConfig(
        block=block,
        pooling="gem",
        l2_norm=True,
        repeats1=repeats1,
        repeats2=repeats2,
        repeats3=repeats3,
        classifier_bias=False,
    )


@register_model
def compact_reid_2x(block: Block = "shuffle") -> HACNNConfig:
    """Compact-ReID 2x: the deeper and wider one, 5.8 M parameters and 2.4 times the cost; 160x64.

    The paper counts 6.4 M parameters, which no reading of its Table 1 gives together with the printed widths;
    ``feat_dim_local=1280`` comes to that number.
    """
    repeats1, repeats2, repeats3 = _repeats(block, (8, 11, 8))
    return HACNNConfig(
        block=block,
        pooling="gem",
        l2_norm=True,
        stem_width=36,
        width1=240,
        width2=320,
        width3=480,
        repeats1=repeats1,
        repeats2=repeats2,
        repeats3=repeats3,
        feat_dim_global=960,
        feat_dim_local=960,
        classifier_bias=False,
    )
