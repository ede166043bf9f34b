"""Whether a machine has the devices that a recipe asks for, and which is whose."""

from __future__ import annotations

import torch

from pyreid.errors import RecipeError
from pyreid.training.processes import Ranks
from pyreid.training.recipe import Recipe


def on_gpu(recipe: Recipe) -> bool:
    """Whether the run computes on CUDA devices."""
    return recipe.trainer.accelerator != "cpu" and torch.cuda.is_available()


def device_of_rank(recipe: Recipe, ranks: Ranks) -> torch.device:
    """The device of a process."""
    if not on_gpu(recipe):
        return torch.device("cpu")
    devices = recipe.trainer.devices
    return torch.device("cuda", devices[ranks.local_rank] if isinstance(devices, tuple) else ranks.local_rank)


def check_devices(recipe: Recipe, ranks: Ranks) -> None:
    """Compare a recipe with the machine and with the processes that are there.

    Raises:
        RecipeError: names the key that does not fit.
    """
    settings, gpu = recipe.trainer, on_gpu(recipe)
    if settings.accelerator == "gpu" and not torch.cuda.is_available():
        raise RecipeError(
            "'trainer.accelerator' is 'gpu', but this machine has no usable CUDA device; use 'auto' or 'cpu'"
        )
    if settings.strategy == "ddp" and ranks.world == 1 and settings.num_devices == 1:
        raise RecipeError(
            "'trainer.strategy' is 'ddp', but there is one process; set 'trainer.devices' to several, start with "
            "torchrun, or use 'auto'"
        )
    if settings.precision == "16-mixed" and not gpu:
        raise RecipeError("'trainer.precision' is '16-mixed', which needs a CUDA device; use 'bf16-mixed' or '32'")
    if settings.sync_batchnorm and not gpu:
        raise RecipeError("'trainer.sync_batchnorm' is true, which needs CUDA devices; use false")
    count = torch.cuda.device_count() if gpu else 0
    if isinstance(settings.devices, tuple) and (not gpu or max(settings.devices) >= count):
        raise RecipeError(
            f"'trainer.devices' is {list(settings.devices)}, but there are {count} CUDA devices to choose from; "
            "use a number of devices"
        )
    processes = max(settings.num_devices, ranks.local_world)
    if gpu and not isinstance(settings.devices, tuple) and processes > count:
        raise RecipeError(f"'trainer.devices' is {processes}, but there are {count} CUDA devices")
    if ranks.world > 1 and settings.num_devices not in (1, ranks.local_world):
        raise RecipeError(
            f"'trainer.devices' asks for {settings.num_devices} processes, but {ranks.local_world} have been started "
            "on this machine; use 1 or that number"
        )
    if ranks.world > 1 and isinstance(settings.devices, tuple) and len(settings.devices) != ranks.local_world:
        raise RecipeError(
            f"'trainer.devices' is {list(settings.devices)}, expected an index for each of "
            f"{ranks.local_world} processes"
        )
