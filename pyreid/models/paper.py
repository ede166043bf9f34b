"""How our models compare with the papers' figures."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn

from pyreid.models.base import ReIDModel
from pyreid.models.complexity import Complexity, complexity
from pyreid.models.figures import FIGURES, PaperFigure
from pyreid.models.registry import create_model


@dataclasses.dataclass(frozen=True, slots=True)
class PaperRow:
    """One row of the comparison: the paper's figure, ours, and the relative differences."""

    figure: PaperFigure
    params: int
    cost: int

    @property
    def params_difference(self) -> float | None:
        """(ours - paper) / paper; None if the paper prints no parameters."""
        return _difference(self.params, self.figure.params)

    @property
    def cost_difference(self) -> float | None:
        """(ours - paper) / paper; None if the paper prints no cost."""
        return _difference(self.cost, self.figure.cost)

    @property
    def within_tolerance(self) -> bool:
        """Whether both, as far as there are figures, are within the figure's tolerances or its range of costs."""
        if not _within(self.params_difference, self.figure.params_tolerance):
            return False
        if self.figure.cost_range is not None:
            low, high = self.figure.cost_range
            return low <= self.cost <= high
        return _within(self.cost_difference, self.figure.cost_tolerance)


def _difference(ours: int, paper: float | None) -> float | None:
    return None if paper is None else ours / paper - 1


def _within(difference: float | None, tolerance: float) -> bool:
    return difference is None or abs(difference) <= tolerance


def paper_figures(model: str | None = None) -> tuple[PaperFigure, ...]:
    """The papers' figures, of all models or of one."""
    return tuple(figure for figure in FIGURES if model is None or figure.model == model)


@dataclasses.dataclass(frozen=True, slots=True)
class ModelCard:
    """A model with its default settings: input size (H, W), embedding width and complexity at that size."""

    name: str
    input_size: tuple[int, int]
    embedding_dim: int
    complexity: Complexity


def measure_default(name: str) -> ModelCard:
    """The card of a model of the zoo, built without data."""
    with torch.device("meta"):
        model = create_model(name)
        return ModelCard(name, model.default_input_size, model.embedding_dim, complexity(model))


def measure(name: str, *, input_size: tuple[int, int] | None = None, **overrides: Any) -> Complexity:
    """Complexity of a model of the zoo, built without data; the input size is the model's default unless given."""
    with torch.device("meta"):
        return complexity(create_model(name, **overrides), input_size)


def compare(figure: PaperFigure) -> PaperRow:
    """One figure next to ours, counted the same way."""
    with torch.device("meta"):
        model = create_model(figure.model, **dict(figure.overrides))
    ours = complexity(model, figure.input_size, include_classifier=figure.classifier)
    cost = getattr(ours, figure.cost_unit)
    if figure.classifier:
        cost += _classifier_cost(model, figure)
    return PaperRow(figure, getattr(ours, figure.params_unit), cost)


def paper_table(model: str | None = None) -> list[PaperRow]:
    """Every figure of the papers next to ours, counted the same way; of all models or of one."""
    return [compare(figure) for figure in paper_figures(model)]


def _classifier_cost(model: ReIDModel, figure: PaperFigure) -> int:
    """Of the classifier's linear layers, which :func:`complexity` never runs: one multiply-accumulate for a weight."""
    layers = [layer for layer in model.get_submodule("classifier").modules() if isinstance(layer, nn.Linear)]
    return (2 if figure.cost_unit == "flops" else 1) * sum(layer.weight.numel() for layer in layers)
