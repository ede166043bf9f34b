from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch

import pyreid
from pyreid.evaluation import EvaluationResult, evaluate, progress, scores
from pyreid.ops._checks import Metric
from python_tests.evaluation.brute_force import Expected, brute_force, exact_distances
from python_tests.ops.checks import DEVICES

METRICS: list[Metric] = ["euclidean", "sqeuclidean", "cosine"]
Problem = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]


def integer_problem(
    num_query: int, num_gallery: int, *, num_ids: int, num_cams: int, dim: int = 3, levels: int = 3, seed: int = 0
) -> Problem:
    """Features of small integers: all inner products are exact in every float type, and many distances tie."""
    rng = np.random.default_rng(seed)
    query = rng.integers(-levels, levels + 1, (num_query, dim)).astype(np.float32)
    gallery = rng.integers(-levels, levels + 1, (num_gallery, dim)).astype(np.float32)
    ids = rng.integers(-1, num_ids, num_query), rng.integers(-1, num_ids, num_gallery)
    cams = (rng.integers(0, num_cams, num_query), rng.integers(0, num_cams, num_gallery)) if num_cams else (None, None)
    return query, gallery, *ids, *cams


def expected_of(problem: Problem, metric: str = "euclidean") -> Expected:
    query, gallery, q_ids, g_ids, q_cams, g_cams = problem
    return brute_force(exact_distances(query, gallery, metric), q_ids, g_ids, q_cams, g_cams)


def assert_equals(result: EvaluationResult, expected: Expected) -> None:
    no_match = result.settings["no_match"]
    ap = expected.average_precision if result.settings["ap"] == "step" else expected.trapezoid
    matched = np.array(expected.first_match_rank) >= 0
    scored = matched | (no_match == "zero")
    close: dict[str, Any] = {"rtol": 0, "atol": 1e-13}  # float64 sums of at most some thousand terms below 1
    assert result.first_match_rank.tolist() == expected.first_match_rank
    np.testing.assert_allclose(result.average_precision[scored], np.array(ap)[scored], **close)
    np.testing.assert_allclose(
        result.inverse_negative_penalty[scored], np.array(expected.inverse_negative_penalty)[scored], **close
    )
    assert np.isnan(result.average_precision[~scored]).all()
    assert np.isnan(result.inverse_negative_penalty[~scored]).all()
    np.testing.assert_allclose(result.map, expected.mean(ap, no_match), **close)
    np.testing.assert_allclose(result.map_step, expected.mean(expected.average_precision, no_match), **close)
    np.testing.assert_allclose(result.map_trapezoid, expected.mean(expected.trapezoid, no_match), **close)
    np.testing.assert_allclose(result.minp, expected.mean(expected.inverse_negative_penalty, no_match), **close)
    np.testing.assert_allclose(result.cmc, expected.cmc(len(result.cmc), no_match), **close)
    for k in (1, 5, len(result.cmc) + 3):
        np.testing.assert_allclose(result.rank(k), expected.cmc(k, no_match)[k - 1], **close)
    assert (result.num_queries, result.num_skipped) == (len(matched), int((~matched).sum()))


@hypothesis.settings(deadline=None, max_examples=150)
@hypothesis.given(
    st.integers(1, 9),
    st.integers(1, 60),
    st.integers(1, 6),
    st.integers(0, 4),
    st.integers(0, 3),
    st.sampled_from(METRICS),
    st.sampled_from(["step", "trapezoid"]),
    st.sampled_from(["skip", "zero"]),
    st.integers(1, 70),
    st.integers(0, 10**6),
)
@pytest.mark.filterwarnings("ignore:none of the")
def test_equals_brute_force(
    num_query: int,
    num_gallery: int,
    num_ids: int,
    num_cams: int,
    levels: int,
    metric: Any,
    ap: Any,
    no_match: Any,
    max_rank: int,
    seed: int,
) -> None:
    problem = integer_problem(num_query, num_gallery, num_ids=num_ids, num_cams=num_cams, levels=levels, seed=seed)
    if metric == "cosine":  # rows of one length, so that equal cosines are equal after any rounding
        problem = (problem[0], np.where(problem[1] < 0, -1, 1).astype(np.float32), *problem[2:])
    result = evaluate(*problem, metric=metric, ap=ap, no_match=no_match, max_rank=max_rank)
    assert result.cmc.shape == (max_rank,)
    assert_equals(result, expected_of(problem, metric))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("num_ids", [2, 30, 700])
