"""Evaluation by several ranks: processes of their own that talk by gloo on the CPU."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from pyreid.evaluation import evaluate, evaluate_sharded, evaluator, sharded
from pyreid.ops import shards
from python_tests.evaluation.test_evaluate import integer_problem
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

Arrays = dict[str, Any]


def integers() -> Arrays:
    """Ties within and across shards; every product is exact, so that evaluate gives the same bits."""
    names = ("query", "gallery", "query_ids", "gallery_ids", "query_cams", "gallery_cams")
    return dict(zip(names, integer_problem(90, 300, num_ids=20, num_cams=3, dim=5), strict=True))


def reals(dtype: torch.dtype = torch.float32, *, cameras: bool = True) -> Arrays:
    """Every tenth gallery row repeats another, mostly of another shard."""
    rng = np.random.default_rng(0)
    gallery = rng.standard_normal((401, 37))
    gallery[::10] = gallery[rng.integers(0, 401, 41)]
    arrays: Arrays = {
        "query": torch.from_numpy(rng.standard_normal((77, 37))).to(dtype),
        "gallery": torch.from_numpy(gallery).to(dtype),
        "query_ids": rng.integers(0, 9, 77),
        "gallery_ids": rng.integers(-1, 9, 401),
    }
    if cameras:
        arrays |= {"query_cams": rng.integers(0, 3, 77), "gallery_cams": rng.integers(0, 3, 401)}
    return arrays


def rounding() -> Arrays:
    """Gallery rows so alike that only the rounding of the inner products ranks them."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((1, 301)) + 1e-7 * rng.standard_normal((401, 301))
    return reals() | {"query": rng.standard_normal((77, 301)).astype("f4"), "gallery": rows.astype("f4")}


GOOD: dict[str, tuple[Callable[[], Arrays], dict[str, Any]]] = {
    "integers": (integers, {}),
    "integers, trapezoid": (integers, {"ap": "trapezoid", "no_match": "zero", "max_rank": 7}),
    "float32": (reals, {}),
    "rounding": (rounding, {}),
    "cosine": (reals, {"metric": "cosine"}),
    "float16": (lambda: reals(torch.float16), {}),
    "bfloat16": (lambda: reals(torch.bfloat16), {}),
    "float64, no cameras": (lambda: reals(torch.float64, cameras=False), {}),
}
SCREENED = ("integers", "float32", "rounding", "cosine", "float16")  # as on CUDA, with its code of the CPU


def break_columns(arrays: Arrays) -> None:
    arrays["gallery"] = arrays["gallery"][:, :4]


def break_dtype(arrays: Arrays) -> None:
    arrays["gallery"] = arrays["gallery"].astype(np.float64)


def break_nan(arrays: Arrays) -> None:
    arrays["gallery"] = arrays["gallery"] * np.float32(np.nan)


def break_cameras(arrays: Arrays) -> None:
    del arrays["query_cams"], arrays["gallery_cams"]


def break_one_camera(arrays: Arrays) -> None:
    del arrays["gallery_cams"]


def break_length(arrays: Arrays) -> None:
    arrays["gallery_ids"] = arrays["gallery_ids"][1:]


def break_type(arrays: Arrays) -> None:
    arrays["query"] = "query.txt"


def break_option(arrays: Arrays) -> None:
    arrays["metric"] = "cosine"


def break_precision(arrays: Arrays) -> None:
    arrays["precision"] = "fp32"


def break_bad_option(arrays: Arrays) -> None:
    arrays["ap"] = "area"


BAD: dict[str, tuple[Callable[[Arrays], None], str, str]] = {  # what the last rank raises, and what the others do
    "columns": (break_columns, "expected the columns of rank 0, (5, 5), but this one has (5, 4)", ""),
    "dtype": (break_dtype, "expected the types of rank 0", ""),
    "nan": (break_nan, "NaN or infinite values, the first is nan at row 0", "rank {last}: ValueError: gallery: "),
    "cameras": (break_cameras, "expected the cameras of rank 0, True, but this one has False", ""),
    "one camera": (break_one_camera, "gallery_cams: expected cameras", "rank {last}: ValueError: gallery_cams: "),
    "length": (break_length, "gallery_ids: expected shape", "rank {last}: ValueError: gallery_ids: "),
    "type": (break_type, "query.txt: expected a file that ends in", "rank {last}: ValueError: query: query.txt: "),
    "option": (break_option, "expected the options of rank 0", ""),
    "precision": (break_precision, "expected the options of rank 0", ""),
    "bad option": (break_bad_option, "ap: expected one of", "rank {last}: ValueError: ap: "),
}


