from __future__ import annotations

from collections.abc import Iterator

import pytest

from pyreid.data import FixedLengthSampler, RandomIdentitySampler
from pyreid.data.records import SampleKey


def identity_sampler() -> RandomIdentitySampler:
    return RandomIdentitySampler([label for label in range(6) for _ in range(5)], num_ids=3, num_instances=2, seed=4)


@pytest.mark.parametrize("length", [1, 3, 4, 5, 23])
def test_every_epoch_has_the_length_and_its_own_batches(length: int) -> None:
    sampler = FixedLengthSampler(identity_sampler(), length)
    epochs = []
    for epoch in (0, 1, 2, 0):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
        assert len(epochs[-1]) == len(sampler) == length
    assert epochs[0] == epochs[3]
    assert epochs[0] != epochs[1] != epochs[2]
    # passes of one epoch, and of different ones, do not repeat one another
    seeds = [key.seed for epoch in epochs[:3] for batch in epoch for key in batch]
    assert len(set(seeds)) == len(seeds)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        FixedLengthSampler(identity_sampler(), 0)
    with pytest.raises(ValueError, match="epoch must be at least 0, got -1"):
        FixedLengthSampler(identity_sampler(), 2).set_epoch(-1)


def test_a_sampler_without_batches_is_an_error() -> None:
    class Empty:
        def set_epoch(self, epoch: int) -> None:
            pass

        def __iter__(self) -> Iterator[list[SampleKey]]:
            return iter(())

    with pytest.raises(ValueError, match="the sampler gives no batch"):
        list(FixedLengthSampler(Empty(), 2))