def test_types_and_devices(num_ids: int, dtype: torch.dtype, device: str) -> None:
    problem = integer_problem(60, 4300, num_ids=num_ids, num_cams=3, dim=6)
    query, gallery = (torch.from_numpy(f).to(device, dtype) for f in problem[:2])
    result = evaluate(query, gallery, *problem[2:])
    assert_equals(result, expected_of(problem))
    assert result.settings["device"].startswith(device)
    assert result.settings["dtype"] == ("float64" if dtype == torch.float64 else "float32")


def test_a_query_by_hand() -> None:
    # distances 1 2 3 4 5; junk by camera first, junk by identity third; positives at ranks 1 and 2 of what is left
    gallery = np.array([[1.0], [2.0], [3.0], [4.0], [5.0]])
    result = pyreid.evaluate(np.zeros((1, 1)), gallery, [7], [7, 8, -1, 7, 7], [0], [0, 0, 1, 1, 2], max_rank=4)
    assert result.first_match_rank.tolist() == [1]
    assert result.map == result.map_step == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert result.map_trapezoid == pytest.approx(((0 + 1 / 2) / 2 + (1 / 2 + 2 / 3) / 2) / 2)
    assert result.minp == pytest.approx(2 / 3)
    assert result.cmc.tolist() == [0, 1, 1, 1]
    assert (result.rank(1), result.rank(2), result.rank(100)) == (0, 1, 1)
    without_cameras = pyreid.evaluate(np.zeros((1, 1)), gallery, [7], [7, 8, -1, 7, 7])
    assert without_cameras.first_match_rank.tolist() == [0]
    assert without_cameras.minp == pytest.approx(3 / 4)


@pytest.mark.parametrize("metric", METRICS)
def test_rows_of_any_length(metric: Any) -> None:
    rng = np.random.default_rng(0)
    query, gallery = rng.standard_normal((30, 9)), rng.standard_normal((400, 9)) * rng.random((400, 1))
    labels = (rng.integers(0, 9, 30), rng.integers(-1, 9, 400), rng.integers(0, 3, 30), rng.integers(0, 3, 400))
    differences = query[:, None] - gallery
    distances = (differences**2).sum(2)
    if metric == "cosine":
        distances = 1 - query @ gallery.T / np.linalg.norm(query, axis=1)[:, None] / np.linalg.norm(gallery, axis=1)
    assert_equals(evaluate(query, gallery, *labels, metric=metric), brute_force(distances, *labels))


def test_ties_are_in_the_order_of_the_gallery() -> None:
    gallery = np.ones((100, 8), dtype=np.float32)
    ids = np.arange(100) // 10
    result = evaluate(gallery[:10], gallery, np.arange(10), ids)
    assert result.first_match_rank.tolist() == list(range(0, 100, 10))


def test_many_positives() -> None:
    problem = integer_problem(5, 5000, num_ids=1, num_cams=6, dim=4)
    assert max(len(ranks) for ranks in expected_of(problem).ranks) > 2048
    assert_equals(evaluate(*problem), expected_of(problem))


