"""Features spread over the ranks of torch.distributed: agreeing about them, and sending them around. Internal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

_CHUNK_BYTES = 16 * 2**20
_QUERIES_AT_A_TIME = 512  # which of them share a matrix product must not depend on the number of ranks

T = TypeVar("T")


def require_ranks(function: str, alternative: str, group: dist.ProcessGroup | None) -> None:
    """Raise unless torch.distributed is initialised and this rank is one of ``group``.

    Raises:
        RuntimeError: if it is not initialised.
        ValueError: if the group has other ranks only.
    """
    if not dist.is_available() or not dist.is_initialized():
        raise RuntimeError(f"{function}: call torch.distributed.init_process_group first, or use {alternative}")
    if dist.get_rank(group) < 0:
        raise ValueError(f"group: expected a group with this rank in it, but rank {dist.get_rank()} is no member")


def gather_facts(
    facts: dict[str, Any], error: Exception | None, group: dist.ProcessGroup | None
) -> list[dict[str, Any]]:
    """The facts of every rank. All ranks come here, also those with an error, and all leave in the same way.

    Raises:
        ValueError: if another rank has an error; where it happened it is raised itself.
    """
    message = None if error is None else f"{type(error).__name__}: {error}"
    gathered: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(gathered, (message, facts), group=group)
    if error is not None:
        raise error
    for rank, (problem, _) in enumerate(gathered):
        if problem is not None:
            raise ValueError(f"rank {rank}: {problem}")
    return [share for _, share in gathered]


def message_buffer(group: dist.ProcessGroup | None, *shares: Tensor) -> Tensor:
    """(B,) bytes for :func:`exchange`, with room for a row of each share.

    It is made before the ranks agree to send: whatever lacks memory later, the messages have theirs.
    """
    rows = [share.shape[1] * share.element_size() for share in shares]
    return torch.zeros(max(_CHUNK_BYTES, *rows), dtype=torch.uint8, device=wire(group))


def exchange(
    share: Tensor,
    rows: Sequence[int],
    group: dist.ProcessGroup | None,
    buffer: Tensor,
    take: Callable[[Iterator[Tensor]], T],
) -> T:
    """What ``take`` makes of the rows of every rank in turn, which come in chunks; the same chunks on every rank.

    A rank that cannot make its chunk, or keep those of others, still sends and receives until the end, so that no rank
    waits for it. Its error is raised then, and the ranks have to agree about that (:func:`gather_facts`); what the
    others have received from it is worth nothing.

    Args:
        share: (N, D) rows of this rank, of the same D and type on all ranks.
        rows: how many each rank has.
        group: the ranks.
        buffer: from :func:`message_buffer`.
        take: called with an iterator of (n, D) chunks on the CPU, each valid until the next.
    """
    pieces = _chunks(share, rows, group, buffer)
    try:
        return take(pieces)
    except Exception:
        for _ in pieces:
            pass
        raise


def gather_rows(share: Tensor, rows: Sequence[int], group: dist.ProcessGroup | None, buffer: Tensor) -> Tensor:
    """(sum of ``rows``, D) rows of all ranks on the CPU, see :func:`exchange`."""

    def take(pieces: Iterator[Tensor]) -> Tensor:
        whole = torch.empty(sum(rows), share.shape[1], dtype=share.dtype)
        end = 0
        for chunk in pieces:
            whole[end : end + len(chunk)] = chunk
            end += len(chunk)
        return whole

    return exchange(share, rows, group, buffer, take)


def _chunks(share: Tensor, rows: Sequence[int], group: dist.ProcessGroup | None, buffer: Tensor) -> Iterator[Tensor]:
    columns = share.shape[1]
    row_bytes = columns * share.element_size()
    step = max(1, _CHUNK_BYTES // row_bytes)
    error: Exception | None = None
    for sender, count in enumerate(rows):
        source = sender if group is None else dist.get_global_rank(group, sender)
        for start in range(0, count, step):
            height = min(step, count - start)
            message = buffer[: height * row_bytes]  # bytes: not all backends know all types
            chunk = message.view(share.dtype).view(height, columns)
            if dist.get_rank(group) == sender and error is None:
                try:
                    copy_rows(chunk, share[start : start + height])
                except Exception as problem:
                    error = problem
            dist.broadcast(message, source, group=group)
            if error is None:
                try:
                    received = chunk.cpu()
                except Exception as problem:
                    error = problem
                else:
                    yield received
    if error is not None:
        raise error


def copy_rows(chunk: Tensor, rows: Tensor) -> None:
    """Put rows of this rank into a message."""
    chunk.copy_(rows)


def own_blocks(num_query: int, group: dist.ProcessGroup | None) -> list[slice]:
    """Every n-th block of the queries, for this of n ranks. Where a block begins does not depend on n."""
    first, step = dist.get_rank(group) * _QUERIES_AT_A_TIME, dist.get_world_size(group) * _QUERIES_AT_A_TIME
    return [slice(start, min(start + _QUERIES_AT_A_TIME, num_query)) for start in range(first, num_query, step)]


def wire(group: dist.ProcessGroup | None) -> torch.device:
    """The device that the group's messages are on."""
    if "nccl" in str(dist.get_backend(group)):
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
