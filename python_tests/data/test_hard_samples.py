"""Hard sample mining: what is kept, and the batches of it."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

from pyreid.data.hard_samples import HardSampleSampler, hardest

LABELS = [0] * 9 + [1] * 2 + [2] * 5 + [3] * 7


def make(**options: Any) -> HardSampleSampler:
    return HardSampleSampler(LABELS, **({"per_identity": 5, "num_ids": 2, "num_instances": 2, "seed": 3} | options))


@pytest.mark.parametrize("count", [1, 2, 3, 10, 11, 101])
@pytest.mark.parametrize("share", [0.5, 0.25, 1.0])
def test_exactly_the_highest_scores_are_kept(count: int, share: float) -> None:
    rng = np.random.default_rng(count)
    scores = rng.integers(0, 5, count).astype(float)  # with many ties
    kept = hardest(scores, share)
    assert len(kept) == math.ceil(share * count)
    assert len(set(kept.tolist())) == len(kept)
    others = np.delete(scores, kept)
    assert others.size == 0 or scores[kept].min() >= others.max()


def test_rounding_keeps_no_image_too_many() -> None:
    assert len(hardest(np.arange(100.0), 0.07)) == 7


def test_the_pool_is_balanced_and_every_draw_has_its_own_seed() -> None:
    sampler = make()
    pool = sampler.pool()
    assert Counter(LABELS[key.index] for key in pool) == dict.fromkeys(range(4), 5)
    assert len({key.seed for key in pool}) == len(pool)
    assert {key.index for key in pool if LABELS[key.index] == 1} == {9, 10}, "all images where there are few"
    assert pool == make().pool()
    sampler.set_epoch(1)
    assert sampler.pool() != pool


@pytest.mark.parametrize("batches", ["shuffled", "identities"])
def test_seed_and_round_decide_on_pool_and_order(batches: str) -> None:
    def plan(seed: int, epoch: int) -> tuple[list[int], list[int], list[int]]:
        """Images and seeds of the pool, and at which of its places the batches take what is kept: its first half."""
        sampler = make(batches=batches, seed=seed)
        sampler.set_epoch(epoch)
        pool = sampler.pool()
        sampler.keep(np.zeros(len(pool)))
        order = [pool.index(key) for batch in sampler for key in batch]
        return [key.index for key in pool], [key.seed for key in pool], order

    first = plan(3, 0)
    assert plan(3, 0) == first
    assert max(first[2]) < 10
    assert first[2] != sorted(first[2]), "the batches are shuffled"
    for other in (plan(3, 1), plan(4, 0)):
        assert all(one != two for one, two in zip(first, other, strict=True))


@pytest.mark.parametrize("epoch", [0, 4])
def test_one_pass_over_the_kept(epoch: int) -> None:
    sampler = make()
    sampler.set_epoch(epoch)
    expected = len(sampler)
    scores = np.random.default_rng(0).random(20)
    kept = sampler.keep(scores)
    pool = sampler.pool()
    assert kept == [pool[i] for i in sorted(np.argsort(-scores)[:10])]
    batches = list(sampler)
    assert sorted(key for batch in batches for key in batch) == sorted(kept)
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert len(sampler) == len(batches) == expected


def test_a_share_of_each_identity() -> None:
    sampler = make(share=0.5, share_of="identities")
    expected = len(sampler)
    pool, scores = sampler.pool(), np.random.default_rng(0).random(20)
    scores[:5] += 9  # the first identity is harder than all others
    kept = sampler.keep(scores)
    assert Counter(LABELS[key.index] for key in kept) == dict.fromkeys(range(4), 3)  # of 5
    for label in range(4):
        own = range(5 * label, 5 * label + 5)
        assert set(kept[3 * label : 3 * label + 3]) == {pool[i] for i in sorted(own, key=lambda i: -scores[i])[:3]}
    assert len(sampler) == expected == 3
    with pytest.raises(ValueError, match="share_of must be one of pool, identities, got 'all'"):
        make(share_of="all")


def test_a_single_image_joins_the_batch_before() -> None:
    sampler = make(share=0.45)
    sampler.keep(np.arange(20.0))
    assert [len(batch) for batch in sampler] == [4, 5]


def test_batches_of_identities_are_of_the_kept_images() -> None:
    sampler = make(batches="identities")
    kept = sampler.keep(np.random.default_rng(1).random(20))
    batches = list(sampler)
    assert batches
    for batch in batches:
        assert set(batch) <= set(kept)
        assert sorted(Counter(LABELS[key.index] for key in batch).values()) == [2, 2]
    one = make(batches="identities", share=0.25)
    one.keep([float(LABELS[key.index] == 2) for key in one.pool()])  # a single identity is left
    assert all({LABELS[key.index] for key in batch} == {2} for batch in one)
    assert len(one) > 0


def test_a_round_needs_its_own_scores() -> None:
    sampler = make()
    with pytest.raises(RuntimeError, match="round 0 has no scores"):
        iter(sampler)
    sampler.keep(np.zeros(20))
    sampler.set_epoch(1)
    with pytest.raises(RuntimeError, match="round 1 has no scores"):
        iter(sampler)


def test_wrong_values() -> None:
    with pytest.raises(ValueError, match="got 3, expected one for each of 20"):
        make().keep([1.0] * 3)
    with pytest.raises(ValueError, match="scores: got nan at 2"):
        make().keep([0.0, 1.0, float("nan"), *[0.0] * 17])
    with pytest.raises(ValueError, match="share"):
        make(share=0.0)
    with pytest.raises(ValueError, match="per_identity must be at least 1"):
        make(per_identity=0)
    with pytest.raises(TypeError, match="num_ids must be an integer"):
        make(num_ids=2.0)
    with pytest.raises(ValueError, match="batches must be one of"):
        make(batches="random")