def test_gallery_order_does_not_matter_without_ties() -> None:
    rng = np.random.default_rng(0)
    query, gallery = rng.standard_normal((40, 16)), rng.standard_normal((500, 16))
    q_ids, g_ids = rng.integers(0, 20, 40), rng.integers(0, 20, 500)
    q_cams, g_cams = rng.integers(0, 4, 40), rng.integers(0, 4, 500)
    result = evaluate(query, gallery, q_ids, g_ids, q_cams, g_cams)
    p = rng.permutation(500)
    permuted = evaluate(query, gallery[p], q_ids, g_ids[p], q_cams, g_cams[p])
    assert permuted.to_dict() == result.to_dict()
    for metric in METRICS[:2]:  # the same order
        assert evaluate(query, gallery, q_ids, g_ids, q_cams, g_cams, metric=metric).map == result.map


def test_duplicates_rank_side_by_side() -> None:
    rng = np.random.default_rng(0)
    distinct = rng.integers(-9, 10, (50, 12)).astype(np.float32)
    gallery = np.repeat(distinct, 3, axis=0)
    ids = np.arange(150)
    result = evaluate(gallery, gallery, ids, ids)
    assert result.first_match_rank.tolist() == [i % 3 for i in range(150)]


def test_queries_without_a_match() -> None:
    query, gallery = np.eye(3), np.eye(3)
    result = evaluate(query, gallery, [0, 5, -1], [0, 1, -1])
    assert (result.num_queries, result.num_skipped, result.map, result.rank(1)) == (3, 2, 1.0, 1.0)
    assert result.first_match_rank.tolist() == [0, -1, -1]
    assert np.isnan(result.average_precision).tolist() == [False, True, True]
    zero = evaluate(query, gallery, [0, 5, -1], [0, 1, -1], no_match="zero")
    assert (zero.num_skipped, zero.map, zero.cmc[-1], zero.rank(1)) == (
        2,
        pytest.approx(1 / 3),
    ) + (pytest.approx(1 / 3),) * 2
    assert zero.average_precision.tolist() == [1, 0, 0]


def test_no_query_with_a_match() -> None:
    arguments = (np.eye(2), np.eye(2), [0, 1], [0, 1], [3, 3], [3, 3])
    with pytest.warns(UserWarning, match="none of the 2 queries has a match in the gallery under another camera"):
        result = evaluate(*arguments)
    assert math.isnan(result.map)
    assert math.isnan(result.rank(1))
    assert np.isnan(result.cmc).all()
    assert result.to_dict()["map"] is None
    with pytest.warns(UserWarning, match="none of the 2 queries"):
        assert evaluate(*arguments, no_match="zero").map == 0
    with pytest.warns(UserWarning, match="none of the 2 queries has a match in the gallery; check the identities$"):
        evaluate(np.eye(2), np.eye(2), [0, 1], [-1, -1])


