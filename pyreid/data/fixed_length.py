"""Epochs of a fixed number of batches, for recipes that count iterations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from pyreid.data.records import SampleKey

_PASSES = 1 << 20  # of the inner sampler in an epoch, at most: each has a plan of its own


class EpochSampler(Protocol):
    """A batch sampler whose plan depends on its epoch."""

    def set_epoch(self, epoch: int) -> None: ...
    def __iter__(self) -> Iterator[list[SampleKey]]: ...


class FixedLengthSampler:
    """Batches of as many passes of a sampler as an epoch of ``length`` batches needs; the last pass is cut off.

    Args:
        sampler: a batch sampler with ``set_epoch``; every pass takes another of its epochs.
        length: batches in an epoch.

    Raises:
        ValueError: ``length`` is less than 1, or (while iterating) the sampler gives no batch.
    """

    def __init__(self, sampler: EpochSampler, length: int) -> None:
        if length < 1:
            raise ValueError(f"length must be at least 1, got {length}")
        self.sampler = sampler
        self.length = length
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches iteration yields; call it before each epoch."""
        if epoch < 0:
            raise ValueError(f"epoch must be at least 0, got {epoch}")
        self._epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[list[SampleKey]]:
        given = 0
        for turn in range(_PASSES):
            self.sampler.set_epoch(self._epoch * _PASSES + turn)
            before = given
            for batch in self.sampler:
                if given == self.length:
                    return
                given += 1
                yield batch
            if given == before:
                raise ValueError("the sampler gives no batch: too few identities")
            if given == self.length:
                return
