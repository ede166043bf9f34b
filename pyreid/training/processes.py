"""The processes of one training run, the ranks of torch.distributed: who this one is, and what they agree on."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pyreid.ops.shards import wire


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """This process among those of a run.

    Attributes:
        rank: its number, from 0.
        world: how many there are.
        local_rank: its number on this machine.
        local_world: how many there are on this machine.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1

    @property
    def num_nodes(self) -> int:
        """Machines that take part, with as many processes each."""
        return self.world // self.local_world


def _initialized() -> bool:
    return dist.is_available() and dist.is_initialized()


def several() -> bool:
    """Whether this process has joined others."""
    return _initialized() and dist.get_world_size() > 1


def current_ranks() -> Ranks:
    """Those of torch.distributed where it is initialised, else what ``torchrun`` has set; one process by itself."""
    if _initialized():
        rank, world = dist.get_rank(), dist.get_world_size()
    elif "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    else:
        return Ranks()
    local_rank = int(os.environ.get("LOCAL_RANK", rank))
    return Ranks(
        rank=rank, world=world, local_rank=local_rank, local_world=int(os.environ.get("LOCAL_WORLD_SIZE", world))
    )


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Initialises torch.distributed for a process that ``torchrun`` has started; otherwise changes nothing.

    Args:
        device: of this process; NCCL connects GPUs, gloo CPUs.
    """
    ranks = current_ranks()
    if ranks.world == 1 or _initialized():
        yield ranks
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    done = False
    try:
        yield ranks
        done = True
    finally:
        # After an error of this rank alone, others may wait for it: gloo lets go of them, but NCCL would wait, too.
        if done or device.type == "cpu":
            dist.destroy_process_group()


def agree(error: Exception | None = None) -> None:
    """All ranks come here, with an error or without; all raise the error of the lowest rank that has one."""
    if not several():
        if error is not None:
            raise error
        return
    if error is not None:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # an exception whose constructor takes something else than its arguments
            error = RuntimeError(f"{type(error).__name__}: {error}")
    for problem in gather(error):
        if problem is not None:
            raise problem


def gather(value: Any) -> list[Any]:
    """The value of every rank, on every rank."""
    if not several():
        return [value]
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def from_first(value: Any) -> Any:
    """The value of rank 0, on every rank."""
    if not several():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def mean_over_ranks(values: Tensor) -> Tensor:
    """The mean of a floating-point tensor over the ranks; where one is not finite, the mean is not finite either."""
    if not several():
        return values
    sent = values.detach().to(wire(None), torch.float64)
    dist.all_reduce(sent)
    return (sent / dist.get_world_size()).to(values.device)


@torch.no_grad()
def copy_buffers(module: nn.Module) -> None:
    """Give every rank the buffers of rank 0, such as the statistics of batch norm."""
    if not several():
        return
    for buffer in module.buffers():
        sent = buffer.to(wire(None)).contiguous()
        dist.broadcast(sent, src=0)
        buffer.copy_(sent)


@torch.no_grad()
def average_batch_norm(module: nn.Module) -> None:
    """Give every rank the mean over the ranks of all floating-point statistics of batch norm."""
    if not several():
        return
    for item in module.modules():
        if isinstance(item, nn.modules.batchnorm._BatchNorm):
            for buffer in item.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(mean_over_ranks(buffer))