class OnlyDLPack:
    """An array as CuPy has it: DLPack and nothing else."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


def test_kinds_of_input(tmp_path: Path) -> None:
    problem = integer_problem(30, 300, num_ids=9, num_cams=3, dim=4)
    query, gallery, q_ids, g_ids, q_cams, g_cams = problem
    assert q_cams is not None
    assert g_cams is not None
    labels = (q_ids, g_ids, q_cams, g_cams)
    expected = evaluate(*problem).to_dict()
    np.save(tmp_path / "gallery.npy", gallery)
    mapped = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    assert isinstance(mapped, np.memmap)
    assert evaluate(query, mapped, *labels).to_dict() == expected
    half = np.memmap(tmp_path / "half", dtype=np.float16, mode="w+", shape=gallery.shape)
    half[:] = gallery
    assert evaluate(query.astype(np.float16), half, *labels).to_dict() == expected
    assert evaluate(OnlyDLPack(query), OnlyDLPack(gallery), *(OnlyDLPack(a) for a in labels)).to_dict() == expected
    assert (
        evaluate(np.asfortranarray(query), gallery.astype(">f4"), *(a.tolist() for a in labels)).to_dict() == expected
    )
    wide = np.repeat(gallery, 2, axis=1)
    backwards = np.ascontiguousarray(query[::-1])[::-1]
    assert evaluate(backwards, wide[:, ::2], *(torch.from_numpy(a) for a in labels)).to_dict() == expected
    grad = torch.from_numpy(query).requires_grad_()
    assert evaluate(grad, gallery, *(a.astype(np.uint8) if a.min() >= 0 else a for a in labels)).to_dict() == expected
    doubled = evaluate(query.astype(np.float64), gallery, *labels).to_dict()
    assert doubled["settings"].pop("dtype") == "float64"
    assert doubled == expected | {"settings": {k: v for k, v in expected["settings"].items() if k != "dtype"}}


def test_inputs_are_not_changed() -> None:
    problem = integer_problem(20, 100, num_ids=5, num_cams=2)
    copies = [None if a is None else a.copy() for a in problem]
    evaluate(*problem, metric="cosine")
    assert all(np.array_equal(a, b) for a, b in zip(problem, copies, strict=True))  # type: ignore[arg-type]


def test_low_precision_settings_do_not_change_the_ranking(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    query, gallery = (torch.from_numpy(rng.standard_normal((n, 64)).astype(np.float32)) for n in (30, 800))
    ids = rng.integers(0, 9, 30), rng.integers(0, 9, 800)
    expected = evaluate(query, gallery, *ids).to_dict()
    during = []
    mm = torch.mm

    def spy(*args: Any, **kwargs: Any) -> torch.Tensor:
        # whether a CPU has a fast path for bfloat16 products differs, so look at the settings themselves
        during.append(tuple(backend.fp32_precision for backend in backends))
        assert kwargs["out"].dtype == torch.float32
        return mm(*args, **kwargs)

    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    monkeypatch.setattr(torch, "mm", spy)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
            assert evaluate(query, gallery, *ids).to_dict() == expected
        assert torch.get_float32_matmul_precision() == "medium"
        assert [backend.fp32_precision for backend in backends] == ["tf32", "bf16"]
    finally:
        torch.set_float32_matmul_precision(before)
    assert during == [("ieee", "ieee")]


def test_strips_and_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyreid.ops import distance_tiles

    problem = integer_problem(300, 700, num_ids=30, num_cams=3, dim=5)
    expected = evaluate(*problem).to_dict()
    monkeypatch.setattr(distance_tiles, "_MIN_ROWS", 1)
    monkeypatch.setattr(distance_tiles, "_RESIDENT_BYTES", 0)
    monkeypatch.setattr(distance_tiles, "_BLOCK_BYTES", 1000)
    monkeypatch.setattr(distance_tiles, "_TILE_BYTES", {"cpu": 10**5, "cuda": 10**5})
    strips = [
        rows
        for rows, _, _ in distance_tiles.inner_product_tiles(
            torch.zeros(300, 5), torch.zeros(700, 5), device=torch.device("cpu"), dtype=torch.float32
        )
    ]
    assert len(strips) == 9
    assert evaluate(*problem).to_dict() == expected
    halves = (problem[0].astype(np.float16), problem[1].astype(np.float16))
    assert evaluate(*halves, *problem[2:]).to_dict() == expected


PROGRAM = """
import resource, sys
import torch
from python_tests.evaluation.test_evaluate import integer_problem
from pyreid.evaluation import evaluate
torch.set_num_threads(int(sys.argv[1]))
problem = integer_problem(int(sys.argv[2]), int(sys.argv[3]), num_ids=100, num_cams=4, dim=16)
evaluate(*(a[:10] for a in problem))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
result = evaluate(*problem)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
print(result.to_dict())
"""


def run_program(threads: int, num_query: int, num_gallery: int, isa: str = "avx512") -> tuple[float, str]:
    """Memory in bytes that an evaluation needs beyond its input, and its result."""
    output = run_code(PROGRAM, threads, num_query, num_gallery, PYREID_CPU_ISA=isa)
    memory, result = output.splitlines()
    return 1024 * float(memory), result


def run_code(code: str, *arguments: object, **environment: str) -> str:
    """What a program prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_threads_and_instruction_sets_agree() -> None:
    results = {
        run_program(threads, 200, 3000, isa)[1] for threads, isa in [(1, "avx512"), (2, "avx2"), (2, "baseline")]
    }
    assert len(results) == 1


