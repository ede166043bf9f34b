"""Starting the processes of a run on this machine, and watching them: one that fails ends all."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pyreid.errors import PyreidError, TrainingError

if TYPE_CHECKING:
    from pyreid.training.engine import TrainingResult
    from pyreid.training.recipe import Recipe

_POLL = 0.05  # seconds between two looks at the processes
_GRACE = 5.0  # seconds until the others of a process that failed are ended, and then are killed


def launch(recipe: Recipe, count: int, options: dict[str, Any]) -> TrainingResult:
    """:func:`pyreid.training.train` in ``count`` new processes of this machine.

    They meet in a temporary folder, and need no port of their own. Rank 0 writes to this process's output. They end
    when this process ends.

    Args:
        recipe: of the run.
        count: processes.
        options: the other arguments of ``train``.

    Raises:
        TrainingError: a process died without a word.
        Exception: what a process raised; an error of this package before those that only follow from it.
    """
    with tempfile.TemporaryDirectory(prefix="pyreid-") as name:
        folder = Path(name)
        (folder / "job").write_bytes(pickle.dumps((recipe, options)))
        defaults = {
            "OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // count)),
            "TORCH_CPP_LOG_LEVEL": "ERROR",  # each rank would warn that no parameter is without a gradient
        }
        processes = []
        try:
            for rank in range(count):
                own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
                processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "pyreid.training.launch", name],
                        env=defaults | os.environ | {key: str(value) for key, value in own.items()},
                        stdin=subprocess.PIPE,  # never written to: its end tells the process that this one is gone
                    )
                )
            _watch(processes)
        finally:
            _end(processes)
        codes = [process.returncode for process in processes]
        if any(codes):
            raise _worst(folder) or TrainingError(
                f"of {count} processes, rank {next(i for i, code in enumerate(codes) if code)} died "
                f"(exit codes {', '.join(map(str, codes))})"
            )
        result: TrainingResult = pickle.loads((folder / "result").read_bytes())
        return result


def _watch(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Until all have ended, or one has failed and the others had a while to end by themselves."""
    failed_at = None
    while any(process.poll() is None for process in processes):
        if failed_at is None and any(process.returncode for process in processes):
            failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() - failed_at > _GRACE:
            return
        time.sleep(_POLL)


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for stop in (subprocess.Popen.terminate, subprocess.Popen.kill):
        end: Callable[[subprocess.Popen[bytes]], None] = stop
        for process in processes:
            if process.poll() is None:
                end(process)
        deadline = time.monotonic() + _GRACE
        while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
            time.sleep(_POLL)
    for process in processes:
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def _worst(folder: Path) -> Exception | None:
    """The error that the others follow from: one of this package, or else the earliest."""
    files = sorted(folder.glob("error-*"), key=lambda path: path.stat().st_mtime_ns)
    errors: list[Exception] = [pickle.loads(path.read_bytes()) for path in files]
    return next((error for error in errors if isinstance(error, PyreidError)), errors[0] if errors else None)


def _write(path: Path, value: object) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(pickle.dumps(value))
    temporary.replace(path)


def _end_with_parent() -> None:
    # Not sys.stdin.read(), which holds a lock that an interpreter which ends for another reason would crash on.
    while os.read(0, 1 << 16):
        pass
    os._exit(1)


def main(folder: Path) -> int:
    """One of the processes that :func:`launch` starts."""
    import torch.distributed as dist

    from pyreid.data import DatasetWarning
    from pyreid.training.devices import device_of_rank
    from pyreid.training.engine import train
    from pyreid.training.processes import current_ranks

    threading.Thread(target=_end_with_parent, daemon=True).start()
    warnings.simplefilter("ignore", DatasetWarning)  # the process that starts this one has looked at the data set
    recipe, options = pickle.loads((folder / "job").read_bytes())
    ranks = current_ranks()
    try:
        device = device_of_rank(recipe, ranks)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method=f"file://{folder}/meet",
            rank=ranks.rank,
            world_size=ranks.world,
        )
        result = train(recipe, **options)
        if ranks.rank == 0:
            _write(folder / "result", result)
        dist.barrier()
        dist.destroy_process_group()
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # as in pyreid.training.processes.agree
            error = RuntimeError(f"{type(error).__name__}: {error}")
        _write(folder / f"error-{ranks.rank}", error)
        return 1
    return 0


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # not through the clean-up of a group whose other members may be gone
