"""When a run has stopped getting better, as a function of its history alone, so that a resumed run decides the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pyreid.training.settings.trainer import EarlyStoppingSettings, TrainerSettings


def has_stalled(history: Sequence[Mapping[str, Any]], settings: EarlyStoppingSettings | None) -> bool:
    """Whether the last ``patience`` evaluations have not raised the best mAP by more than ``min_delta``.

    Args:
        history: the rows of the finished epochs; ``mAP`` is there where an epoch was evaluated.
        settings: None never ends a run.
    """
    if settings is None:
        return False
    best, waited = -math.inf, 0
    for row in history:
        if "mAP" not in row:
            continue
        if row["mAP"] > best + settings.min_delta:
            best, waited = row["mAP"], 0
        else:
            waited += 1
    return waited >= settings.patience


def is_finished(history: Sequence[Mapping[str, Any]], settings: TrainerSettings) -> bool:
    """Whether a run has all its epochs, or has stopped early."""
    return len(history) == settings.epochs or has_stalled(history, settings.early_stopping)
