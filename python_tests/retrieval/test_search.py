"""Exact search against a matrix of all distances, and by several ranks."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st

import pyreid
from pyreid.ops import distance_tiles, shards
from pyreid.retrieval import search, search_sharded
from pyreid.retrieval import search as search_function
from python_tests.ranks import (
    TIMEOUT,
    WORLDS,
    FullDisk,
    attempt,
    failing_sender,
    meet,
    part,
    run_ranks,
    same_strips,
    share,
    spy_on_strips,
)

module = __import__("sys").modules[search_function.__module__]


def naive(query: np.ndarray, gallery: np.ndarray, k: int, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """In float64, all pairs, a stable sort."""
    q, g = query.astype(np.float64), gallery.astype(np.float64)
    if metric == "cosine":
        lengths = np.linalg.norm(q, axis=1)[:, None] * np.linalg.norm(g, axis=1)
        distances = 1 - np.divide(q @ g.T, lengths, out=np.zeros(lengths.shape), where=lengths > 0)
    else:
        distances = ((q[:, None] - g) ** 2).sum(-1)
        if metric == "euclidean":
            distances = np.sqrt(distances)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, 1), order


def integers(rows: int, columns: int, seed: int, values: int = 3) -> np.ndarray:
    """Small integers: products are exact, and many distances tie."""
    return np.random.default_rng(seed).integers(-values, values + 1, (rows, columns)).astype(np.float32)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_ties_come_in_the_order_of_the_gallery(metric: Any, dtype: torch.dtype) -> None:
    query, gallery = integers(19, 4, 0), integers(5000, 4, 1)
    expected = naive(query, gallery, 60, metric)
    distances, indices = search(
        torch.from_numpy(query).to(dtype), torch.from_numpy(gallery).to(dtype), 60, metric=metric
    )
    assert distances.dtype == (np.float64 if dtype == torch.float64 else np.float32)
    assert indices.dtype == np.int64
    np.testing.assert_array_equal(indices, expected[1])
    np.testing.assert_allclose(distances, expected[0], rtol=1e-6)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
def test_real_features(metric: Any) -> None:
    rng = np.random.default_rng(0)
    query, gallery = rng.standard_normal((33, 40)), rng.standard_normal((3000, 40))
    gallery[7] = 0
    distances, indices = search(query, gallery, 25, metric=metric)  # float64: no two distances are within its rounding
    expected = naive(query, gallery, 25, metric)
    np.testing.assert_array_equal(indices, expected[1])
    np.testing.assert_allclose(distances, expected[0], rtol=1e-11)
    single, found = search(query.astype("f4"), gallery.astype("f4"), 25, metric=metric)
    np.testing.assert_allclose(single, expected[0], rtol=1e-5)
    assert (found == expected[1]).mean() > 0.99


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 9),
    st.integers(1, 40),
    st.integers(1, 5),
    st.sampled_from(["euclidean", "sqeuclidean"]),
    st.booleans(),
    st.data(),
)
def test_any_shape(rows: int, columns: int, dim: int, metric: Any, blocks: bool, data: Any) -> None:
    k = data.draw(st.integers(1, columns))
    query, gallery = integers(rows, dim, rows), integers(columns, dim, columns)
    before = distance_tiles._RESIDENT_BYTES, distance_tiles._BLOCK_BYTES, module._FOUND_BYTES
    try:
        if blocks:  # a gallery too large for the device, and rows found too many to gather
            distance_tiles._RESIDENT_BYTES, distance_tiles._BLOCK_BYTES, module._FOUND_BYTES = 0, 64, 64
        distances, indices = search(query, gallery.astype(np.float16), k, metric=metric)
    finally:
        distance_tiles._RESIDENT_BYTES, distance_tiles._BLOCK_BYTES, module._FOUND_BYTES = before
    expected = naive(query, gallery, k, metric)
    np.testing.assert_array_equal(indices, expected[1])
    np.testing.assert_allclose(distances, expected[0], rtol=1e-6)


def test_it_is_nearest_neighbors(monkeypatch: pytest.MonkeyPatch) -> None:
    query, gallery = torch.randn(50, 64), torch.randn(9000, 64)
    gallery[4000:4100] = gallery[:100]
    expected = pyreid.ops.nearest_neighbors(query, gallery, 100)
    monkeypatch.setattr(module, "_FOUND_BYTES", 100 * 64 * 4 * 7)  # seven queries at a time
    distances, indices = search(query, gallery, 100, return_torch=True)
    assert torch.equal(distances, expected[0])
    assert torch.equal(indices, expected[1])


def test_files_iterators_and_maps(tmp_path: Path) -> None:
    query, gallery = integers(5, 6, 0), integers(70, 6, 1)
    expected = search(query, gallery, 9)
    np.save(tmp_path / "gallery.npy", gallery)
    for given_gallery in (
        tmp_path / "gallery.npy",
        np.load(tmp_path / "gallery.npy", mmap_mode="r"),
        iter(np.split(gallery, [3, 40])),
        torch.from_numpy(gallery),
        np.asfortranarray(gallery),
        gallery.astype(">f4"),
    ):
        for found, wanted in zip(search(query, given_gallery, 9), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_a_mapped_gallery_is_not_copied(tmp_path: Path) -> None:
    """In a process whose memory would not hold it."""
    code = f"""
