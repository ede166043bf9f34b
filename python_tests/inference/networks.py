"""The zoo's networks for the tests of deployment: warmed up, small, and marked where they are slow."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import pyreid
from pyreid.models import list_models, rmnet

# What no small backbone stands for: grouped convolutions, a DenseNet, three networks in one.
SLOW = ("cw_se_resnext50", "dare_d201", "trinet_ensemble")


def every_model() -> list[Any]:
    """The registered names as parameters; those that stay large have the mark ``slow``."""
    return [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in list_models()]


def small_overrides(name: str) -> dict[str, Any]:
    """What makes a model of the zoo small and leaves every kind of layer in it: fewer blocks, a tiny ResNet."""
    if name == "dare_d201":
        return {"backbone": "densenet121"}
    if name.startswith("compact_reid"):
        return {"repeats1": 1, "repeats2": 0, "repeats3": 0}
    own = ("trinet_ensemble", "hacnn", "rmnet", "safr_micro", "cw_mobilenet", "cw_se_resnext", "shufflenet")
    return {} if name.startswith(own) else {"backbone": "test_resnet"}


def small_size(name: str) -> tuple[int, int]:
    """A small image that the network takes."""
    return (160, 64) if name.startswith(("hacnn", "compact_reid")) else (64, 48)


def shorten_rmnet(patch: pytest.MonkeyPatch) -> None:
    """One block of stride 1 and one of stride 2 instead of 36 in all."""
    patch.setattr(rmnet, "STAGES", ((32, 1), (256, 0)))


def warmed_up(name: str, **overrides: object) -> nn.Module:
    """A model whose batch norms have seen data and whose branches all count, in evaluation mode."""
    torch.manual_seed(0)
    model = pyreid.create_model(name, **overrides)  # type: ignore[arg-type]
    with torch.no_grad():
        for module in model.modules():
            # some start at 0, which would hide all that comes before
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.weight is not None:
                nn.init.uniform_(module.weight, 0.8, 1.2)
        for _ in range(3):
            model(torch.randn(4, 3, *small_size(name)))
    return model.eval()
