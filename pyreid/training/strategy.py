"""Lightning's data-parallel strategy on the ranks that are there already."""

from __future__ import annotations

from typing import Any

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy

from pyreid.training.processes import Ranks


class _Joined(ClusterEnvironment):
    """What Lightning asks about processes; torch.distributed is initialised before it could do so."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self._ranks = ranks

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        raise AssertionError("torch.distributed is initialised")

    @property
    def main_port(self) -> int:
        raise AssertionError("torch.distributed is initialised")

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self._ranks.world

    def set_world_size(self, size: int) -> None:
        assert size == self._ranks.world

    def global_rank(self) -> int:
        return self._ranks.rank

    def set_global_rank(self, rank: int) -> None:
        assert rank == self._ranks.rank

    def local_rank(self) -> int:
        return self._ranks.local_rank

    def node_rank(self) -> int:
        return self._ranks.rank // self._ranks.local_world


def make_strategy(ranks: Ranks, device: torch.device) -> Any:
    """``"auto"`` for one process, else DistributedDataParallel.

    Parameters without a gradient are looked for, as a model may have outputs that no loss of the recipe takes.
    """
    if ranks.world == 1:
        return "auto"
    return DDPStrategy(
        cluster_environment=_Joined(ranks),
        process_group_backend="nccl" if device.type == "cuda" else "gloo",
        find_unused_parameters=True,
    )