import resource, numpy as np, pyreid
from pathlib import Path
gallery = np.lib.format.open_memmap({str(tmp_path / "g.npy")!r}, "w+", "f4", (150_000, 256))
gallery[:] = np.arange(150_000, dtype="f4")[:, None]
del gallery
pyreid.search(np.zeros((2, 256), "f4"), np.zeros((5, 256), "f4"), 2)
def anonymous():
    return next(int(l.split()[1]) for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmData"))
before = anonymous()
resource.setrlimit(resource.RLIMIT_DATA, (before * 1024 + 64 * 2**20,) * 2)
distances, indices = pyreid.search(np.full((3, 256), 5, "f4"), {str(tmp_path / "g.npy")!r}, 3)
print(indices.tolist())
"""
    import subprocess
    import sys

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert run.stdout.strip() == "[[5, 4, 6], [5, 4, 6], [5, 4, 6]]", run.stderr


GOOD = integers(5, 3, 0)
NAN, INF = GOOD.copy(), GOOD.copy()
NAN[2, 1], INF[4, 0] = np.nan, np.inf


@pytest.mark.parametrize(
    ("query", "gallery", "k", "options", "error", "message"),
    [
        (NAN, GOOD, 1, {}, ValueError, "query: 1 NaN or infinite values, the first is nan at row 2, column 1"),
        (GOOD, INF, 1, {}, ValueError, "gallery: 1 NaN or infinite values, the first is inf at row 4, column 0"),
        (GOOD, GOOD[:, :2], 1, {}, ValueError, "gallery: expected 3 columns to match query, got shape"),
        (GOOD, GOOD[:0], 1, {}, ValueError, "gallery: expected a non-empty 2-D matrix"),
        (GOOD, GOOD, 6, {}, ValueError, "k: expected 1 to 5, the rows of gallery, got 6"),
        (GOOD, GOOD, 0, {}, ValueError, "k: expected 1 to 5"),
        (GOOD, GOOD, 1.0, {}, TypeError, "k: expected an integer, got float"),
        (GOOD, GOOD, True, {}, TypeError, "k: expected an integer, got bool"),
        (GOOD, GOOD.astype(int), 1, {}, TypeError, "gallery: expected float16"),
        (GOOD, [[1.0]], 1, {}, TypeError, "gallery: expected a torch tensor"),
        (GOOD, GOOD * np.float32(1e30), 1, {}, ValueError, "gallery: the squared norm of"),
        (GOOD, GOOD, 1, {"metric": "l1"}, ValueError, "metric: expected one of"),
        (GOOD, GOOD, 1, {"device": "nowhere"}, ValueError, "device: expected"),
    ],
)
def test_bad_input(query: Any, gallery: Any, k: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        search(query, gallery, k, **options)


@pytest.mark.gpu
@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
def test_on_a_gpu(metric: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    query, gallery = integers(19, 8, 0), integers(70000, 8, 1)
    expected = search(query, gallery, 40, metric=metric)
    for resident in (512 * 2**20, 0):
        monkeypatch.setattr(distance_tiles, "_RESIDENT_BYTES", resident)
        distances, indices = search(query, gallery, 40, metric=metric, device="cuda")
        np.testing.assert_array_equal(indices, expected[1])
        np.testing.assert_allclose(distances, expected[0], rtol=1e-5, atol=1e-6)


# By several ranks.


def problem() -> dict[str, np.ndarray]:
    """Every tenth gallery row repeats another, mostly of another share."""
    rng = np.random.default_rng(0)
    gallery = rng.standard_normal((401, 37)).astype("f4")
    gallery[::10] = gallery[rng.integers(0, 401, 41)]
    return {"query": rng.standard_normal((77, 37)).astype("f4"), "gallery": gallery}


def alike() -> dict[str, np.ndarray]:
    """Rows that only the rounding of the products tells apart."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((1, 301)) + 1e-7 * rng.standard_normal((401, 301))
    return {"query": rng.standard_normal((77, 301)).astype("f4"), "gallery": rows.astype("f4")}


def work(rank: int, world: int, folder: str) -> None:
    """What one rank does: all cases one after the other, into a file."""
    shards._QUERIES_AT_A_TIME = 16
    shards._CHUNK_BYTES = 1000
    meet(rank, world, folder)
    last, found = rank == world - 1, {}
    for name, make in (("problem", problem), ("alike", alike)):
        for metric in ("euclidean", "cosine"):
            with spy_on_strips(module) as strips:
                result = search_sharded(**share(make(), rank, world), k=20, metric=metric)
            found[f"strips {name} {metric}"] = np.array(strips).reshape(-1, 2)
            found[f"{name} {metric} distances"], found[f"{name} {metric} indices"] = result
    half = {name: array.astype(np.float16) for name, array in share(problem(), rank, world).items()}
    found["half distances"], found["half indices"] = search_sharded(**half, k=401)
    none = {**share(problem(), rank, world), "query": np.zeros((0, 37), "f4")}
    found["no query distances"], found["no query indices"] = search_sharded(**none)

    own = share(problem(), rank, world)
    messages = {
        "nan": attempt(search_sharded, **(own | {"gallery": own["gallery"] * np.float32(np.nan)} if last else own)),
        "columns": attempt(search_sharded, **(own | {"gallery": own["gallery"][:, :4]} if last else own)),
        "types": attempt(search_sharded, **(own | {"gallery": own["gallery"].astype(np.float64)} if last else own)),
        "option": attempt(search_sharded, **own, k=3 if last else 4),
        "k": attempt(search_sharded, **own, k=402),
        "type": attempt(search_sharded, **(own | {"query": "query.txt"} if last else own)),
        "empty": attempt(search_sharded, **(own | {"gallery": own["gallery"][:0]})),
    }
    original = tempfile.TemporaryFile
    for name in ("query", "gallery"):
        if last:
            tempfile.TemporaryFile = FullDisk  # type: ignore[assignment, misc]
        short = own if name == "query" else own | {"query": own["query"][:0]}
        messages[f"disk {name}"] = attempt(search_sharded, **short)
        tempfile.TemporaryFile = original  # type: ignore[misc]
    for sender in {0, world - 1}:
        for after in (0, 2, 4):
            with failing_sender(after, fails=rank == sender):
                messages[f"sender {sender} {after}"] = attempt(search_sharded, **own)
    if world == 5:
        group = dist.new_group([1, 3])
        if rank not in (1, 3):
            messages["no member"] = attempt(search_sharded, **own, group=group)
    searching = module._strips
    if last:

        def fail(*args: Any, **options: Any) -> Any:
            raise RuntimeError("out of memory")

        module._strips = fail
        messages["device"] = attempt(search_sharded, **own)
        module._strips = searching
    else:
        messages["device"] = attempt(search_sharded, **own)
    part()
    np.savez(Path(folder) / f"{rank}.npz", **found, **{f"error {name}": text for name, text in messages.items()})


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[Any]]:
    """For each number of ranks what each rank found."""
    folders = run_ranks(work, tmp_path_factory)
    return {
        world: [dict(np.load(folder / f"{rank}.npz")) for rank in range(world)] for world, folder in folders.items()
    }


