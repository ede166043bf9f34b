"""Batches of images in random order, for training by classification alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from pyreid.data.records import SampleKey


class ShuffleSampler(Sampler[list[SampleKey]]):
    """Batch sampler: every image once per epoch, in random order.

    As with :class:`pyreid.data.RandomIdentitySampler`, the batches depend only on ``(seed, epoch)``, and each key
    carries the seed of its own augmentation.

    Args:
        num_images: images of the data set.
        batch_size: images per batch.
        seed: non-negative seed of all epochs.
        drop_last: leave out the last batch where it would be smaller. A batch of one image makes batch norm fail.

    Raises:
        TypeError: a number is not an integer.
        ValueError: a number is out of range, or there is not one whole batch and ``drop_last`` is true.
    """

    def __init__(self, num_images: int, *, batch_size: int, seed: int = 0, drop_last: bool = True) -> None:
        for name, number, least in (("num_images", num_images, 1), ("batch_size", batch_size, 1), ("seed", seed, 0)):
            if not isinstance(number, int | np.integer):
                raise TypeError(f"{name} must be an integer, got {number!r}")
            if number < least:
                raise ValueError(f"{name} must be at least {least}, got {number}")
        if drop_last and num_images < batch_size:
            raise ValueError(f"batch_size is {batch_size}, but there are only {num_images} images; lower batch_size")
        self.num_images = num_images
        self.batch_size = batch_size
        self.seed = seed
        self.drop_last = drop_last
        self._epoch = 0

    @property
    def epoch(self) -> int:
        """The epoch whose batches iteration yields."""
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches iteration yields; call it before each epoch."""
        if epoch < 0:
            raise ValueError(f"epoch must be at least 0, got {epoch}")
        self._epoch = epoch

    def __len__(self) -> int:
        """Number of batches of every epoch."""
        whole, rest = divmod(self.num_images, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        rng = np.random.default_rng([self.seed, self._epoch])
        order = rng.permutation(self.num_images)
        seeds = rng.integers(0, 2**63 - 1, self.num_images)
        for batch in range(len(self)):
            part = slice(batch * self.batch_size, (batch + 1) * self.batch_size)
            yield [SampleKey(int(i), int(s)) for i, s in zip(order[part], seeds[part], strict=True)]
