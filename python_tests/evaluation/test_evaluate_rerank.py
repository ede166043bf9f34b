"""``evaluate(rerank=...)``: the metrics of a re-ranked ranking. Re-ranking itself: python_tests/retrieval."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

import pyreid
from pyreid import KReciprocal, evaluate, k_reciprocal
from python_tests.evaluation.brute_force import brute_force
from python_tests.evaluation.test_evaluate import assert_equals
from python_tests.retrieval.test_k_reciprocal import clusters, integers


def labels(num_query: int, num_gallery: int, *, lowest: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(5)
    ids = rng.integers(lowest, 8, num_query), rng.integers(lowest, 8, num_gallery)
    return *ids, rng.integers(0, 3, num_query), rng.integers(0, 3, num_gallery)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("compat", ["official", "torchreid", "fastreid"])
@pytest.mark.parametrize("cameras", [False, True])
def test_equals_brute_force_on_the_re_ranked_matrix(cameras: bool, compat: Any, metric: Any) -> None:
    query, gallery = integers(30, 250, dim=5)
    q_ids, g_ids, q_cams, g_cams = labels(30, 250)
    cams = (q_cams, g_cams) if cameras else (None, None)
    method = KReciprocal(k1=7, k2=3, lambda_value=0.2, compat=compat)
    result = evaluate(query, gallery, q_ids, g_ids, *cams, metric=metric, rerank=method)
    distances = k_reciprocal(query, gallery, k1=7, k2=3, lambda_value=0.2, compat=compat, metric=metric)
    assert_equals(result, brute_force(distances, q_ids, g_ids, *cams))
    assert result.settings["rerank"] == {
        "method": "k_reciprocal", "k1": 7, "k2": 3, "lambda_value": 0.2, "compat": compat
    }  # fmt: skip
    assert "re-ranked" in result.summary()


def test_strip_by_strip(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = (*clusters(40, 300), *labels(40, 300))
    whole = evaluate(*problem, rerank=KReciprocal()).to_dict()
    tiles = sys.modules["pyreid.ops.distance_tiles"]
    monkeypatch.setattr(tiles, "_TILE_BYTES", {"cpu": 8 * 340 * 7})
    monkeypatch.setattr(tiles, "_MIN_ROWS", 1)
    assert evaluate(*problem, rerank=KReciprocal()).to_dict() == whole


def test_junk_takes_no_part() -> None:
    query, gallery = clusters(30, 250)
    q_ids, g_ids, q_cams, g_cams = labels(30, 250, lowest=-1)
    kept = g_ids != -1
    assert 0 < kept.sum() < 250
    result = evaluate(query, gallery, q_ids, g_ids, q_cams, g_cams, rerank=KReciprocal()).to_dict()
    without = evaluate(query, gallery[kept], q_ids, g_ids[kept], q_cams, g_cams[kept], rerank=KReciprocal()).to_dict()
    assert result["settings"].pop("num_junk") == (~kept).sum()
    assert without["settings"].pop("num_junk") == 0
    assert result == without


def test_only_junk() -> None:
    with pytest.warns(UserWarning, match="none of the 2 queries has a match"):
        result = evaluate(np.eye(2), np.eye(2), [0, 1], [-1, -1], rerank=KReciprocal())
    assert result.first_match_rank.tolist() == [-1, -1]


def test_without_re_ranking_nothing_changes() -> None:
    result = evaluate(np.eye(3), np.eye(3), [0, 1, 2], [0, 1, 2], rerank=None)
    assert "rerank" not in result.settings
    assert "re-ranked" not in result.summary()


def test_re_ranking_helps_where_it_should() -> None:
    # Identities as chains: neighbours of neighbours belong together, which distances to the query alone do not show.
    rng = np.random.default_rng(0)
    ids = np.repeat(np.arange(6), 30)
    angles = np.tile(np.arange(30) / 30, 6)
    chains = np.stack([ids * 0.35, angles * 2.0], axis=1) + 0.02 * rng.standard_normal((180, 2))
    is_query = angles == 0
    problem = (chains[is_query], chains[~is_query], ids[is_query], ids[~is_query])
    plain = evaluate(*problem).map
    assert evaluate(*problem, rerank=KReciprocal(k1=10, k2=3)).map > plain + 0.02


def test_progress(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    problem = (*clusters(5, 30), *labels(5, 30))
    evaluate(*problem, rerank=pyreid.KReciprocal(), progress=True)
    assert "ranking queries" in capsys.readouterr().err


def test_bad_features_are_named() -> None:
    gallery = np.ones((3, 2), dtype=np.float32)
    gallery[1, 0] = np.nan
    with pytest.raises(ValueError, match="gallery: 1 NaN or infinite values, the first is nan at row 1, column 0"):
        evaluate(np.ones((2, 2), dtype=np.float32), gallery, [0, 1], [0, 1, 1], rerank=KReciprocal())


@pytest.mark.gpu
def test_cuda() -> None:
    import torch

    problem = (*clusters(40, 300), *labels(40, 300))
    on_cuda = [torch.from_numpy(f).cuda() for f in problem[:2]]
    cpu = evaluate(*problem, rerank=KReciprocal()).to_dict()
    assert evaluate(*on_cuda, *problem[2:], rerank=KReciprocal(), device="cpu").to_dict() == cpu
    cuda = evaluate(*on_cuda, *problem[2:], rerank=KReciprocal()).to_dict()
    assert cuda["settings"].pop("device") == "cuda:0"
    cpu["settings"].pop("device")
    assert cuda == cpu