@pytest.mark.slow
@pytest.mark.timeout(3 * TIMEOUT)
def test_any_number_of_ranks_gives_the_same_bits(results: dict[int, list[Any]]) -> None:
    every = [found for world in WORLDS for found in results[world]]
    assert len(every) == 8
    names = [name for name in every[0] if not name.startswith(("error", "strips"))]
    assert len(names) == 12
    for name in names:
        assert all(found[name].tobytes() == every[0][name].tobytes() for found in every), name
        assert all(found[name].shape == every[0][name].shape for found in every), name


@pytest.mark.slow
@pytest.mark.timeout(3 * TIMEOUT)
def test_ranks_find_what_one_process_finds(results: dict[int, list[Any]]) -> None:
    for metric in ("euclidean", "cosine"):
        distances, indices = search(**problem(), k=20, metric=metric)  # type: ignore[call-overload]
        np.testing.assert_array_equal(results[5][1][f"problem {metric} indices"], indices)
        np.testing.assert_allclose(results[5][1][f"problem {metric} distances"], distances, rtol=1e-5, atol=1e-6)
    assert results[5][0]["no query distances"].shape == (0, 10)


@pytest.mark.slow
@pytest.mark.timeout(3 * TIMEOUT)
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nan", "gallery: \\d+ NaN or infinite values"),
        ("columns", r"expected the columns of rank 0|expected 37 columns to match query, got 4"),
        ("types", "expected the types of rank 0"),
        ("option", "expected the options of rank 0"),
        ("k", "k: expected 1 to 401, the rows of gallery on all ranks, got 402"),
        ("type", "query.txt: expected a file that ends in"),
        ("empty", "gallery: expected at least one row on some rank"),
        ("disk query", "query: cannot keep chunks in"),
        ("disk gallery", "gallery: cannot keep chunks in"),
        ("device", "out of memory"),
    ],
)
def test_an_error_of_one_rank_is_one_of_all(name: str, message: str, results: dict[int, list[Any]]) -> None:
    import re

    for world in WORLDS:
        for found in results[world]:
            text = str(found[f"error {name}"])
            if name in ("types", "option") and world == 1:
                assert text == "no error"
            else:
                assert re.search(message, text), (world, text)


