"""The Lightning module: a model, the losses of a recipe, the optimiser and its schedule."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from pyreid.training.recipe import Recipe
from pyreid.training.schedules import make_schedule
from pyreid.training.settings.optimizer import OptimizerSettings, SGDSettings

if TYPE_CHECKING:
    from pyreid.data import Sample
    from pyreid.training.objectives import Objective


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """What is kept of a batch until its optimiser step: for the log, and to name it when something is not finite.

    Attributes:
        batch: 0-based number of the batch in its epoch.
        loss: weighted sum, scalar tensor.
        terms: the single losses (number of losses,).
        indices: positions of the images in the training split (N,).
    """

    batch: int
    loss: Tensor
    terms: Tensor
    indices: Tensor


class ReIDModule(L.LightningModule):
    """Trains ``model`` with ``objective`` as ``recipe`` says.

    Attributes:
        pending: batches since the last optimiser step; :class:`pyreid.training.callbacks.StepMonitor` empties it.
    """

    def __init__(self, model: nn.Module, objective: Objective, recipe: Recipe) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.recipe = recipe
        self.pending: list[BatchRecord] = []

    def training_step(self, batch: Sample, batch_idx: int) -> Tensor:
        """The loss of one batch."""
        loss, terms = self.objective(self.model(batch.image), batch.label)
        # default_collate has turned the numbers of the samples into tensors.
        indices = torch.as_tensor(batch.index)
        self.pending.append(BatchRecord(batch_idx, loss.detach(), terms, indices))
        return loss

    def configure_optimizers(self) -> Any:
        """The optimiser of the recipe, and a schedule that steps at each epoch's end."""
        settings = self.recipe.optimizer
        optimizer = make_optimizer((p for p in self.parameters() if p.requires_grad), settings)
        factor = make_schedule(self.recipe.schedule, lr=settings.lr, epochs=self.recipe.trainer.epochs)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "epoch"}}


def make_optimizer(parameters: Iterable[nn.Parameter], settings: OptimizerSettings) -> torch.optim.Optimizer:
    """The optimiser that the ``optimizer`` part of a recipe asks for."""
    if isinstance(settings, SGDSettings):
        return torch.optim.SGD(
            parameters,
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            nesterov=settings.nesterov,
        )
    return torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay, betas=settings.betas)
