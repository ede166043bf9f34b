"""The Lightning module: a model, the losses of a recipe, the optimiser and its schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from pyreid.losses import after_step, main_parameters, own_optimizer
from pyreid.training.optimizers import make_optimizer, set_beta1
from pyreid.training.recipe import Recipe
from pyreid.training.schedules import dropout_is_off, make_schedule, steps_of

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
        self._own_optimizer = own_optimizer(objective)  # plain SGD, which has no state to save
        self.pending: list[BatchRecord] = []

    def training_step(self, batch: Sample, batch_idx: int) -> Tensor:
        """The loss of one batch."""
        loss, terms = self.objective(self.model(batch.image), batch.label)
        # default_collate has turned the numbers of the samples into tensors.
        indices = torch.as_tensor(batch.index)
        self.pending.append(BatchRecord(batch_idx, loss.detach(), terms, indices))
        # Lightning divides by the setting also where the epoch's last step has fewer batches.
        return loss * (self.recipe.trainer.accumulate / self._batches_of_step(batch_idx))

    def _batches_of_step(self, batch_idx: int) -> int:
        """Of the step that this batch belongs to: ``trainer.accumulate``, or what is left for the epoch's last."""
        accumulate = self.recipe.trainer.accumulate
        if accumulate == 1:
            return 1
        batches = int(self.trainer.num_training_batches)
        left = batches % accumulate
        return left if left and batch_idx >= batches - left else accumulate

    def on_train_epoch_start(self) -> None:
        """Switch dropout off where the recipe says so; it is no part of the weights, so a resumed run does it again."""
        if dropout_is_off(self.trainer.current_epoch, self.recipe.model.dropout_until):
            for module in self.model.modules():
                if isinstance(module, nn.Dropout):
                    module.p = 0.0

    def on_train_batch_start(self, batch: Sample, batch_idx: int) -> None:
        """Set what depends on how far the run is and is no learning rate."""
        for optimizer in self.trainer.optimizers:
            set_beta1(optimizer, self.recipe.optimizer, self.progress(batch_idx))

    def optimizer_step(self, epoch: int, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        """The step of the main optimiser, then that of the losses' own parameters."""
        super().optimizer_step(epoch, batch_idx, *args, **kwargs)
        if self._own_optimizer is not None:
            self._average_own_gradients(self._own_optimizer, self._batches_of_step(batch_idx))
            self._own_optimizer.step()
            self._own_optimizer.zero_grad()
        after_step(self.objective)

    @staticmethod
    def _average_own_gradients(optimizer: torch.optim.Optimizer, batches: int) -> None:
        """Over the batches of the step: they do not depend on the factor of the loss that accumulation brings."""
        if batches == 1:
            return
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad /= batches

    def progress(self, batch_idx: int = 0) -> float:
        """Epochs done before this batch: a fraction where the recipe fixes the length of an epoch."""
        length = self.recipe.trainer.iterations_per_epoch
        return self.trainer.current_epoch + (batch_idx / length if length else 0)

    def configure_optimizers(self) -> Any:
        """The optimiser of the recipe, and a schedule that steps at each epoch's end or at each step."""
        settings, trainer = self.recipe.optimizer, self.recipe.trainer
        optimizer = make_optimizer([p for p in main_parameters(self) if p.requires_grad], settings)
        factor = make_schedule(self.recipe.schedule, lr=settings.lr, epochs=trainer.epochs)
        if self.recipe.schedule.interval == "epoch":
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "epoch"},
            }
        assert trainer.iterations_per_epoch is not None  # the recipe has been checked
        steps = steps_of(trainer.iterations_per_epoch, trainer.accumulate)
        scheduler = LambdaLR(optimizer, lambda step: factor(step / steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
