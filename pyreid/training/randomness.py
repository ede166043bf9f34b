"""The global random states of Python, NumPy and PyTorch: seeding, saving and restoring them."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's generators (all devices)."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the legacy global state is what third-party code may draw from
    torch.manual_seed(seed)


def seed_rank(seed: int, rank: int) -> None:
    """Give each rank random numbers of its own, as in dropout; rank 0 goes on with those it has."""
    if rank:
        seed_everything(int(np.random.SeedSequence([seed, rank]).generate_state(1)[0]))


def random_states() -> dict[str, Any]:
    """All global random states as plain numbers and tensors, so that ``torch.load(weights_only=True)`` reads them."""
    name, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (str(name), [int(key) for key in keys], int(position), int(has_gauss), float(gauss)),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def restore_random_states(states: dict[str, Any]) -> None:
    """Put back what :func:`random_states` returned; CUDA states only where the same number of devices is there."""
    version, values, gauss = states["python"]
    random.setstate((version, tuple(values), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(states["torch"].cpu())
    cuda = states.get("cuda")
    if cuda is not None and torch.cuda.is_available() and torch.cuda.device_count() == len(cuda):
        torch.cuda.set_rng_state_all([state.cpu() for state in cuda])
