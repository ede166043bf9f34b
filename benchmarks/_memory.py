"""Memory that a call needs beyond its inputs and its result, sampled in a fresh process on Linux."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

# Anonymous memory: the pages of mapped files are the system's.
_PROGRAM = """
import re, sys, threading
from pathlib import Path
import torch
def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
torch.set_num_threads({threads})
{setup}
samples, done = [anonymous()], threading.Event()
def watch():
    while not done.wait(0.005):
        samples.append(anonymous())
watcher = threading.Thread(target=watch)
watcher.start()
result = {call}
done.set()
watcher.join()
print(max(samples) - samples[0])
"""


def peak_anonymous_mb(setup: str, call: str, *arguments: object) -> float | None:
    """MiB that ``call`` takes at its peak, its result among them; None elsewhere than on Linux.

    Args:
        setup: lines of Python that import, make the inputs from ``sys.argv`` and warm up.
        call: an expression.
        arguments: of the program.
    """
    if sys.platform != "linux":
        return None
    program = _PROGRAM.format(threads=torch.get_num_threads(), setup=setup, call=call)
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    return max(0.0, float(done.stdout.splitlines()[-1]))
