"""What a trainer owes to losses that learn something themselves or change from step to step.

A loop of your own, with ``loss`` a loss or any module that holds losses, needs four lines for them::

    optimizer = torch.optim.AdamW(main_parameters(nn.ModuleList([model, loss])))
    own = own_optimizer(loss)  # None if no loss has parameters of its own
    ...
    optimizer.step()
    if own is not None:
        own.step()
        own.zero_grad()
    after_step(loss)  # once for each optimiser step, after it
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn


class SteppedModule(nn.Module):
    """A part of a loss that takes part in every optimiser step.

    Subclasses override what they need. The functions of this module find them inside of any other module, each once.
    """

    def own_lr(self) -> float | None:
        """Learning rate of this module's own parameters; None if they belong to the main optimiser.

        Own parameters learn by plain SGD, without momentum and weight decay, so that their optimiser has no state to
        save. Their gradients do not depend on the weight of the loss, nor on the scale of mixed precision.
        """
        return None

    def after_step(self) -> None:
        """What is to be done once after each optimiser step. It does not wait for the device."""


def own_optimizer(module: nn.Module) -> torch.optim.SGD | None:
    """An optimiser for all parameters that do not belong to the main one.

    Args:
        module: a loss, or what holds losses.

    Returns:
        Plain SGD with a group of parameters, at its own learning rate, for each module that has some; None if none has.
    """
    groups = [
        {"params": list(item.parameters(recurse=False)), "lr": item.own_lr()} for item in _with_own_parameters(module)
    ]
    return torch.optim.SGD(groups, lr=0.0) if groups else None


def main_parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters of ``module`` that the main optimiser is for: all but those of :func:`own_optimizer`."""
    own = {id(p) for item in _with_own_parameters(module) for p in item.parameters(recurse=False)}
    return (p for p in module.parameters() if id(p) not in own)


def after_step(module: nn.Module) -> None:
    """Let every loss in ``module`` do what is due after an optimiser step, such as to normalise its centres."""
    for item in module.modules():
        if isinstance(item, SteppedModule):
            item.after_step()


def _with_own_parameters(module: nn.Module) -> list[SteppedModule]:
    return [item for item in module.modules() if isinstance(item, SteppedModule) and item.own_lr() is not None]
