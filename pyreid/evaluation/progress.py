"""Progress with the time left on standard error, if one asks for it: a bar in a terminal, else a line now and then."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

_SECONDS_BETWEEN_LINES = 30.0


@contextlib.contextmanager
def progress_bar(title: str, total: int, *, show: bool) -> Iterator[Callable[[int], None]]:
    """Gives a function to call with the number of steps done since the last call."""
    if not show:
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:  # a bar would fill the log of a batch job, and nothing would tell nobody how far it is
        yield _lines(title, total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda count: bar.advance(task, count)


def _lines(title: str, total: int) -> Callable[[int], None]:
    start = shown = time.monotonic()
    done = 0

    def advance(count: int) -> None:
        nonlocal shown, done
        done += count
        now = time.monotonic()
        if now - shown < _SECONDS_BETWEEN_LINES or done == 0:
            return
        shown = now
        left = timedelta(seconds=round((now - start) / done * (total - done)))
        print(f"{title}: {done} of {total}, {left} left", file=sys.stderr, flush=True)

    return advance
