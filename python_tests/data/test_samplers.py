from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyreid.data import RandomIdentitySampler, SampleKey


def test_every_batch_has_p_identities_with_k_images() -> None:
    labels = [i % 7 for i in range(70)]
    sampler = RandomIdentitySampler(labels, num_ids=3, num_instances=4, seed=1)
    batches = list(sampler)
    assert batches
    for batch in batches:
        assert all(isinstance(key, SampleKey) for key in batch)
        assert sorted(Counter(labels[key.index] for key in batch).values()) == [4, 4, 4]
        assert len({key.index for key in batch}) == 12


def test_images_are_used_at_most_once_and_groups_are_dealt_until_fewer_than_p_are_left() -> None:
    # 2 groups per identity, 3 identities, 2 per batch: 3 batches at most, 2 if one identity is left over.
    labels = [0] * 9 + [1] * 8 + [2] * 11
    for epoch in range(20):
        sampler = RandomIdentitySampler(labels, num_ids=2, num_instances=4)
        sampler.set_epoch(epoch)
        batches = list(sampler)
        used = Counter(key.index for batch in batches for key in batch)
        assert max(used.values()) == 1
        assert len(batches) in (2, 3)


def test_identity_with_fewer_images_repeats_some_and_shows_all() -> None:
    labels = [0, 0, 0, 1, 1, 1, 1, 2]
    sampler = RandomIdentitySampler(labels, num_ids=3, num_instances=4)
    for epoch in range(20):
        sampler.set_epoch(epoch)
        (batch,) = list(sampler)
        counts = Counter(key.index for key in batch)
        assert set(counts) == set(range(8))
        assert counts[7] == 4
        assert counts[0] + counts[1] + counts[2] == 4


def test_groups_and_leftovers_change_from_epoch_to_epoch() -> None:
    labels = [0] * 9 + [1] * 9
    sampler = RandomIdentitySampler(labels, num_ids=2, num_instances=4)
    groups, used = set(), Counter()
    for epoch in range(30):
        sampler.set_epoch(epoch)
        for batch in sampler:
            groups.add(frozenset(key.index for key in batch))
            used.update(key.index for key in batch)
    assert len(groups) > 50
    assert set(used) == set(range(18))


def test_length_of_a_skewed_set_is_exact() -> None:
    # Dividing the 15 groups by 3 would promise 5 batches; the large identity is alone after at most 2.
    labels = [0] * 44 + [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4
    sampler = RandomIdentitySampler(labels, num_ids=3, num_instances=4)
    lengths = set()
    for epoch in range(10):
        sampler.set_epoch(epoch)
        assert len(sampler) == len(list(sampler))
        lengths.add(len(sampler))
    assert lengths <= {1, 2}


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(-3, 9), min_size=1, max_size=60),
    num_ids=st.integers(1, 5),
    num_instances=st.integers(1, 5),
    epoch=st.integers(0, 5),
)
def test_length_is_exact(labels: list[int], num_ids: int, num_instances: int, epoch: int) -> None:
    if len(set(labels)) < num_ids:
        with pytest.raises(ValueError, match=f"hold only {len(set(labels))} identities"):
            RandomIdentitySampler(labels, num_ids=num_ids, num_instances=num_instances)
        return
    sampler = RandomIdentitySampler(labels, num_ids=num_ids, num_instances=num_instances)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(sampler) == len(batches) >= 1
    for batch in batches:
        assert Counter(Counter(labels[key.index] for key in batch).values()) == {num_instances: num_ids}


def test_order_depends_only_on_seed_and_epoch() -> None:
    labels = [i // 10 for i in range(200)]

    def epoch_of(seed: int, epoch: int) -> list[list[SampleKey]]:
        sampler = RandomIdentitySampler(labels, num_ids=4, num_instances=4, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    first = epoch_of(3, 5)
    torch.manual_seed(99)
    assert epoch_of(3, 5) == first
    assert epoch_of(3, 6) != first
    assert epoch_of(4, 5) != first
    sampler = RandomIdentitySampler(labels, num_ids=4, num_instances=4, seed=3)
    list(sampler)
    sampler.set_epoch(5)
    assert list(sampler) == list(sampler) == first


def test_global_random_state_is_untouched() -> None:
    state = torch.get_rng_state()
    list(RandomIdentitySampler([0, 0, 1, 1], num_ids=2, num_instances=2))
    assert torch.equal(torch.get_rng_state(), state)


def test_augmentation_seeds_differ_within_an_epoch() -> None:
    sampler = RandomIdentitySampler([i // 8 for i in range(80)], num_ids=5, num_instances=4)
    seeds = [key.seed for batch in sampler for key in batch]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_ids": 3, "num_instances": 2}, "num_ids is 3, but the labels hold only 2 identities"),
        ({"num_ids": 0, "num_instances": 2}, "num_ids must be at least 1, got 0"),
        ({"num_ids": 1, "num_instances": 0}, "num_instances must be at least 1, got 0"),
        ({"num_ids": 1, "num_instances": 1, "seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_bad_arguments(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RandomIdentitySampler([0, 0, 1, 1], **arguments)


def test_no_labels_and_negative_epoch() -> None:
    with pytest.raises(ValueError, match="hold only 0 identities"):
        RandomIdentitySampler([], num_ids=1, num_instances=1)
    with pytest.raises(ValueError, match="epoch must be at least 0"):
        RandomIdentitySampler([0], num_ids=1, num_instances=1).set_epoch(-1)


@pytest.mark.parametrize(
    ("labels", "sizes", "match"),
    [
        ([0.2, 0.9, 1.1], {"num_ids": 1, "num_instances": 1}, "labels must be integers"),
        ([0, 1], {"num_ids": 1, "num_instances": 2.5}, "num_instances must be an integer"),
    ],
)
def test_fractions_are_refused(labels: list[float], sizes: dict[str, int], match: str) -> None:
    with pytest.raises(TypeError, match=match):
        RandomIdentitySampler(labels, **sizes)  # type: ignore[arg-type]