@pytest.mark.parametrize("size", [5, 17, 33, 257, 1001, 4099])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_equal_rows_of_real_features_tie(size: int, metric: str, dtype: type) -> None:
    # A matrix product alone rounds the last columns in another order, so that copies of one row would differ.
    rng = np.random.default_rng(size)
    distinct = rng.standard_normal((3, 37)).astype(dtype)
    which = rng.integers(0, 3, size)
    query = rng.standard_normal((4, 37)).astype(dtype)
    gallery_ids = rng.integers(0, 4, size)
    result = evaluate(query, distinct[which], np.arange(4), gallery_ids, metric=metric)
    for q in range(4):
        a, b = query[q].astype(np.float64), distinct.astype(np.float64)
        distance = -(b @ a) / np.linalg.norm(b, axis=1) if metric == "cosine" else ((b - a) ** 2).sum(1)
        ranked = gallery_ids[np.argsort(distance[which], kind="stable")] == q
        first = int(ranked.argmax()) if ranked.any() else -1
        assert result.first_match_rank[q] == first
        hits = np.flatnonzero(ranked)
        if len(hits):
            assert result.average_precision[q] == pytest.approx((np.arange(1, len(hits) + 1) / (hits + 1)).mean())


def test_memory_is_that_of_a_strip() -> None:
    memory, _ = run_program(1, 2000, 30000)
    assert memory < 0.5 * (4 * 2000 * 30000)


