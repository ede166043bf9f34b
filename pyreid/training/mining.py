"""Rounds of hard sample mining: the level of the augmentation, and the scores of a pool (RMNet)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader

from pyreid.errors import TrainingError
from pyreid.inference.embedding import device_of, evaluating
from pyreid.models.base import ModelOutput
from pyreid.training.objectives import Objective, pick
from pyreid.training.settings.data import DataSettings

if TYPE_CHECKING:
    from pyreid.data import ImageDataset, SampleKey

_MILD_AREA = 0.1  # largest erased share at level 0


def level_of(epoch: int, full_after: int) -> float:
    """Level of the augmentation in a round, counted from 0: from 0 up to 1 after ``full_after`` rounds."""
    return min(1.0, epoch / full_after)


def at_level(data: DataSettings, level: float) -> DataSettings:
    """The augmentation of ``data`` at a level in [0, 1]; see :class:`MiningSettings` for what it changes."""
    if not 0 <= level <= 1:
        raise ValueError(f"level: got {level}, expected a number in [0, 1]")
    changes: dict[str, Any] = {"pad": round(data.pad * level)}
    if data.erasing is not None:
        low, high = data.erasing.area
        mild = max(low, min(_MILD_AREA, high))
        changes["erasing"] = data.erasing.model_copy(
            update={
                "probability": data.erasing.probability * level,
                "area": (low, high if level == 1 else mild + level * (high - mild)),
            }
        )
    if data.translation is not None:
        scale = 1 + level * (data.translation.scale - 1)
        changes["translation"] = data.translation.model_copy(update={"scale": scale})
    if data.jitter is not None:
        strengths = {name: level * strength for name, strength in data.jitter.model_dump().items()}
        changes["jitter"] = data.jitter.model_copy(update=strengths)
    if data.lighting is not None:
        changes["lighting"] = data.lighting.model_copy(update={"std": level * data.lighting.std})
    return data.model_copy(update=changes)


def score(
    model: nn.Module,
    objective: Objective,
    images: ImageDataset,
    keys: Sequence[SampleKey],
    *,
    terms: Sequence[str],
    batch_size: int,
    workers: int = 0,
) -> NDArray[np.float64]:
    """The weighted sum of the chosen losses of each image, in evaluation mode and without gradients.

    Afterwards all modules are in the mode they were in; no statistics and no random state have changed.

    Args:
        model: of the zoo, with its classifier.
        objective: its losses; those of the types ``terms`` are taken, with their present weights.
        images: the augmented training split.
        keys: N images.
        terms: types of losses.
        batch_size: images per forward pass.
        workers: processes that decode images.

    Returns:
        (N,).

    Raises:
        TrainingError: a score is not finite; the message names the image.
    """
    loader = DataLoader(
        images,
        batch_sampler=[list(keys[i : i + batch_size]) for i in range(0, len(keys), batch_size)],
        num_workers=workers,
        generator=torch.Generator().manual_seed(0),  # of its own, so that none is drawn from the global one
    )
    weights = torch.tensor(objective.sum.base_weights) * objective.sum.factors().cpu()
    chosen = [number for number, item in enumerate(objective.settings) if item.type in terms]
    scores = []
    with torch.no_grad(), evaluating(model, None) as _, _by_image([objective.terms[i] for i in chosen]):
        # The network's own flag alone: it gives the outputs of training, and all layers are in evaluation mode.
        model.training = True
        for batch in loader:
            output = model(batch.image.to(device_of(model)))
            assert isinstance(output, ModelOutput)
            labels = batch.label.to(device_of(model))
            values = [
                float(weights[i]) * objective.terms[i](pick(output, objective.settings[i]), labels).double().cpu()
                for i in chosen
            ]
            scores.append(torch.stack(values).sum(0))
    found = torch.cat(scores).numpy()
    wrong = ~np.isfinite(found)
    if wrong.any():
        path = images.records[keys[int(wrong.argmax())].index].path
        raise TrainingError(f"the score of {path.name} in hard sample mining is not finite; try a lower optimizer.lr")
    return found


@contextmanager
def _by_image(losses: Sequence[Any]) -> Iterator[None]:
    """Have losses give a value for each image for a block."""
    before = [loss.reduction for loss in losses]
    try:
        for loss in losses:
            loss.reduction = "none"
        yield
    finally:
        for loss, reduction in zip(losses, before, strict=True):
            loss.reduction = reduction
