"""Several ranks of torch.distributed for tests: processes of their own that talk by gloo on the CPU."""

from __future__ import annotations

import contextlib
import datetime
import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.distributed as dist

from pyreid.ops import shards

WORLDS = (1, 2, 5)
TIMEOUT = 200  # seconds until a rank that waits counts as hanging

# Where the shares of queries and of the gallery end: uneven, and with five ranks some are empty.
_QUERY_CUTS = {1: [0, 1], 2: [0, 0.2, 1], 5: [0, 0.4, 0.4, 0.45, 1, 1]}
_GALLERY_CUTS = {1: [0, 1], 2: [0, 0.2, 1], 5: [0, 0, 0.3, 0.7, 0.71, 1]}


def run_ranks(
    work: Callable[[int, int, str], None], folders: pytest.TempPathFactory, worlds: tuple[int, ...] = WORLDS
) -> dict[int, Path]:
    """For each number of ranks the folder in which ``work(rank, world, folder)`` has been called by all of them."""
    context = multiprocessing.get_context("spawn")
    found, running = {}, {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        for world in worlds:
            found[world] = folders.mktemp(f"ranks{world}")
            running[world] = [
                context.Process(target=work, args=(rank, world, str(found[world])), daemon=True)
                for rank in range(world)
            ]
            for process in running[world]:
                process.start()
    for world, processes in running.items():
        for process in processes:
            process.join(TIMEOUT)
        assert [process.exitcode for process in processes] == [0] * world
    return found


def meet(rank: int, world: int, folder: str) -> None:
    """Join the ranks of a folder; products in one thread, as the bits are compared."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=world,
        timeout=datetime.timedelta(seconds=TIMEOUT),
    )


def part() -> None:
    """Leave, when all are done."""
    dist.barrier()
    dist.destroy_process_group()


def share(arrays: dict[str, Any], rank: int, world: int) -> dict[str, Any]:
    """The rows of a rank, of the arrays whose name speaks of queries and of the others."""
    own = {}
    for name, array in arrays.items():
        cuts = (_QUERY_CUTS if "query" in name else _GALLERY_CUTS)[world]
        begin, end = (int(cut * len(array)) for cut in cuts[rank : rank + 2])
        own[name] = array[begin:end]
    return own


def attempt(function: Callable[..., Any], **arguments: Any) -> str:
    """The error of a call, with its type, or that there was none."""
    try:
        function(**arguments)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


@contextlib.contextmanager
def failing_sender(after: int, *, fails: bool) -> Iterator[None]:
    """If this rank is the one that fails, it can make ``after`` chunks of its own to send, and no more."""
    made, copy = 0, shards.copy_rows

    def copy_rows(chunk: torch.Tensor, rows: torch.Tensor) -> None:
        nonlocal made
        made += 1
        if fails and made > after:
            raise MemoryError("no room for a chunk")
        copy(chunk, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "copy_rows", copy_rows)
        yield


@contextlib.contextmanager
def spy_on_strips(module: ModuleType) -> Iterator[list[list[int]]]:
    """The strips of queries, [start, stop], that a module multiplies."""
    strips: list[list[int]] = []
    original = module.inner_product_tiles

    def tiles(*arguments: Any, **options: Any) -> Iterator[Any]:
        for tile in original(*arguments, **options):
            strip = [tile[0].start, tile[0].stop]
            if strips[-1:] != [strip]:
                strips.append(strip)
            yield tile

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "inner_product_tiles", tiles)
        yield strips


def same_strips(strips: dict[int, list[list[list[int]]]], *, most: int) -> None:
    """Check that the strips of all ranks together are the same for each number of ranks, and hold each query once."""
    together = {world: sorted(strip for own in of_ranks for strip in own) for world, of_ranks in strips.items()}
    expected = together[1]
    assert [stop for _, stop in expected[:-1]] == [start for start, _ in expected[1:]]
    assert expected[0][0] == 0
    assert max(stop - start for start, stop in expected) == most
    assert all(found == expected for found in together.values())
    assert all(own for own in strips[2])


class FullDisk:
    """A temporary file that has room for one chunk."""

    def __init__(self, **options: Any) -> None:
        self.writes = 0

    def __enter__(self) -> FullDisk:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def flush(self) -> None:
        pass

    def write(self, data: Any) -> None:
        self.writes += 1
        if self.writes > 1:
            raise OSError(28, "No space left on device")
