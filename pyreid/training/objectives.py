"""The weighted sum of losses of a recipe, each on a named output of the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pyreid.errors import RecipeError
from pyreid.training.recipe_errors import suggest
from pyreid.training.settings.losses import BatchHardTripletSettings, CrossEntropySettings, LossSettings

if TYPE_CHECKING:
    from pyreid.models import ModelOutput


class Objective(nn.Module):
    """All losses of a recipe; ``forward`` gives the weighted sum and the single terms without their weights."""

    def __init__(self, settings: Sequence[LossSettings], *, num_classes: int) -> None:
        super().__init__()
        self.settings = tuple(settings)
        self.names = term_names(settings)
        self.terms = nn.ModuleList(_make_loss(item, num_classes=num_classes) for item in settings)

    def forward(self, output: ModelOutput, labels: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            output: what the model returned in ``train()``.
            labels: class labels (N,).

        Returns:
            The weighted sum (scalar, float32), and the terms (number of losses,), detached.
        """
        terms = [term(pick(output, item), labels) for item, term in zip(self.settings, self.terms, strict=True)]
        total = torch.stack([item.weight * term for item, term in zip(self.settings, terms, strict=True)]).sum()
        return total, torch.stack(terms).detach()


def term_names(settings: Sequence[LossSettings]) -> tuple[str, ...]:
    """A column name for every loss: its type, with the output's name and then a number where needed to tell apart."""
    types = Counter(item.type for item in settings)
    names = [item.type if types[item.type] == 1 else f"{item.type}_{_source(item)}" for item in settings]
    counts = Counter(names)
    seen: Counter[str] = Counter()
    result = []
    for name in names:
        seen[name] += 1
        result.append(name if counts[name] == 1 else f"{name}_{seen[name]}")
    return tuple(result)


def pick(output: ModelOutput, settings: LossSettings) -> Tensor:
    """The output that a loss wants, in float32: mixed precision ends before the losses."""
    group = output.logits if isinstance(settings, CrossEntropySettings) else output.embeddings
    return group[_source(settings)].float()


def check_names(output: ModelOutput, settings: Sequence[LossSettings], *, num_classes: int) -> None:
    """Compare the names that the losses want, and the width of the logits, with a real output of the model.

    Raises:
        RecipeError: the model has no such output.
    """
    for index, item in enumerate(settings):
        kind = "logits" if isinstance(item, CrossEntropySettings) else "embedding"
        group = output.logits if kind == "logits" else output.embeddings
        source = _source(item)
        if source not in group:
            known = sorted(group)
            has = suggest(source, known) if known else f"; it has no {kind} at all"
            raise RecipeError(f"'losses.{index}.{kind}' is {source!r}, which the model does not give{has}")
        if kind == "logits" and group[source].shape[-1] != num_classes:
            raise RecipeError(
                f"'losses.{index}.logits' is {source!r} with {group[source].shape[-1]} classes, "
                f"but the training set has {num_classes} identities"
            )


def _source(settings: LossSettings) -> str:
    return settings.logits if isinstance(settings, CrossEntropySettings) else settings.embedding


def _make_loss(settings: LossSettings, *, num_classes: int) -> nn.Module:
    from pyreid import losses

    if isinstance(settings, CrossEntropySettings):
        return losses.LabelSmoothingCrossEntropy(eps=settings.smoothing, mode=settings.mode, num_classes=num_classes)
    if isinstance(settings, BatchHardTripletSettings):
        return losses.BatchHardTripletLoss(margin=settings.margin)
    return losses.BatchSoftTripletLoss(margin=settings.margin)
