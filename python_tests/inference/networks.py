"""The zoo's networks for the tests of deployment: warmed up, small, and marked where they are slow."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import pyreid
from pyreid.models import list_models, rmnet

# One of each kind of layer and operator; exporting any of the others takes longer than ten seconds.
QUICK = ("rmnet", "safr_small", "trinet_r18")


def every_model(quick: tuple[str, ...] = QUICK) -> list[Any]:
    """The registered names as parameters; all that are not quick have the mark ``slow``."""
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in list_models()]


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
