"""The batches of one rank of a distributed run."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Protocol

import torch.distributed

from pyreid.data.records import SampleKey


class SizedEpochSampler(Protocol):
    """A batch sampler whose plan depends on its epoch, and on nothing of the rank."""

    def set_epoch(self, epoch: int) -> None: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[list[SampleKey]]: ...


class RankBatches:
    """Every ``num_ranks``-th batch of a sampler: all ranks draw the same plan and take different batches of it.

    Every rank has the same number of batches, so that none waits for a gradient that never comes: up to
    ``num_ranks - 1`` batches at the end of an epoch are left out. One step of all ranks sees ``num_ranks`` batches.

    Give it to a ``DataLoader`` as ``batch_sampler``, and keep the trainer from adding a sampler of its own (Lightning:
    ``use_distributed_sampler=False``).

    Args:
        sampler: the same on every rank, with the same seed; a :class:`pyreid.data.RandomIdentitySampler`, for example.
        rank: this process; by default that of ``torch.distributed``, or 0 where it is not initialised.
        num_ranks: processes; likewise, or 1.

    Raises:
        ValueError: ``rank`` is not in [0, num_ranks), or (while iterating) there are fewer batches than ranks.
    """

    def __init__(self, sampler: SizedEpochSampler, *, rank: int | None = None, num_ranks: int | None = None) -> None:
        running = torch.distributed.is_available() and torch.distributed.is_initialized()
        if num_ranks is None:
            num_ranks = torch.distributed.get_world_size() if running else 1
        if rank is None:
            rank = torch.distributed.get_rank() if running else 0
        if num_ranks < 1:
            raise ValueError(f"num_ranks must be at least 1, got {num_ranks}")
        if not 0 <= rank < num_ranks:
            raise ValueError(f"rank must be from 0 to {num_ranks - 1}, got {rank}")
        self.sampler = sampler
        self.rank = rank
        self.num_ranks = num_ranks

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches iteration yields; call it before each epoch, on every rank."""
        self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        """Number of batches of the current epoch, the same on every rank."""
        return len(self.sampler) // self.num_ranks

    def __iter__(self) -> Iterator[list[SampleKey]]:
        count = len(self)
        if count == 0:
            raise ValueError(
                f"the epoch has {len(self.sampler)} batches, expected at least one for each of {self.num_ranks} ranks"
            )
        return islice(iter(self.sampler), self.rank, count * self.num_ranks, self.num_ranks)