def work(rank: int, world: int, folder: str) -> None:
    """What one rank does: all cases one after the other, into a file."""
    shards._QUERIES_AT_A_TIME = 16
    shards._CHUNK_BYTES = 1000
    meet(rank, world, folder)
    found: dict[str, Any] = {}
    for name, (make, options) in GOOD.items():
        with spy_on_strips(evaluator) as strips:
            found[name] = evaluate_sharded(**share(make(), rank, world), **options).to_dict()
        found[f"strips {name}"] = strips
    decide, sharded.is_screened = sharded.is_screened, lambda *arguments: True
    for name in SCREENED:
        make, options = GOOD[name]
        found[f"screened {name}"] = evaluate_sharded(**share(make(), rank, world), **options).to_dict()
    sharded.is_screened = decide
    last_rank = world - 1
    last = rank == last_rank
    for name, (break_it, _, _) in BAD.items():
        arrays = share(integers(), rank, world)
        if last:
            break_it(arrays)
        found[name] = attempt(evaluate_sharded, **arrays)
    empty = share(integers(), rank, world)
    empty["gallery"], empty["gallery_ids"], empty["gallery_cams"] = (
        empty[key][:0] for key in ("gallery", "gallery_ids", "gallery_cams")
    )
    found["empty"] = attempt(evaluate_sharded, **empty)
    narrow = share(integers(), rank, world)
    narrow["query"] = narrow["query"][:, :3]
    found["narrow"] = attempt(evaluate_sharded, **narrow)

    for sender in {0, last_rank}:
        for after in (0, 1, 2):  # identities are sent first, then cameras, then features
            with failing_sender(after, fails=rank == sender):
                found[f"sender {sender} {after}"] = attempt(evaluate_sharded, **share(integers(), rank, world))
    original, ranking = tempfile.TemporaryFile, sharded.rank_features
    if last:
        tempfile.TemporaryFile = FullDisk  # type: ignore[assignment, misc]
    found["disk"] = attempt(evaluate_sharded, **share(integers(), rank, world))
    tempfile.TemporaryFile = original  # type: ignore[misc]
    if last:  # a device that fails in the middle

        def fail(*args: Any, **options: Any) -> Any:
            raise RuntimeError("out of memory")

        sharded.rank_features = fail  # type: ignore[assignment]
    found["device"] = attempt(evaluate_sharded, **share(integers(), rank, world))
    sharded.rank_features = ranking
    find_matches = sharded.find_matches
    if last:
        sharded.find_matches = fail  # type: ignore[assignment]
    found["memory"] = attempt(evaluate_sharded, **share(integers(), rank, world))
    sharded.find_matches = find_matches

    if world == 5:  # a group of some ranks, numbered anew
        group = dist.new_group([1, 3])
        if rank in (1, 3):
            own = share(integers(), (1, 3).index(rank), 2)
            found["group"] = evaluate_sharded(**own, group=group).to_dict()
        else:
            found["no member"] = attempt(evaluate_sharded, **share(integers(), rank, world), group=group)
    part()
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    """For each number of ranks what each rank found."""
    folders = run_ranks(work, tmp_path_factory)
    return {
        world: [json.loads((folder / f"{rank}.json").read_text()) for rank in range(world)]
        for world, folder in folders.items()
    }


pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * TIMEOUT)]


@pytest.mark.parametrize("name", GOOD)
def test_any_number_of_ranks_gives_the_same_bits(name: str, results: dict[int, list[dict[str, Any]]]) -> None:
    all_of_them = [found[name] for world in WORLDS for found in results[world]]
    assert len(all_of_them) == 8
    assert all(found == all_of_them[0] for found in all_of_them)


