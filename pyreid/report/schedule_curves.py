"""What changes over the epochs of a recipe: learning rate, beta1, dropout, margins, mining, averaging."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pyreid.errors import require
from pyreid.training.schedules import dropout_is_off, make_schedule, steps_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pyreid.training.recipe import Recipe

_POINTS = 4000  # of a curve that changes within the epochs, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleCurves:
    """The course of a recipe, computed by the functions that drive its training.

    Attributes:
        epochs: N points in time in epochs done: the starts of the epochs, or finer with ``interval: iteration``.
        lr: learning rate at each.
        beta1: Adam's beta1; None where the recipe does not change it.
        dropout: 1 while dropout is on and 0 after ``model.dropout_until``; None where it is never switched off.
        margins: margins that grow, by the name of their loss; empty where none does, or where the number of steps of
            an epoch depends on the images.
        mining: level of the augmentation in each round of hard sample mining; None without.
        averaged: epochs done when weights are collected for SWAG.
        end: epochs of the run.
    """

    epochs: tuple[float, ...]
    lr: tuple[float, ...]
    beta1: tuple[float, ...] | None = None
    dropout: tuple[int, ...] | None = None
    margins: dict[str, tuple[float, ...]] = field(default_factory=dict)
    mining: tuple[float, ...] | None = None
    averaged: tuple[int, ...] = ()
    end: int


def schedule_curves(recipe: Recipe) -> ScheduleCurves:
    """The curves of a recipe.

    Args:
        recipe: see :func:`pyreid.training.load_recipe`.
    """
    from pyreid.training.mining import level_of
    from pyreid.training.optimizers import beta1_at

    times = _times(recipe)
    lr, end = recipe.optimizer.lr, recipe.trainer.epochs
    factor = make_schedule(recipe.schedule, lr=lr, epochs=end)
    until, cycles, mining = recipe.model.dropout_until, recipe.schedule.cycles, recipe.mining
    beta1 = tuple(value for time in times if (value := beta1_at(recipe.optimizer, time)) is not None)
    return ScheduleCurves(
        epochs=times,
        lr=tuple(lr * factor(time) for time in times),
        beta1=beta1 or None,
        dropout=None if until is None else tuple(int(not dropout_is_off(int(time), until)) for time in times),
        margins=_margins(recipe, times),
        mining=None if mining is None else tuple(level_of(int(time), mining.full_after) for time in times),
        averaged=tuple(cycles.ends) if recipe.swag is not None and cycles is not None else (),
        end=end,
    )


def _times(recipe: Recipe) -> tuple[float, ...]:
    """Every epoch, or every step as far as that are not too many."""
    epochs, length = recipe.trainer.epochs, recipe.trainer.iterations_per_epoch
    if recipe.schedule.interval == "epoch" or length is None:
        return tuple(float(epoch) for epoch in range(epochs))
    parts = min(steps_of(length, recipe.trainer.accumulate), max(1, _POINTS // epochs))
    return tuple(number / parts for number in range(epochs * parts))


def steps_per_epoch(recipe: Recipe) -> int | None:
    """Optimiser steps of an epoch with the published data set; None where the images decide on the batches."""
    from pyreid.data.hard_samples import HardSampleSampler
    from pyreid.data.registry import get_layout

    settings, facts = recipe.sampler, get_layout(recipe.data.dataset).facts
    batches = recipe.trainer.iterations_per_epoch
    if batches is None and recipe.mining is not None and recipe.mining.batches == "shuffled":
        if facts is None or facts.train_ids is None:
            return None
        batches = len(
            HardSampleSampler(
                range(facts.train_ids),
                per_identity=recipe.mining.per_identity,
                num_ids=settings.num_ids,
                num_instances=settings.num_instances,
                share=recipe.mining.share,
                share_of=recipe.mining.share_of,
            )
        )
        batches //= recipe.trainer.num_devices
    return None if batches is None else steps_of(batches, recipe.trainer.accumulate)


def _margins(recipe: Recipe, times: Sequence[float]) -> dict[str, tuple[float, ...]]:
    from pyreid.training.objectives import term_names

    steps = steps_per_epoch(recipe)
    if steps is None:
        return {}
    return {
        name: _margin_curve(loss, [int(time * steps) for time in times])
        for name, loss in zip(term_names(recipe.losses), recipe.losses, strict=True)
        if getattr(loss, "final_margin", None) is not None
    }


def _margin_curve(loss: Any, steps: Sequence[int]) -> tuple[float, ...]:
    import torch

    from pyreid.losses import GrowingMargin

    margin = GrowingMargin(loss.margin, end=loss.final_margin, steps=loss.margin_steps)
    values = []
    for step in steps:
        margin.step.fill_(step)
        values.append(float(margin(torch.float64)))
    return tuple(values)


def plot_schedule(curves: ScheduleCurves, *, title: str = "") -> Figure:
    """Draw the learning rate, and below it each other thing that the recipe changes.

    Args:
        curves: see :func:`schedule_curves`.
        title: written above.

    Raises:
        MissingDependencyError: matplotlib is missing.
    """
    require("matplotlib", extra="train")
    from matplotlib.figure import Figure

    panels: list[tuple[str, dict[str, Sequence[float]]]] = [("learning rate", {"lr": curves.lr})]
    if curves.beta1 is not None:
        panels.append(("beta1", {"beta1": curves.beta1}))
    if curves.dropout is not None:
        panels.append(("dropout", {"dropout": curves.dropout}))
    if curves.margins:
        panels.append(("margin", dict(curves.margins)))
    if curves.mining is not None:
        panels.append(("mining level", {"mining": curves.mining}))
    figure = Figure(figsize=(9, 2.2 + 1.6 * len(panels)), layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(
        len(panels), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": [2, *[1] * (len(panels) - 1)]}
    )
    times = [*curves.epochs, float(curves.end)]
    for (label, lines), axes in zip(panels, grid[:, 0], strict=True):
        for name, values in lines.items():
            # The last value holds until the end of the run.
            axes.step(times, [*values, values[-1]], where="post", label=name)
        axes.set(ylabel=label)
        axes.grid(alpha=0.3)
        if len(lines) > 1:
            axes.legend(loc="lower right")
    top, bottom = grid[0, 0], grid[-1, 0]
    top.set(ylim=(0, None))
    if curves.dropout is not None:
        index = [label for label, _ in panels].index("dropout")
        grid[index, 0].set_yticks([0, 1], ["off", "on"])
    for number, epoch in enumerate(curves.averaged):
        top.axvline(epoch, color="tab:red", alpha=0.4, linewidth=1, label="weights averaged" if number == 0 else None)
    if curves.averaged:
        top.legend()
    bottom.set(xlabel="epochs done")
    return figure