@pytest.mark.slow
@pytest.mark.timeout(3 * TIMEOUT)
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_which_queries_share_a_product_does_not_depend_on_the_ranks(metric: str, results: dict[int, list[Any]]) -> None:
    strips = {w: [found[f"strips problem {metric}"].tolist() for found in results[w]] for w in WORLDS}
    same_strips(strips, most=16)


@pytest.mark.slow
@pytest.mark.timeout(3 * TIMEOUT)
@pytest.mark.parametrize("after", [0, 2, 4])
def test_a_rank_that_cannot_send_lets_none_wait(after: int, results: dict[int, list[Any]]) -> None:
    for world in WORLDS:
        for sender in {0, world - 1}:
            messages = [str(found[f"error sender {sender} {after}"]) for found in results[world]]
            error = "MemoryError: no room for a chunk"
            others = f"ValueError: rank {sender}: {error}"
            assert messages == [error if rank == sender else others for rank in range(world)]


@pytest.mark.slow
@pytest.mark.timeout(3 * TIMEOUT)
def test_a_rank_outside_the_group(results: dict[int, list[Any]]) -> None:
    for rank in (0, 2, 4):
        message = f"ValueError: group: expected a group with this rank in it, but rank {rank} is no member"
        assert str(results[5][rank]["error no member"]) == message


def test_without_ranks() -> None:
    with pytest.raises(RuntimeError, match=r"call torch\.distributed\.init_process_group first, or use search"):
        search_sharded(**problem())
