"""The weighted sum of losses of a recipe, each on a named output of the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pyreid import losses
from pyreid.errors import RecipeError
from pyreid.losses import WeightedSum
from pyreid.training.custom_losses import evaluate_custom_loss, make_custom_loss
from pyreid.training.recipe_errors import suggest
from pyreid.training.references import split_reference
from pyreid.training.settings.losses import (
    AMSoftmaxSettings,
    ArcFaceSettings,
    BatchHardTripletSettings,
    BatchSoftTripletSettings,
    BuiltInSettings,
    CenterSettings,
    CrossEntropySettings,
    CustomSettings,
    LossSettings,
    LossWeighting,
    PushSettings,
    TripletSettings,
)

if TYPE_CHECKING:
    from pyreid.models import ModelOutput


class Objective(nn.Module):
    """All losses of a recipe; ``forward`` gives the weighted sum and the single terms without their weights.

    Args:
        settings: the ``losses`` part of a recipe.
        num_classes: training identities.
        widths: D of each of the model's embeddings, for losses that learn centres.
        weighting: how the terms are added up.
    """

    def __init__(
        self,
        settings: Sequence[LossSettings],
        *,
        num_classes: int,
        widths: Mapping[str, int] | None = None,
        weighting: LossWeighting | None = None,
    ) -> None:
        super().__init__()
        chosen = weighting or LossWeighting()
        self.settings = tuple(settings)
        self.names = term_names(settings)
        self.terms = nn.ModuleList(_make_losses(settings, num_classes=num_classes, widths=widths or {}))
        self.sum = WeightedSum([item.weight for item in settings], mode=chosen.mode, decay=chosen.decay)

    def forward(self, output: ModelOutput, labels: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            output: what the model returned in ``train()``.
            labels: class labels (N,).

        Returns:
            The weighted sum (scalar, float32), and the terms (number of losses,), detached.
        """
        terms = [
            evaluate_custom_loss(term, pick(output, item), labels)
            if isinstance(item, CustomSettings)
            else term(pick(output, item), labels)
            for item, term in zip(self.settings, self.terms, strict=True)
        ]
        return self.sum(terms), torch.stack(terms).detach()


def term_names(settings: Sequence[LossSettings]) -> tuple[str, ...]:
    """A column name for every loss: its type, with the output's name and then a number where needed to tell apart.

    That of a custom loss has the name of its class besides, as in ``custom_MyLoss``.
    """
    kinds = [_kind(item) for item in settings]
    types = Counter(kinds)
    names = [
        kind if types[kind] == 1 else f"{kind}_{_source(item)}" for kind, item in zip(kinds, settings, strict=True)
    ]
    counts = Counter(names)
    seen: Counter[str] = Counter()
    result = []
    for name in names:
        seen[name] += 1
        result.append(name if counts[name] == 1 else f"{name}_{seen[name]}")
    return tuple(result)


def pick(output: ModelOutput, settings: LossSettings) -> Tensor:
    """The output that a loss wants, in float32: mixed precision ends before the losses."""
    group = output.logits if _takes_logits(settings) else output.embeddings
    return group[_source(settings)].float()


def check_names(output: ModelOutput, settings: Sequence[LossSettings], *, num_classes: int) -> None:
    """Compare the names that the losses want, and the width of the logits, with a real output of the model.

    Raises:
        RecipeError: the model has no such output.
    """
    for index, item in enumerate(settings):
        kind = "logits" if _takes_logits(item) else "embedding"
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


def needs_classifier(settings: Sequence[LossSettings]) -> bool:
    """Whether a loss takes logits, which a model has for a number of classes above 0."""
    return any(_takes_logits(item) for item in settings)


def _takes_logits(settings: LossSettings) -> bool:
    return getattr(settings, "logits", None) is not None


def _kind(settings: LossSettings) -> str:
    return f"custom_{split_reference(settings.loss)[1]}" if isinstance(settings, CustomSettings) else settings.type


def _source(settings: LossSettings) -> str:
    source: str = getattr(settings, "logits" if _takes_logits(settings) else "embedding")
    return source


def _make_losses(settings: Sequence[LossSettings], *, num_classes: int, widths: Mapping[str, int]) -> list[nn.Module]:
    """The losses in their order. Push losses take the centres of the cosine center loss on the same embedding."""
    centers = {
        item.embedding: losses.CenterLoss(
            num_classes,
            widths[item.embedding],
            distance=item.distance,
            reduction=item.reduction,
            center_lr=item.center_lr,
        )
        for item in settings
        if isinstance(item, CenterSettings)
    }
    return [
        make_custom_loss(item, index=index)
        if isinstance(item, CustomSettings)
        else _make_loss(item, centers, num_classes=num_classes)
        for index, item in enumerate(settings)
    ]


def _make_loss(settings: BuiltInSettings, centers: Mapping[str, losses.CenterLoss], *, num_classes: int) -> nn.Module:
    if isinstance(settings, CrossEntropySettings):
        return losses.LabelSmoothingCrossEntropy(eps=settings.smoothing, mode=settings.mode, num_classes=num_classes)
    if isinstance(settings, AMSoftmaxSettings):
        return losses.AMSoftmaxLoss(scale=settings.scale, margin=settings.margin)
    if isinstance(settings, ArcFaceSettings):
        return losses.ArcFaceLoss(scale=settings.scale, margin=settings.margin)
    if isinstance(settings, TripletSettings):
        return losses.TripletLoss(margin=settings.margin, reduction=settings.reduction)
    if isinstance(settings, BatchHardTripletSettings):
        return losses.BatchHardTripletLoss(margin=settings.margin, reduction=settings.reduction)
    if isinstance(settings, BatchSoftTripletSettings):
        return losses.BatchSoftTripletLoss(margin=settings.margin, reduction=settings.reduction)
    if isinstance(settings, CenterSettings):
        return centers[settings.embedding]
    options = settings.model_dump(include={"smart", "margin", "final_margin", "margin_steps", "detach_centers"})
    own = centers.get(settings.embedding)
    if isinstance(settings, PushSettings):
        return losses.PushLoss(own.centers if own is not None and settings.smart else None, **options)
    assert own is not None  # the recipe has been checked
    return losses.GlobPushLoss(own.centers, **options)