MANY_POSITIVES = """
import resource
import numpy as np, torch
from pyreid.evaluation import evaluate
torch.set_num_threads(1)
rng = np.random.default_rng(0)
query, gallery = (rng.standard_normal((n, 4)).astype("f4") for n in (900, 20000))
query_ids, gallery_ids = (rng.integers(0, 2, n) for n in (900, 20000))
evaluate(query[:10], gallery[:10], query_ids[:10], gallery_ids[:10])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
evaluate(query, gallery, query_ids, gallery_ids)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_of_pairs_of_one_identity() -> None:
    pairs = 900 * 10000
    # a strip, which all queries share, and its ranks and all ranks, 8 bytes each
    assert 1024 * float(run_code(MANY_POSITIVES)) < 4 * 900 * 20000 + 2 * 8 * pairs + 40 * 2**20


@pytest.mark.parametrize("slots", [1, 50, 400])
def test_scores_do_not_depend_on_the_blocks(slots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 90, 60) * (rng.random(60) < 0.8)
    ranks = []
    for count in counts:  # ascending, then -1 for those under the query's camera
        kept = int(rng.integers(0, count + 1))
        ranks += [*np.sort(rng.choice(500, kept, replace=False)), *[-1] * (count - kept)]
    arrays = np.array(ranks, dtype=np.int64), np.concatenate([[0], np.cumsum(counts)])
    expected = scores.query_scores(*arrays)
    assert 0 < expected.matched.sum() < 60
    calls, score = [], scores._score
    monkeypatch.setattr(scores, "_SLOTS_AT_A_TIME", slots)
    monkeypatch.setattr(scores, "_score", lambda *arguments: (calls.append(arguments[-1]), score(*arguments)))
    found = scores.query_scores(*arrays)
    assert len(calls) > 5
    for name in ("first_match_rank", "step", "trapezoid", "inverse_negative_penalty"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_progress(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes the captured stream for a terminal
    evaluate(np.eye(3), np.eye(3), [0, 1, 5], [0, 1, -1], progress=True)
    captured = capsys.readouterr()
    assert "ranking queries" in captured.err
    assert captured.out == ""
    evaluate(np.eye(3), np.eye(3), [0, 1, 5], [0, 1, -1])
    assert capsys.readouterr().err == ""


def test_progress_without_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate(np.eye(3), np.eye(3), [0, 1, 5], [0, 1, -1], progress=True)
    assert capsys.readouterr().err == ""  # it took no time
    clock = iter([0.0, 10.0, 31.0, 40.0, 62.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.progress_bar("ranking", 50, show=True) as advance:
        for _ in range(4):
            advance(5)
    assert capsys.readouterr().err == "ranking: 10 of 50, 0:02:04 left\nranking: 20 of 50, 0:01:33 left\n"


def test_summary_and_files(tmp_path: Path) -> None:
    result = evaluate(np.eye(3), np.eye(3), [0, 1, 5], [0, 1, -1], ap="trapezoid")
    lines = dict(line.split(maxsplit=1) for line in result.summary().splitlines())
    assert lines["queries"] == "3 (1 without a match, skipped)"
    assert lines["gallery"] == "2 (1 junk images removed)"
    assert lines["metric"] == "euclidean, trapezoid AP"
    assert lines["mAP"] == lines["rank-1"] == "100.00 %"
    path = tmp_path / "metrics.json"
    path.write_text("old")
    result.save(path)
    assert json.loads(path.read_text()) == result.to_dict()
    assert result.to_dict()["average_precision"] == [1.0, 1.0, None]
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]
    object.__setattr__(result, "settings", {"unfit": object()})
    with pytest.raises(TypeError):
        result.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]
    assert json.loads(path.read_text())["map"] == 1.0
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        evaluate(np.eye(2), np.eye(2), [0, 1], [0, 1]).save(tmp_path / "folder")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "metrics.json"]
    with pytest.raises(AttributeError):
        result.map = 0.0  # type: ignore[misc]
    with pytest.raises(ValueError, match="k: expected at least 1, got 0"):
        result.rank(0)


def features(rows: int, dim: int = 2, **places: float) -> np.ndarray:
    out = np.ones((rows, dim), dtype=np.float32)
    for place, value in places.items():
        row, column = map(int, place.removeprefix("at_").split("_"))
        out[row, column] = value
    return out


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"query": [[1.0]]}, TypeError, "query: expected a torch tensor, a NumPy array or an object with DLPack"),
        ({"query": [features(2)] * 2}, TypeError, "iterator of chunks, got a list of ndarray; stack"),
        ({"query": np.ones((2, 2), dtype=int)}, TypeError, "query: expected float16, bfloat16, float32 or float64"),
        ({"gallery": np.array([["a"]])}, TypeError, "gallery: expected numbers that torch knows"),
        ({"query": np.ones(2)}, ValueError, r"query: expected a non-empty 2-D matrix, got shape \(2,\)"),
        ({"query": np.ones((0, 2))}, ValueError, r"query: expected a non-empty 2-D matrix, got shape \(0, 2\)"),
        ({"gallery": np.ones((0, 2))}, ValueError, r"gallery: expected a non-empty 2-D matrix, got shape \(0, 2\)"),
        ({"gallery": np.ones((3, 4))}, ValueError, r"gallery: expected 2 columns to match query, got shape \(3, 4\)"),
        ({"query_ids": [1]}, ValueError, r"query_ids: expected shape \(2,\), one for each row of query, got \(1,\)"),
        ({"gallery_ids": np.ones((3, 1), dtype=int)}, ValueError, r"gallery_ids: expected shape \(3,\)"),
        ({"gallery_ids": np.ones(3)}, TypeError, "gallery_ids: expected integers, got float64"),
        ({"gallery_ids": np.ones(3, dtype=bool)}, TypeError, "gallery_ids: expected integers, got bool"),
        ({"gallery_ids": ["a", "b", "c"]}, TypeError, "gallery_ids: expected integers"),
        ({"query_ids": None}, TypeError, "query_ids: expected 2 integers, one for each row of query, got NoneType"),
        ({"query_ids": iter([0, 1])}, TypeError, "query_ids: expected 2 integers, .*, got list_iterator"),
        ({"gallery_cams": [[0], [1, 2], 3]}, TypeError, "gallery_cams: expected 3 integers, .* a list of int, list"),
        ({"query_ids": np.array([2**63, 1], dtype=np.uint64)}, ValueError, "query_ids: 9223372036854775808 does not"),
        ({"gallery_cams": None}, ValueError, "gallery_cams: expected cameras, because query_cams is given"),
        ({"query_cams": None}, ValueError, "query_cams: expected cameras, because gallery_cams is given"),
        ({"query_cams": [0]}, ValueError, r"query_cams: expected shape \(2,\)"),
        ({"gallery": features(3, at_1_0=np.nan, at_2_1=np.inf)}, ValueError,
         "gallery: 2 NaN or infinite values, the first is nan at row 1, column 0"),
        ({"query": features(2, at_1_1=-np.inf)}, ValueError, "query: 1 NaN or infinite values, the first is -inf at"),
        ({"gallery": features(3, at_1_0=1e19)}, ValueError, "gallery: the squared norm of 1 rows overflows float32"),
        ({"query": 1e-20 * features(2)}, ValueError, "squared norm of 2 rows underflows float32, the first is row 0"),
        ({"metric": "manhattan"}, ValueError, "metric: expected one of 'euclidean', 'sqeuclidean', 'cosine'"),
        ({"ap": "area"}, ValueError, "ap: expected one of 'step', 'trapezoid'"),
        ({"no_match": "drop"}, ValueError, "no_match: expected one of 'skip', 'zero'"),
        ({"max_rank": 0}, ValueError, "max_rank: expected at least 1, got 0"),
        ({"max_rank": 5.0}, TypeError, "max_rank: expected an integer, got float"),
        ({"device": 3.5}, ValueError, r"device: expected for example 'cpu' or 'cuda:0', got 3\.5"),
        ({"device": "mps"}, ValueError, "device: expected a CPU or CUDA device, got 'mps'"),
    ],
)  # fmt: skip
def test_bad_input(change: dict[str, Any], error: type[Exception], match: str) -> None:
    good: dict[str, Any] = {
        "query": features(2),
        "gallery": features(3),
        "query_ids": [0, 1],
        "gallery_ids": [0, 1, 1],
        "query_cams": [0, 0],
        "gallery_cams": [1, 1, 1],
    }
    assert evaluate(**good).num_skipped == 0
    with pytest.raises(error, match=match):
        evaluate(**(good | change))


def test_rows_of_zeros_are_allowed() -> None:
    gallery = np.array([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    for metric in METRICS:
        result = evaluate(np.array([[2.0, 0.0], [0.0, 0.0]]), gallery, [0, 2], [0, 1, 2], metric=metric)
        assert result.first_match_rank.tolist() == [1, 2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_device() -> None:
    with pytest.raises(ValueError, match="device: 'cuda' is not available"):
        evaluate(features(2), features(3), [0, 1], [0, 1, 1], device="cuda")


@pytest.mark.gpu
def test_cuda_equals_cpu() -> None:
    problem = integer_problem(300, 9000, num_ids=40, num_cams=5, dim=20)
    expected = evaluate(*problem).to_dict()
    cuda = evaluate(*problem, device="cuda").to_dict()
    query, gallery = (torch.from_numpy(f).cuda() for f in problem[:2])
    assert evaluate(query, gallery.cpu(), *problem[2:]).to_dict() == cuda
    assert cuda["settings"].pop("device") == "cuda:0"
    assert cuda["settings"].pop("precision") == "exact"
    assert expected["settings"].pop("device") == "cpu"
    assert cuda == expected