@pytest.mark.parametrize("name", sorted(set(GOOD) - {"rounding"}))
def test_they_are_those_of_one_process(name: str, results: dict[int, list[dict[str, Any]]]) -> None:
    make, options = GOOD[name]
    arrays = make()
    expected = evaluate(**arrays, **options).to_dict()
    found = results[2][0][name]
    assert found["first_match_rank"] == expected["first_match_rank"]
    assert found["average_precision"] == expected["average_precision"]
    assert found["settings"] == expected["settings"]
    assert found == expected


@pytest.mark.parametrize("name", SCREENED)
def test_screened_products_give_the_ranks_of_float64(name: str, results: dict[int, list[dict[str, Any]]]) -> None:
    make, options = GOOD[name]
    arrays = make()
    wide = {side: torch.as_tensor(arrays[side]).double() for side in ("query", "gallery")}
    expected = evaluate(**arrays | wide, **options).to_dict()
    settings = expected["settings"] | {"dtype": "float32", "precision": "exact"}
    for world in WORLDS:
        for found in results[world]:
            assert found[f"screened {name}"] == expected | {"settings": settings}


def test_a_group_of_some_ranks(results: dict[int, list[dict[str, Any]]]) -> None:
    expected = evaluate(**integers()).to_dict()
    assert [results[5][rank]["group"] == expected for rank in (1, 3)] == [True, True]
    for rank in (0, 2, 4):
        message = f"ValueError: group: expected a group with this rank in it, but rank {rank} is no member"
        assert results[5][rank]["no member"] == message


@pytest.mark.parametrize("name", GOOD)
def test_which_queries_share_a_product_does_not_depend_on_the_ranks(
    name: str, results: dict[int, list[dict[str, Any]]]
) -> None:
    # The bits alone would not tell: on many machines products of eight rows or more do not depend on their number.
    same_strips({world: [found[f"strips {name}"] for found in results[world]] for world in WORLDS}, most=16)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_rank_that_cannot_send_lets_none_wait(
    after: int, world: int, results: dict[int, list[dict[str, Any]]]
) -> None:
    for sender in {0, world - 1}:
        messages = [found[f"sender {sender} {after}"] for found in results[world]]
        error = "MemoryError: no room for a chunk"
        others = f"ValueError: rank {sender}: {error}"
        assert messages == [error if rank == sender else others for rank in range(world)]


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", BAD)
def test_an_error_of_one_rank_is_one_of_all(name: str, world: int, results: dict[int, list[dict[str, Any]]]) -> None:
    _, last, others = BAD[name]
    messages = [found[name] for found in results[world]]
    disagreement = not others
    if world == 1 and disagreement:
        assert name == "columns" or messages == ["no error"]
        return
    assert last in messages[-1]
    for message in messages[:-1]:
        assert message.startswith("ValueError: ")
        assert last in message
        assert others.format(last=world - 1) in message
    if disagreement:
        assert set(messages) == {messages[0]}
        assert messages[0].startswith(f"ValueError: rank {world - 1}: ")


@pytest.mark.parametrize("world", WORLDS)
def test_errors_of_the_whole_and_in_the_middle(world: int, results: dict[int, list[dict[str, Any]]]) -> None:
    for name, everywhere in (
        ("empty", "ValueError: gallery: expected at least one row on some rank"),
        ("narrow", "ValueError: gallery: expected 3 columns to match query, got 5"),
    ):
        assert [found[name] for found in results[world]] == [everywhere] * world
    for name, error in (
        ("disk", "OSError: [Errno 28] query: cannot keep chunks in"),
        ("device", "RuntimeError: out of memory"),
        ("memory", "RuntimeError: out of memory"),
    ):
        messages = [found[name] for found in results[world]]
        assert messages[-1].startswith(error)
        assert all(message.startswith(f"ValueError: rank {world - 1}: {error}") for message in messages[:-1])


def test_without_ranks() -> None:
    with pytest.raises(RuntimeError, match=r"call torch\.distributed\.init_process_group first, or use evaluate"):
        evaluate_sharded(**integers())
