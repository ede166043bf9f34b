"""Batches of P identities with K images each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from pyreid.data.records import SampleKey


class RandomIdentitySampler(Sampler[list[SampleKey]]):
    """Batch sampler: ``num_ids`` identities x ``num_instances`` images (SAFR 18 x 4, Compact-ReID 8 x 4, DaRe 18 x 4).

    Every epoch shuffles the images of each identity and cuts them into groups of ``num_instances``; what is left over
    waits for another epoch, and an identity with fewer images repeats some of them. A batch takes one group each of
    ``num_ids`` identities drawn among those that still have groups. The epoch ends when fewer identities remain.

    The batches depend only on ``(seed, epoch)``, never on a global random state, and every :class:`SampleKey` carries
    the seed of its own augmentation, so that neither the number of workers nor a resumed run changes a batch.

    Give it to a ``DataLoader`` as ``batch_sampler``.

    Args:
        labels: the label of every image of the data set, in the data set's order.
        num_ids: identities per batch, P.
        num_instances: images per identity, K.
        seed: non-negative seed of all epochs.

    Raises:
        TypeError: a size, the seed or a label is not an integer.
        ValueError: a size is not positive, the seed is negative, or there are fewer identities than ``num_ids``.
    """

    def __init__(self, labels: Sequence[int], *, num_ids: int, num_instances: int, seed: int = 0) -> None:
        for name, number in (("num_ids", num_ids), ("num_instances", num_instances), ("seed", seed)):
            if not isinstance(number, int | np.integer):
                raise TypeError(f"{name} must be an integer, got {number!r}")
        for name, value, least in (("num_ids", num_ids, 1), ("num_instances", num_instances, 1), ("seed", seed, 0)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        array = np.asarray(labels)
        if array.size and array.dtype.kind not in "iu":
            raise TypeError(f"labels must be integers, got {array.dtype}")
        array = array.astype(np.int64)
        if array.ndim != 1:
            raise ValueError(f"labels must be a flat sequence of integers, got shape {array.shape}")
        identities = np.unique(array)
        if len(identities) < num_ids:
            raise ValueError(
                f"num_ids is {num_ids}, but the labels hold only {len(identities)} identities; lower num_ids"
            )
        self.num_ids = num_ids
        self.num_instances = num_instances
        self.seed = seed
        order = np.argsort(array, kind="stable")
        starts = np.searchsorted(array[order], identities)
        self._images = np.split(order, starts[1:])
        self._epoch = 0
        self._plan: tuple[int, list[list[SampleKey]]] | None = None

    @property
    def epoch(self) -> int:
        """The epoch whose batches iteration yields."""
        return self._epoch

    @property
    def batch_size(self) -> int:
        """Images per batch, P x K."""
        return self.num_ids * self.num_instances

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches iteration yields; call it before each epoch."""
        if epoch < 0:
            raise ValueError(f"epoch must be at least 0, got {epoch}")
        self._epoch = epoch

    def __len__(self) -> int:
        """Exact number of batches of the current epoch; it may differ a little from epoch to epoch."""
        return len(self._batches())

    def __iter__(self) -> Iterator[list[SampleKey]]:
        return iter(self._batches())

    def _batches(self) -> list[list[SampleKey]]:
        if self._plan is None or self._plan[0] != self._epoch:
            self._plan = (self._epoch, self._draw(np.random.default_rng([self.seed, self._epoch])))
        return self._plan[1]

    def _draw(self, rng: np.random.Generator) -> list[list[SampleKey]]:
        size = self.num_instances
        groups: list[np.ndarray] = []
        for images in self._images:
            if len(images) < size:
                # Every image at least once, then repeats: a plain draw with replacement could leave some out.
                images = np.concatenate([images, rng.choice(images, size - len(images))])
            shuffled = rng.permutation(images)
            groups.append(shuffled[: len(shuffled) // size * size].reshape(-1, size))
        left = np.array([len(group) for group in groups])
        batches: list[list[SampleKey]] = []
        while True:
            available = np.flatnonzero(left)
            if len(available) < self.num_ids:
                return batches
            chosen = rng.choice(available, self.num_ids, replace=False)
            left[chosen] -= 1
            indices = np.concatenate([groups[i][left[i]] for i in chosen])
            seeds = rng.integers(0, 2**63 - 1, len(indices))
            batches.append([SampleKey(int(i), int(s)) for i, s in zip(indices, seeds, strict=True)])
