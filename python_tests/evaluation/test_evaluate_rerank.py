"""``evaluate(rerank=...)``: the metrics of a re-ranked ranking. Re-ranking itself: python_tests/retrieval."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch

import pyreid
from pyreid import KReciprocal, evaluate, k_reciprocal
from pyreid.retrieval import NeighborGraph
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


class Given:
    """Re-ranks by given strips."""

    def __init__(self, strips: list[Any]) -> None:
        self.given = strips

    def settings(self) -> dict[str, Any]:
        return {"method": "given"}

    def strips(self, query: Any, gallery: Any, **options: Any) -> Any:
        yield from self.given


def strip(start: int, stop: int, *, columns: int = 6, dtype: torch.dtype = torch.float32) -> tuple[slice, torch.Tensor]:
    return slice(start, stop), torch.arange(4 * columns).view(4, columns)[start:stop].to(dtype)


WITH_NAN = (slice(0, 4), torch.tensor([[0.0] * 6, [0.0] * 6, [0.0] * 5 + [torch.nan], [torch.nan] * 6]))


@pytest.mark.parametrize(
    ("strips", "error", "match"),
    [
        ([WITH_NAN], ValueError, "rerank: 7 NaN distances in a strip, the first of query 2"),
        ([strip(0, 3)], ValueError, "rerank: expected strips of all 4 queries, got none from query 3 on"),
        ([], ValueError, "rerank: expected strips of all 4 queries, got none from query 0 on"),
        ([strip(1, 4)], ValueError, r"the next strip to be slice\(0, stop\) with stop up to 4, got slice\(1, 4, None"),
        ([strip(0, 2), strip(1, 4)], ValueError, r"slice\(2, stop\) with stop up to 4, got slice\(1, 4, None\)"),
        ([strip(0, 4), strip(0, 4)], ValueError, r"slice\(4, stop\) with stop up to 4, got slice\(0, 4, None\)"),
        ([(slice(0, 5), torch.zeros(5, 6))], ValueError, r"with stop up to 4, got slice\(0, 5, None\)"),
        ([(slice(0, None), torch.zeros(4, 6))], ValueError, r"with stop up to 4, got slice\(0, None, None\)"),
        ([strip(0, 4, columns=5)], ValueError, r"shape \(4, 6\) for queries 0 to 4, got \(4, 5\)"),
        ([(slice(0, 4), torch.zeros(3, 6))], ValueError, r"shape \(4, 6\) for queries 0 to 4, got \(3, 6\)"),
        (
            [strip(0, 4, dtype=torch.int64)],
            TypeError,
            "expected distances of floating-point .* got torch.int64",
        ),
        ([torch.zeros(4, 6)], TypeError, r"rerank: expected strips \(slice of queries, tensor .* got Tensor"),
    ],
)
def test_what_a_re_ranker_gives_is_checked(strips: list[Any], error: type[Exception], match: str) -> None:
    problem = (np.eye(4, 6), np.eye(6), [0, 1, 2, 0], [0, 1, 2, 0, 1, 2])
    good = evaluate(*problem, rerank=Given([strip(0, 1), strip(1, 4, dtype=torch.float16)]))
    assert good.first_match_rank.tolist() == [0, 1, 2, 0]
    with pytest.raises(error, match=match):
        evaluate(*problem, rerank=Given(strips))


def test_errors_tell_the_row_in_the_gallery_with_its_junk() -> None:
    query, gallery = integers(3, 20, dim=5)
    gallery = np.array(gallery, np.float32)
    gallery[13, 2] = np.nan
    ids = np.where(np.arange(20) < 5, -1, np.arange(20) % 3)
    for method in (None, KReciprocal(k1=3, k2=2)):
        with pytest.raises(ValueError, match="gallery: 1 NaN or infinite values, the first is nan at row 13, column 2"):
            evaluate(query, gallery, np.arange(3), ids, rerank=method)


def test_a_graph_is_one_of_the_gallery_without_junk() -> None:
    query, gallery = clusters(30, 250)
    q_ids, g_ids, q_cams, g_cams = labels(30, 250, lowest=-1)
    kept = g_ids != -1
    problem = (query, gallery, q_ids, g_ids, q_cams, g_cams)
    whole, clean = (NeighborGraph.exact(query, items, 21) for items in (gallery, gallery[kept]))
    message = rf"rerank: its graph holds all 250 gallery images, but the {(~kept).sum()} with identity -1 take no part;"
    with pytest.raises(ValueError, match=message):
        evaluate(*problem, rerank=KReciprocal(graph=whole))
    found = evaluate(*problem, rerank=KReciprocal(graph=clean))
    np.testing.assert_array_equal(found.first_match_rank, evaluate(*problem, rerank=KReciprocal()).first_match_rank)


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
    problem = (*clusters(40, 300), *labels(40, 300))
    on_cuda = [torch.from_numpy(f).cuda() for f in problem[:2]]
    cpu = evaluate(*problem, rerank=KReciprocal()).to_dict()
    assert evaluate(*on_cuda, *problem[2:], rerank=KReciprocal(), device="cpu").to_dict() == cpu
    cuda = evaluate(*on_cuda, *problem[2:], rerank=KReciprocal()).to_dict()
    assert cuda["settings"].pop("device") == "cuda:0"
    cpu["settings"].pop("device")
    assert cuda == cpu
