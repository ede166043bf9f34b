"""Batches of P identities with K images each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from pyreid.data.image_groups import cut, cut_across_cameras, draw
from pyreid.data.records import SampleKey

EpochOf = Literal["images", "identities"]


class RandomIdentitySampler(Sampler[list[SampleKey]]):
    """Batch sampler: ``num_ids`` identities x ``num_instances`` images (SAFR 18 x 4, Compact-ReID 8 x 4, DaRe 18 x 4).

    With ``epoch_of="images"``, every epoch shuffles the images of each identity and cuts them into groups of
    ``num_instances``; what is left over waits for another epoch, and an identity with fewer images repeats some of
    them. A batch takes one group each of ``num_ids`` identities drawn among those that still have groups. The epoch
    ends when fewer identities remain.

    With ``epoch_of="identities"``, the epoch of DaRe's authors, an epoch is as many batches as the identities fill, and
    takes each identity at most once, with ``num_instances`` of its images drawn at random.

    The batches depend only on ``(seed, epoch)``, never on a global random state, and every :class:`SampleKey` carries
    the seed of its own augmentation, so that neither the number of workers nor a resumed run changes a batch.

    Give it to a ``DataLoader`` as ``batch_sampler``; on several ranks through :class:`pyreid.data.RankBatches`.

    Args:
        labels: the label of every image of the data set, in the data set's order.
        num_ids: identities per batch, P.
        num_instances: images per identity, K.
        seed: non-negative seed of all epochs.
        cameras: the camera of every image; the K images of an identity then come from as many cameras as possible.
            None takes images without regard to their cameras.
        epoch_of: what an epoch goes through, ``"images"`` or ``"identities"``.

    Raises:
        TypeError: a size, the seed, a label or a camera is not an integer.
        ValueError: a size is not positive, the seed is negative, there are fewer identities than ``num_ids``, the
            cameras are not as many as the labels, or ``epoch_of`` is something else.
    """

    def __init__(
        self,
        labels: Sequence[int],
        *,
        num_ids: int,
        num_instances: int,
        seed: int = 0,
        cameras: Sequence[int] | None = None,
        epoch_of: EpochOf = "images",
    ) -> None:
        for name, number in (("num_ids", num_ids), ("num_instances", num_instances), ("seed", seed)):
            if not isinstance(number, int | np.integer):
                raise TypeError(f"{name} must be an integer, got {number!r}")
        for name, value, least in (("num_ids", num_ids, 1), ("num_instances", num_instances, 1), ("seed", seed, 0)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if epoch_of not in get_args(EpochOf):
            raise ValueError(f"epoch_of must be one of {', '.join(get_args(EpochOf))}, got {epoch_of!r}")
        array = _as_integers("labels", labels)
        identities = np.unique(array)
        if len(identities) < num_ids:
            raise ValueError(
                f"num_ids is {num_ids}, but the labels hold only {len(identities)} identities; lower num_ids"
            )
        self.num_ids = num_ids
        self.num_instances = num_instances
        self.seed = seed
        self.epoch_of = epoch_of
        order = np.argsort(array, kind="stable")
        starts = np.searchsorted(array[order], identities)[1:]
        self._images = np.split(order, starts)
        self._cameras: list[NDArray[np.int64]] | None = None
        if cameras is not None:
            views = _as_integers("cameras", cameras)
            if len(views) != len(array):
                raise ValueError(f"cameras must have one entry for each of {len(array)} labels, got {len(views)}")
            self._cameras = np.split(views[order], starts)
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
            rng = np.random.default_rng([self.seed, self._epoch])
            drawn = self._through_images(rng) if self.epoch_of == "images" else self._through_identities(rng)
            self._plan = (self._epoch, drawn)
        return self._plan[1]

    def _through_images(self, rng: np.random.Generator) -> list[list[SampleKey]]:
        groups: list[NDArray[np.int64]] = []
        for identity, images in enumerate(self._images):
            if self._cameras is None:
                groups.append(cut(images, self.num_instances, rng))
            else:
                groups.append(cut_across_cameras(images, self._cameras[identity], self.num_instances, rng))
        left = np.array([len(group) for group in groups])
        batches: list[list[SampleKey]] = []
        while True:
            available = np.flatnonzero(left)
            if len(available) < self.num_ids:
                return batches
            chosen = rng.choice(available, self.num_ids, replace=False)
            left[chosen] -= 1
            batches.append(_as_keys(np.concatenate([groups[i][left[i]] for i in chosen]), rng))

    def _through_identities(self, rng: np.random.Generator) -> list[list[SampleKey]]:
        # The authors draw from a set of unread identities, which is refilled when fewer than P are left. An epoch of
        # floor(identities / P) batches empties it that far, so that every epoch begins with all identities.
        order = rng.permutation(len(self._images))
        count = len(order) // self.num_ids
        batches: list[list[SampleKey]] = []
        for chosen in order[: count * self.num_ids].reshape(count, self.num_ids):
            groups = [
                draw(self._images[i], self.num_instances, rng, None if self._cameras is None else self._cameras[i])
                for i in chosen
            ]
            batches.append(_as_keys(np.concatenate(groups), rng))
        return batches


def _as_integers(name: str, values: Sequence[int]) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got {array.dtype}")
    array = array.astype(np.int64)
    if array.ndim != 1:
        raise ValueError(f"{name} must be a flat sequence of integers, got shape {array.shape}")
    return array


def _as_keys(indices: NDArray[np.int64], rng: np.random.Generator) -> list[SampleKey]:
    """Keys with a seed each for the augmentation."""
    seeds = rng.integers(0, 2**63 - 1, len(indices))
    return [SampleKey(int(i), int(s)) for i, s in zip(indices, seeds, strict=True)]
