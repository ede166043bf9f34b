"""Features spread over the ranks of torch.distributed: agreeing about them, and sending them around. Internal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_CHUNK_BYTES = 16 * 2**20


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


def chunks(share: Tensor, rows: Sequence[int], group: dist.ProcessGroup | None) -> Iterator[Tensor]:
    """The rows of every rank in turn, on every rank; ``rows`` says how many each has."""
    columns, device = share.shape[1], wire(group)
    step = max(1, _CHUNK_BYTES // (columns * share.element_size()))
    for sender, count in enumerate(rows):
        source = sender if group is None else dist.get_global_rank(group, sender)
        for start in range(0, count, step):
            if dist.get_rank(group) == sender:
                chunk = share[start : start + step].to(device, copy=True).contiguous()
            else:
                chunk = torch.empty(min(step, count - start), columns, dtype=share.dtype, device=device)
            dist.broadcast(chunk.view(torch.uint8), source, group=group)  # bytes: not all backends know all types
            yield chunk.cpu()


def wire(group: dist.ProcessGroup | None) -> torch.device:
    """The device that the group's messages are on."""
    if "nccl" in str(dist.get_backend(group)):
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
