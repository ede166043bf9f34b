"""Cross-camera batches, the epoch of DaRe's authors, plain shuffling, and the share of one rank."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyreid.data import FixedLengthSampler, RandomIdentitySampler, RankBatches, SampleKey, ShuffleSampler

LABELS = st.lists(st.integers(0, 8), min_size=6, max_size=80)


@settings(max_examples=60, deadline=None)
@given(labels=LABELS, cameras=st.randoms(), num_ids=st.integers(1, 4), size=st.integers(1, 5), epoch=st.integers(0, 4))
def test_an_epoch_of_identities_takes_each_at_most_once_and_fills_all_batches(
    labels: list[int], cameras: object, num_ids: int, size: int, epoch: int
) -> None:
    if len(set(labels)) < num_ids:
        return
    views = [cameras.randint(0, 3) for _ in labels]  # type: ignore[attr-defined]
    sampler = RandomIdentitySampler(
        labels, num_ids=num_ids, num_instances=size, epoch_of="identities", cameras=views, seed=2
    )
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(sampler) == len(batches) == len(set(labels)) // num_ids
    seen: list[int] = []
    for batch in batches:
        own = Counter(labels[key.index] for key in batch)
        assert set(own.values()) == {size}
        assert len(own) == num_ids
        seen += own
        for label in own:
            drawn = [key.index for key in batch if labels[key.index] == label]
            there = [views[i] for i, other in enumerate(labels) if other == label]
            assert len({views[i] for i in drawn}) == min(size, len(set(there)))
            assert len(set(drawn)) == min(size, len(there))
    assert len(set(seen)) == len(seen)


def test_the_identities_that_are_left_over_change_from_epoch_to_epoch() -> None:
    labels = [i % 7 for i in range(28)]
    sampler = RandomIdentitySampler(labels, num_ids=3, num_instances=2, epoch_of="identities")
    left_over = set()
    for epoch in range(40):
        sampler.set_epoch(epoch)
        used = {labels[key.index] for batch in sampler for key in batch}
        assert len(used) == 6
        left_over |= set(range(7)) - used
    assert left_over == set(range(7))


def test_cameras_are_balanced_in_an_epoch_of_images() -> None:
    # Ten images of each identity in camera 0 and two each in cameras 1 to 3.
    labels = [label for label in range(5) for _ in range(16)]
    cameras = [camera for _ in range(5) for camera in [0] * 10 + [1] * 2 + [2] * 2 + [3] * 2]
    balanced = RandomIdentitySampler(labels, num_ids=3, num_instances=4, cameras=cameras)
    plain = RandomIdentitySampler(labels, num_ids=3, num_instances=4)

    def mean_cameras(sampler: RandomIdentitySampler) -> float:
        found = []
        for epoch in range(10):
            sampler.set_epoch(epoch)
            for batch in sampler:
                for begin in range(0, len(batch), 4):
                    found.append(len({cameras[key.index] for key in batch[begin : begin + 4]}))
        return sum(found) / len(found)

    # Four groups: 4 of camera 0 and 2 each of the others make (4 + 2 + 2 + 2) / 4.
    assert mean_cameras(balanced) == pytest.approx(2.5, abs=0.1)
    assert mean_cameras(plain) < 2.35


def test_the_options_leave_the_plain_plan_as_it_was() -> None:
    labels = [i % 7 for i in range(70)]
    keys = [key for batch in RandomIdentitySampler(labels, num_ids=3, num_instances=4, seed=1) for key in batch]
    assert [key.index for key in keys[:12]] == [17, 45, 31, 59, 36, 50, 64, 15, 5, 47, 12, 19]
    assert keys[0].seed == 7746539735352152238


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epoch_of": "pairs"}, ValueError, "epoch_of must be one of images, identities, got 'pairs'"),
        ({"cameras": [0, 1]}, ValueError, "cameras must have one entry for each of 4 labels, got 2"),
        ({"cameras": [0.5, 1, 1, 1]}, TypeError, "cameras must be integers, got float64"),
        ({"cameras": [[0, 1], [1, 1]]}, ValueError, "cameras must be a flat sequence"),
    ],
)
def test_bad_options(options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        RandomIdentitySampler([0, 0, 1, 1], num_ids=2, num_instances=2, **options)


@settings(max_examples=60, deadline=None)
@given(
    labels=LABELS,
    num_ids=st.integers(1, 3),
    ranks=st.integers(1, 4),
    epoch=st.integers(0, 3),
    epoch_of=st.sampled_from(["images", "identities"]),
)
def test_ranks_take_the_same_number_of_different_batches(
    labels: list[int], num_ids: int, ranks: int, epoch: int, epoch_of: str
) -> None:
    if len(set(labels)) < num_ids:
        return

    def sampler() -> RandomIdentitySampler:
        return RandomIdentitySampler(labels, num_ids=num_ids, num_instances=2, seed=9, epoch_of=epoch_of)  # type: ignore[arg-type]

    whole = sampler()
    whole.set_epoch(epoch)
    plan = list(whole)
    shares = [RankBatches(sampler(), rank=rank, num_ranks=ranks) for rank in range(ranks)]
    for share in shares:
        share.set_epoch(epoch)
    if len(plan) < ranks:
        with pytest.raises(ValueError, match=f"the epoch has {len(plan)} batches"):
            list(shares[0])
        return
    taken = [list(share) for share in shares]
    assert {len(batches) for batches in taken} == {len(plan) // ranks} == {len(share) for share in shares}
    together = [batch for step in zip(*taken, strict=True) for batch in step]
    assert together == plan[: len(together)]
    assert len(plan) - len(together) < ranks


def test_ranks_share_other_samplers_too() -> None:
    fixed = FixedLengthSampler(RandomIdentitySampler([0, 0, 1, 1], num_ids=2, num_instances=2), 7)
    assert len(RankBatches(fixed, rank=1, num_ranks=3)) == len(list(RankBatches(fixed, rank=1, num_ranks=3))) == 2
    shuffled = ShuffleSampler(12, batch_size=2)
    halves = [list(RankBatches(shuffled, rank=rank, num_ranks=2)) for rank in range(2)]
    assert sorted(key.index for half in halves for batch in half for key in batch) == list(range(12))


def test_without_a_process_group_one_rank_takes_everything() -> None:
    sampler = RandomIdentitySampler([i % 4 for i in range(32)], num_ids=2, num_instances=2)
    share = RankBatches(sampler)
    assert (share.rank, share.num_ranks) == (0, 1)
    assert list(share) == list(sampler)


def test_ranks_come_from_the_process_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 2)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    sampler = ShuffleSampler(14, batch_size=2)
    share = RankBatches(sampler)
    assert (share.rank, share.num_ranks) == (2, 3)
    assert list(share) == [list(sampler)[2], list(sampler)[5]]


@pytest.mark.parametrize(
    ("rank", "num_ranks", "message"),
    [
        (0, 0, "num_ranks must be at least 1, got 0"),
        (2, 2, "rank must be from 0 to 1, got 2"),
        (-1, 2, "rank must be from 0 to 1, got -1"),
    ],
)
def test_bad_ranks(rank: int, num_ranks: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RankBatches(ShuffleSampler(4, batch_size=2), rank=rank, num_ranks=num_ranks)


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 50), size=st.integers(1, 12), epoch=st.integers(0, 3), drop_last=st.booleans())
def test_shuffling_shows_every_image_once(count: int, size: int, epoch: int, drop_last: bool) -> None:
    if drop_last and count < size:
        with pytest.raises(ValueError, match=f"batch_size is {size}, but there are only {count} images"):
            ShuffleSampler(count, batch_size=size, drop_last=drop_last)
        return
    sampler = ShuffleSampler(count, batch_size=size, seed=5, drop_last=drop_last)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(sampler) == len(batches)
    used = [key.index for batch in batches for key in batch]
    assert len(set(used)) == len(used) == (count // size * size if drop_last else count)
    assert {len(batch) for batch in batches[:-1]} <= {size}
    assert len({key.seed for batch in batches for key in batch}) == len(used)
    assert batches == list(sampler)


def test_shuffling_depends_only_on_seed_and_epoch() -> None:
    def epoch_of(seed: int, epoch: int) -> list[list[SampleKey]]:
        sampler = ShuffleSampler(40, batch_size=8, seed=seed)
        sampler.set_epoch(epoch)
        assert sampler.epoch == epoch
        return list(sampler)

    first = epoch_of(3, 5)
    state = torch.get_rng_state()
    assert epoch_of(3, 5) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert epoch_of(3, 6) != first
    assert epoch_of(4, 5) != first


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_images": 0, "batch_size": 1}, ValueError, "num_images must be at least 1, got 0"),
        ({"num_images": 4, "batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"num_images": 4, "batch_size": 2, "seed": -1}, ValueError, "seed must be at least 0, got -1"),
        ({"num_images": 4, "batch_size": 2.0}, TypeError, "batch_size must be an integer, got 2.0"),
    ],
)
def test_bad_shuffling(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ShuffleSampler(**arguments)
    with pytest.raises(ValueError, match="epoch must be at least 0"):
        ShuffleSampler(4, batch_size=2).set_epoch(-1)
