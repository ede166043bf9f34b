"""The program's default type and device are for its own tensors: results are the same under any."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

import pyreid
from pyreid.evaluation import evaluate_single_shot, evaluate_tracks, verify
from pyreid.ops import nearest_neighbors
from pyreid.retrieval import NeighborGraph, database_augmentation, k_reciprocal, query_expansion, re_ranking

RNG = np.random.default_rng(0)
QUERY, GALLERY = (RNG.standard_normal((n, 16)).astype(np.float32) for n in (20, 60))
GALLERY[7] = GALLERY[3]  # ties have memory of their own
Q, G = torch.from_numpy(QUERY), torch.from_numpy(GALLERY)
IDS = RNG.integers(0, 5, 20), RNG.integers(0, 5, 60)
CAMERAS = RNG.integers(0, 3, 20), RNG.integers(0, 3, 60)
BLOCKS = [np.linalg.norm(a[:, None] - b, axis=2) for a, b in ((QUERY, GALLERY), (QUERY, QUERY), (GALLERY, GALLERY))]

CALLS: dict[str, Callable[[], Any]] = {
    "evaluate": lambda: pyreid.evaluate(QUERY, GALLERY, *IDS, *CAMERAS).average_precision,
    "evaluate_tracks": lambda: evaluate_tracks(QUERY, GALLERY, *IDS, IDS[1]).average_precision,
    "single_shot": lambda: evaluate_single_shot(QUERY, GALLERY, *IDS).cmcs,
    "verify": lambda: verify(QUERY, GALLERY, *IDS).to_dict()["thresholds"],
    "search": lambda: pyreid.search(QUERY, GALLERY, 5),
    "k_reciprocal": lambda: k_reciprocal(QUERY, GALLERY),
    "k_reciprocal, topk": lambda: k_reciprocal(QUERY, GALLERY, topk=5),
    "k_reciprocal, graph": lambda: k_reciprocal(QUERY, GALLERY, topk=5, graph=NeighborGraph.exact(QUERY, GALLERY, 30)),
    "re_ranking": lambda: re_ranking(*BLOCKS),
    "nearest_neighbors": lambda: nearest_neighbors(Q, G, 5),
    "query_expansion": lambda: query_expansion(QUERY, GALLERY),
    "database_augmentation": lambda: database_augmentation(GALLERY),
}


@contextlib.contextmanager
def default(name: str) -> Iterator[None]:
    if name == "meta":
        with torch.device("meta"):  # an accelerator that every machine has
            yield
        return
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, name))
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("name", ["float64", "float16", "meta"])
@pytest.mark.parametrize("call", CALLS)
def test_defaults_do_not_matter(call: str, name: str) -> None:
    want = CALLS[call]()
    with default(name):
        got = CALLS[call]()
    for a, b in zip(got, want, strict=True) if isinstance(want, tuple) else [(got, want)]:
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_array_equal(a, b)
