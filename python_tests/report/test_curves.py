from __future__ import annotations

import pytest

from pyreid.report import plot_training

HISTORY = [
    {"epoch": 1, "step": 4, "lr": 0.1, "loss": 3.0, "id": 2.0, "triplet": 1.0, "grad_norm": 1.0},
    {
        "epoch": 2,
        "step": 8,
        "lr": 0.1,
        "loss": 2.0,
        "id": 1.5,
        "triplet": 0.5,
        "grad_norm": 1.0,
        "mAP": 0.4,
        "rank1": 0.5,
    },
]


def test_curves_hold_the_numbers() -> None:
    figure = plot_training(HISTORY, title="run", untrained=(0.1, 0.05))
    left, right = figure.axes
    lines = {line.get_label(): line for line in (*left.get_lines(), *right.get_lines())}
    assert list(lines["loss"].get_ydata()) == [3.0, 2.0]
    assert list(lines["triplet"].get_ydata()) == [1.0, 0.5]
    assert list(lines["mAP"].get_xdata()) == [0, 2]
    assert list(lines["mAP"].get_ydata()) == [10.0, 40.0]
    assert list(lines["rank-1"].get_ydata()) == [5.0, 50.0]
    assert "grad_norm" not in lines


def test_empty_history_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected at least one epoch"):
        plot_training([])
