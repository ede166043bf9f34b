"""The learning rate over the epochs, as pure functions of the epoch.

A schedule is a factor of the optimiser's learning rate: the warm-up's factor times the decay's. Epochs count from 0,
and may be fractions. The factor depends on the epoch alone, so a resumed run follows the same curve.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence

from pyreid.training.settings.schedule import CosineDecay, MultiStepDecay, ScheduleSettings, StepDecay


def linear_warmup(epoch: float, *, epochs: int, start: float) -> float:
    """From ``start`` at epoch 0 in a straight line to 1 at epoch ``epochs``, then 1 (SAFR, Sect. 5.1: 0.1 and 10)."""
    if epoch >= epochs:
        return 1.0
    return start + (1.0 - start) * epoch / epochs


def multi_step(epoch: float, *, milestones: Sequence[int], gamma: float) -> float:
    """``gamma`` to the power of the number of ``milestones`` that are reached; the milestone's own epoch counts."""
    return gamma ** bisect_right(milestones, epoch)


def step(epoch: float, *, every: int, gamma: float) -> float:
    """``gamma`` to the power of the number of whole periods of ``every`` epochs."""
    return gamma ** (int(epoch) // every)


def cosine(epoch: float, *, epochs: int, floor: float) -> float:
    """Half a cosine from 1 at epoch 0 to ``floor`` at ``epochs``, then ``floor``."""
    if epoch >= epochs:
        return floor
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * epoch / epochs))


def make_schedule(settings: ScheduleSettings, *, lr: float, epochs: int) -> Callable[[float], float]:
    """The factor of the learning rate as a function of the epoch.

    Args:
        settings: the ``schedule`` part of a recipe.
        lr: the optimiser's learning rate, to turn the cosine's absolute ``min_lr`` into a factor.
        epochs: epochs of the whole run, where the cosine ends.
    """
    warmup, decay = settings.warmup, settings.decay
    begin = warmup.epochs if warmup is not None else 0

    def factor(epoch: float) -> float:
        result = linear_warmup(epoch, epochs=begin, start=warmup.start) if warmup is not None else 1.0
        after = max(epoch - begin, 0)
        if isinstance(decay, MultiStepDecay):
            result *= multi_step(epoch, milestones=decay.milestones, gamma=decay.gamma)
        elif isinstance(decay, StepDecay):
            result *= step(after, every=decay.every, gamma=decay.gamma)
        elif isinstance(decay, CosineDecay):
            result *= cosine(after, epochs=epochs - begin, floor=decay.min_lr / lr)
        return result

    return factor
