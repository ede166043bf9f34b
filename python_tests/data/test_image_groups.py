"""Groups of K images: the invariants of each way to cut or draw them."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pyreid.data.image_groups import cut, cut_across_cameras, draw

CAMERAS = st.lists(st.integers(-1, 5), min_size=1, max_size=40)
SIZE = st.integers(1, 6)
SEED = st.integers(0, 2**16)


def arrays(cameras: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Images 100, 101 ... with their cameras."""
    return np.arange(100, 100 + len(cameras)), np.array(cameras, dtype=np.int64)


@settings(max_examples=80, deadline=None)
@given(cameras=CAMERAS, size=SIZE, seed=SEED)
def test_groups_use_each_image_once_or_repeat_all_of_too_few(cameras: list[int], size: int, seed: int) -> None:
    images, views = arrays(cameras)
    for groups in (
        cut(images, size, np.random.default_rng(seed)),
        cut_across_cameras(images, views, size, np.random.default_rng(seed)),
    ):
        assert groups.shape == (max(1, len(images) // size), size)
        used = Counter(groups.ravel().tolist())
        if len(images) >= size:
            assert max(used.values()) == 1
        else:
            assert set(used) == set(images.tolist())
        assert set(used) <= set(images.tolist())


@settings(max_examples=150, deadline=None)
@given(cameras=CAMERAS, size=SIZE, seed=SEED)
def test_groups_have_as_many_cameras_as_there_can_be(cameras: list[int], size: int, seed: int) -> None:
    images, views = arrays(cameras)
    if len(images) < size:
        return
    groups = cut_across_cameras(images, views, size, np.random.default_rng(seed))
    reached = sum(len(set(views[group - 100].tolist())) for group in groups)
    # In any set of groups, a camera is seen at most once per group and image; images of the largest are left out.
    counts = sorted(Counter(cameras).values())
    for _ in range(len(images) % size):
        counts[-1] -= 1
        counts.sort()
    assert reached == sum(min(count, len(groups)) for count in counts)
    spread = [len(set(views[group - 100].tolist())) for group in groups]
    if max(counts) <= len(groups):
        assert min(spread) == size, "no camera has to be in a group twice"


@settings(max_examples=100, deadline=None)
@given(cameras=CAMERAS, size=SIZE, seed=SEED)
def test_a_drawn_group_has_as_many_cameras_as_there_can_be(cameras: list[int], size: int, seed: int) -> None:
    images, views = arrays(cameras)
    group = draw(images, size, np.random.default_rng(seed), views)
    assert len(group) == size
    assert len(set(group.tolist())) == min(size, len(images))
    assert len(set(views[group - 100].tolist())) == min(size, len(set(cameras)))
    plain = draw(images, size, np.random.default_rng(seed))
    assert len(set(plain.tolist())) == min(size, len(images))


def test_every_image_is_drawn_some_time() -> None:
    images, views = arrays([0] * 9 + [1, 2])
    for cameras in (None, views):
        seen = {int(i) for seed in range(60) for i in draw(images, 4, np.random.default_rng(seed), cameras)}
        assert seen == set(images.tolist())
    seen = {
        int(i) for seed in range(60) for i in cut_across_cameras(images, views, 4, np.random.default_rng(seed)).ravel()
    }
    assert seen == set(images.tolist())
