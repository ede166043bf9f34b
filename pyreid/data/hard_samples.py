"""Batches of the hardest of a pool of augmented images, as many of every identity (RMNet, hard sample mining)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pyreid.data.image_groups import draw
from pyreid.data.records import SampleKey
from pyreid.data.samplers import RandomIdentitySampler

Batching = Literal["shuffled", "identities"]
ShareOf = Literal["pool", "identities"]


def hardest(scores: Sequence[float] | NDArray[np.floating], share: float = 0.5) -> NDArray[np.int64]:
    """The positions of the ``ceil(share * N)`` highest scores, in increasing order; of equal scores the earlier.

    Args:
        scores: (N,) finite.
        share: in (0, 1].

    Raises:
        ValueError: the scores are not flat, none or not finite, or the share is outside its range.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"scores: got shape {values.shape}, expected (N,) with N >= 1")
    if not np.isfinite(values).all():
        raise ValueError(f"scores: got {values[~np.isfinite(values)][0]} at {int((~np.isfinite(values)).argmax())}")
    if not 0 < share <= 1:
        raise ValueError(f"share: got {share}, expected a number in (0, 1]")
    return np.sort(np.argsort(-values, kind="stable")[: kept_of(len(values), share)])


def kept_of(count: int, share: float) -> int:
    """How many of ``count`` images are kept of a share: rounded up."""
    return math.ceil(share * count - 1e-9)  # 0.07 * 100 is a little more than 7 in floating point


class HardSampleSampler:
    """Batch sampler of a round of hard sample mining; an epoch is a round.

    A round has a pool: ``per_identity`` images of each identity, some of them again where an identity has fewer, each
    with the seed of its own augmentation. It has to be scored by the caller: ``keep`` takes the scores, and iteration
    then goes once through the ``ceil(share * N)`` hardest, seen with the very augmentation that they were scored with.
    With ``share_of="identities"`` they are the ``ceil(share * per_identity)`` hardest of each identity.

    ``batches="shuffled"`` cuts the shuffled images into batches (the last one may be smaller, and a single image left
    over joins the batch before it, as batch norm cannot take it). ``"identities"`` composes them as
    :class:`RandomIdentitySampler` does, P identities with K images each: an identity of which fewer than K were kept
    repeats some, and what is left over at the end of the round is not seen. If fewer than P identities were kept, a
    batch has all of them.

    Pool and batches depend only on ``(seed, epoch)`` and the scores.

    Args:
        labels: the label of every image of the data set.
        per_identity: k, images of an identity in the pool.
        num_ids: P; a shuffled batch has P x K images.
        num_instances: K.
        share: part of the pool that is kept, in (0, 1].
        share_of: ``"pool"`` or ``"identities"``.
        batches: ``"shuffled"`` or ``"identities"``.
        seed: non-negative seed of all rounds.

    Raises:
        TypeError, ValueError: an argument is out of range.
    """

    def __init__(
        self,
        labels: Sequence[int],
        *,
        per_identity: int,
        num_ids: int,
        num_instances: int,
        share: float = 0.5,
        share_of: ShareOf = "pool",
        batches: Batching = "shuffled",
        seed: int = 0,
    ) -> None:
        for name, value, least in (
            ("per_identity", per_identity, 1),
            ("num_ids", num_ids, 1),
            ("num_instances", num_instances, 1),
            ("seed", seed, 0),
        ):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an integer, got {value!r}")
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if not 0 < share <= 1:
            raise ValueError(f"share must be in (0, 1], got {share}")
        if share_of not in get_args(ShareOf):
            raise ValueError(f"share_of must be one of {', '.join(get_args(ShareOf))}, got {share_of!r}")
        if batches not in get_args(Batching):
            raise ValueError(f"batches must be one of {', '.join(get_args(Batching))}, got {batches!r}")
        self.labels = np.asarray(labels, dtype=np.int64)
        if self.labels.ndim != 1 or len(self.labels) == 0:
            raise ValueError(f"labels must be a flat sequence of at least one integer, got shape {self.labels.shape}")
        self.per_identity = per_identity
        self.num_ids = num_ids
        self.num_instances = num_instances
        self.share = share
        self.share_of: ShareOf = share_of
        self.batches = batches
        self.seed = seed
        self._images = [np.flatnonzero(self.labels == label) for label in np.unique(self.labels)]
        self._epoch = 0
        self._plan: tuple[int, list[list[SampleKey]]] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Choose the round; call it before each epoch."""
        if epoch < 0:
            raise ValueError(f"epoch must be at least 0, got {epoch}")
        self._epoch = epoch

    def pool(self) -> list[SampleKey]:
        """The images of the round, identity by identity."""
        rng = np.random.default_rng([self.seed, self._epoch, 0])
        indices = np.concatenate([draw(images, self.per_identity, rng) for images in self._images])
        seeds = rng.integers(0, 2**63 - 1, len(indices))
        return [SampleKey(int(i), int(s)) for i, s in zip(indices, seeds, strict=True)]

    def keep(self, scores: Sequence[float] | NDArray[np.floating]) -> list[SampleKey]:
        """Plan the batches of the round from the scores of :meth:`pool`; returns the images that are kept.

        Raises:
            ValueError: not one finite score for each image of the pool.
        """
        pool = self.pool()
        if len(scores) != len(pool):
            raise ValueError(f"scores: got {len(scores)}, expected one for each of {len(pool)} images")
        kept = [pool[i] for i in self._hardest(np.asarray(scores))]
        groups = self._shuffled(len(kept)) if self.batches == "shuffled" else self._by_identity(kept)
        self._plan = (self._epoch, [[kept[i] for i in group] for group in groups])
        return kept

    @property
    def is_planned(self) -> bool:
        """Whether the round has had its scores."""
        return self._plan is not None and self._plan[0] == self._epoch

    def __len__(self) -> int:
        """Batches of the round; before it has been scored, the batches of as many shuffled images."""
        if self._plan is not None and self.is_planned:
            return len(self._plan[1])
        groups, size = self._shape()
        return len(self._shuffled(groups * kept_of(size, self.share)))

    def __iter__(self) -> Iterator[list[SampleKey]]:
        if self._plan is None or not self.is_planned:
            raise RuntimeError(f"round {self._epoch} has no scores yet: call keep() first")
        return iter(self._plan[1])

    def _shape(self) -> tuple[int, int]:
        """How many groups a share is taken of, and the images of each."""
        identities = len(self._images)
        return (1, identities * self.per_identity) if self.share_of == "pool" else (identities, self.per_identity)

    def _hardest(self, scores: NDArray[np.floating]) -> NDArray[np.int64]:
        groups, size = self._shape()  # the pool is sorted by identities
        parts = scores.reshape(groups, size)
        return np.concatenate([start * size + hardest(part, self.share) for start, part in enumerate(parts)])

    def _shuffled(self, count: int) -> list[list[int]]:
        order = np.random.default_rng([self.seed, self._epoch, 1]).permutation(count).tolist()
        size = self.num_ids * self.num_instances
        groups = [order[start : start + size] for start in range(0, count, size)]
        if len(groups) > 1 and len(groups[-1]) == 1:
            single = groups.pop()
            groups[-1] += single
        return groups

    def _by_identity(self, kept: Sequence[SampleKey]) -> list[list[int]]:
        labels = self.labels[[key.index for key in kept]]
        sampler = RandomIdentitySampler(
            labels.tolist(),
            num_ids=min(self.num_ids, len(np.unique(labels))),
            num_instances=self.num_instances,
            seed=self.seed,
        )
        sampler.set_epoch(self._epoch)
        return [[key.index for key in batch] for batch in sampler]
