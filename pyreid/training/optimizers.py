"""The optimiser that a recipe asks for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from pyreid.training.settings.optimizer import AdamSettings, AdamWSettings, OptimizerSettings

_CLASSES: dict[str, type[torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
}


def make_optimizer(
    parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]], settings: OptimizerSettings
) -> torch.optim.Optimizer:
    """The optimiser that the ``optimizer`` part of a recipe asks for, over parameters or parameter groups."""
    options = settings.model_dump(exclude={"type", "late_beta1"})
    return _CLASSES[settings.type](parameters, **options)


def beta1_at(settings: OptimizerSettings, epoch: float) -> float | None:
    """Adam's beta1 when so many epochs are done (a fraction); None where the recipe does not change it."""
    if not isinstance(settings, AdamSettings | AdamWSettings) or settings.late_beta1 is None:
        return None
    late = settings.late_beta1
    return late.value if epoch >= late.epoch else settings.betas[0]


def set_beta1(optimizer: torch.optim.Optimizer, settings: OptimizerSettings, epoch: float) -> None:
    """Give Adam the beta1 that the recipe has for this epoch (a fraction, from 0); others are left alone."""
    beta1 = beta1_at(settings, epoch)
    if beta1 is None:
        return
    for group in optimizer.param_groups:
        group["betas"] = (beta1, group["betas"][1])
