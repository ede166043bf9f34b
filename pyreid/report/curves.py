"""Curves of a training run: loss and mAP over epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyreid.errors import require
from pyreid.training.scores import is_score

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_training(
    history: Sequence[Mapping[str, Any]], *, title: str = "", untrained: tuple[float, float] | None = None
) -> Figure:
    """Draw the loss and its terms on the left, mAP and rank-1 on the right, over epochs.

    Args:
        history: rows of ``metrics.csv``, as in ``TrainingResult.history``.
        title: written above.
        untrained: mAP and rank-1 before training, in 0..1; drawn at epoch 0.

    Raises:
        ValueError: if ``history`` is empty.
        MissingDependencyError: if matplotlib is missing.
    """
    require("matplotlib", extra="train")
    from matplotlib.figure import Figure

    if not history:
        raise ValueError("history: expected at least one epoch, got none")
    figure = Figure(figsize=(11, 4), layout="constrained")
    figure.suptitle(title)
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    known = {"epoch", "step", "lr", "loss", "grad_norm", "mAP", "rank1", "rank5", "rank10", "mINP"}
    terms = [name for name in history[0] if name not in known and not is_score(name)]
    left.plot(epochs, [row["loss"] for row in history], color="black", marker="o", label="loss")
    for term in terms:
        left.plot(epochs, [row[term] for row in history], linestyle="--", label=term)
    left.set(xlabel="epoch", ylabel="mean loss of the epoch")
    left.legend()

    evaluated = [row for row in history if row.get("mAP") is not None]
    for column, (key, label, marker) in enumerate((("mAP", "mAP", "o"), ("rank1", "rank-1", "s"))):
        points = [(row["epoch"], 100 * row[key]) for row in evaluated]
        if untrained is not None:
            points.insert(0, (0, 100 * untrained[column]))
        right.plot(*zip(*points, strict=True), marker=marker, label=label)
    right.set(xlabel="epoch", ylabel="%", ylim=(0, 100))
    right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return figure
