"""The learning rate over the epochs, as pure functions of the epoch.

A schedule is a factor of the optimiser's learning rate: the warm-up's factor times the decay's. Epochs count from 0,
and may be fractions. The factor depends on the epoch alone, so a resumed run follows the same curve.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence

from pyreid.training.settings.schedule import CosineDecay, ExponentialDecay, MultiStepDecay, ScheduleSettings, StepDecay


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


def exponential(epoch: float, *, start: float, end: float, final: float) -> float:
    """1 up to ``start``, then by equal factors down to ``final`` at ``end`` (DaRe, eq. 4)."""
    if epoch <= start:
        return 1.0
    return final ** ((min(epoch, end) - start) / (end - start))


def cosine_cycles(epoch: float, *, length: int, count: int, lr: float, decay: float, min_lr: float) -> float:
    """Learning rate of cyclic half cosines, the first of which begins at epoch 0 (Compact-ReID, Sect. 3.1).

    Cycle c goes from ``lr * decay^c`` to ``min_lr``; after the last one it stays at ``min_lr``.
    """
    cycle = int(epoch // length)
    if cycle >= count:
        return min_lr
    peak = lr * decay**cycle
    return min_lr + 0.5 * (peak - min_lr) * (1.0 + math.cos(math.pi * (epoch - cycle * length) / length))


def dropout_is_off(epoch: float, until: int | None) -> bool:
    """Whether ``model.dropout_until`` has switched dropout off when so many epochs are done (RMNet, Sect. V)."""
    return until is not None and epoch >= until


def steps_of(batches: int, accumulate: int) -> int:
    """Optimiser steps of an epoch of so many batches, ``accumulate`` of which make a step; the last may have fewer."""
    return math.ceil(batches / accumulate)


def make_schedule(settings: ScheduleSettings, *, lr: float, epochs: int) -> Callable[[float], float]:
    """The factor of the learning rate as a function of the epoch.

    Args:
        settings: the ``schedule`` part of a recipe.
        lr: the optimiser's learning rate, to turn absolute learning rates into factors.
        epochs: epochs of the whole run, where the decay ends.
    """
    warmup, decay, cycles = settings.warmup, settings.decay, settings.cycles
    begin = warmup.epochs if warmup is not None else 0
    end = cycles.begin if cycles is not None else epochs

    def factor(epoch: float) -> float:
        if cycles is not None and epoch >= cycles.begin:
            after = epoch - cycles.begin
            options = cycles.model_dump(exclude={"begin"})
            return cosine_cycles(after, **options) / lr
        result = linear_warmup(epoch, epochs=begin, start=warmup.start) if warmup is not None else 1.0
        after = max(epoch - begin, 0)
        if isinstance(decay, MultiStepDecay):
            result *= multi_step(epoch, milestones=decay.milestones, gamma=decay.gamma)
        elif isinstance(decay, StepDecay):
            result *= step(after, every=decay.every, gamma=decay.gamma)
        elif isinstance(decay, CosineDecay):
            result *= cosine(after, epochs=end - begin, floor=decay.min_lr / lr)
        elif isinstance(decay, ExponentialDecay):
            result *= exponential(epoch, start=decay.start, end=end, final=decay.final)
        return result

    return factor
