"""Blocks of features on the device that computes, one after the other. Internal.

Features in the host's memory, or in a mapped file, go to a CUDA device through two pinned buffers: a thread fills one
while the other is on its way and the device works on the block before.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor


def feature_blocks(
    features: Tensor, *, device: torch.device, dtype: torch.dtype, rows_per_block: int
) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of rows in their order, dense, in ``dtype`` on ``device``.

    Args:
        features: (N, D) anywhere.
        device: where the blocks are wanted.
        dtype: of the blocks.
        rows_per_block: at least 1.

    Yields:
        ``(rows, block)``; a block is valid until the next step. Where nothing has to be done it is a view.
    """
    slices = [
        slice(begin, min(begin + rows_per_block, len(features))) for begin in range(0, len(features), rows_per_block)
    ]
    if device.type == "cuda" and features.device.type == "cpu":
        yield from _streamed(features, slices, device, dtype)
        return
    for rows in slices:
        yield rows, features[rows].to(device=device, dtype=dtype).contiguous()


def _streamed(
    features: Tensor, slices: list[slice], device: torch.device, dtype: torch.dtype
) -> Iterator[tuple[slice, Tensor]]:
    if not slices:
        return
    shape = (slices[0].stop - slices[0].start, features.shape[1])
    pinned = [torch.empty(shape, dtype=features.dtype, pin_memory=True) for _ in range(2)]
    arrived = [torch.empty(shape, dtype=features.dtype, device=device) for _ in range(2)]
    copied = [torch.cuda.Event() for _ in range(2)]  # a buffer's last copy to the device is done
    used = [torch.cuda.Event() for _ in range(2)]  # what the caller launched on a block is done
    stream, caller = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    for event in used:
        event.record(caller)  # the buffers' memory may still be in use by what it belonged to before

    def send(turn: int) -> None:
        slot, rows = turn % 2, slices[turn]
        length = rows.stop - rows.start
        copied[slot].synchronize()
        pinned[slot][:length].copy_(features[rows])
        with torch.cuda.stream(stream):
            stream.wait_event(used[slot])
            arrived[slot][:length].copy_(pinned[slot][:length], non_blocking=True)
            copied[slot].record(stream)

    try:
        with ThreadPoolExecutor(1, thread_name_prefix="pyreid-features") as pool:
            sending = pool.submit(send, 0)
            for turn, rows in enumerate(slices):
                sending.result()
                if turn + 1 < len(slices):
                    sending = pool.submit(send, turn + 1)
                caller.wait_event(copied[turn % 2])
                yield rows, arrived[turn % 2][: rows.stop - rows.start].to(dtype)
                used[turn % 2].record(caller)
    finally:
        caller.wait_stream(stream)  # the buffers go back to the caller's stream
