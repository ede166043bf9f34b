"""A margin that grows with the steps of the optimiser."""

from __future__ import annotations

import torch
from torch import Tensor

from pyreid.losses._checks import check_count, check_number
from pyreid.losses.stepped import SteppedModule


class GrowingMargin(SteppedModule):
    """``min(end, start + t / steps * (end - start))`` after t optimiser steps.

    t is a buffer that :meth:`after_step` counts up, so that it travels with the ``state_dict`` and a run that resumes
    goes on with the margin that it had.

    Args:
        start: the margin at t = 0.
        end: the margin from t = ``steps`` on; None keeps it at ``start``.
        steps: optimiser steps from one to the other.
    """

    step: Tensor

    def __init__(self, start: float, *, end: float | None, steps: int) -> None:
        super().__init__()
        check_number("margin", start)
        if end is not None:
            check_number("final_margin", end, low=start)
        check_count("margin_steps", steps)
        self.start = start
        self.end = end
        self.steps = steps
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def after_step(self) -> None:
        self.step += 1

    def forward(self, dtype: torch.dtype = torch.float32) -> Tensor | float:
        """The margin now: a scalar of this ``dtype`` on the device of the buffer, or a number if it does not grow."""
        if self.end is None:
            return self.start
        return self.start + (self.end - self.start) * (self.step.to(dtype) / self.steps).clamp(max=1)

    def extra_repr(self) -> str:
        return f"{self.start}, end={self.end}, steps={self.steps}"
