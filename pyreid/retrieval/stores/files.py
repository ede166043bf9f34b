"""Files that are on the disk when a call returns, and the lock of the one who writes. Internal."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from pyreid.errors import GalleryError


def lock(folder: Path) -> BinaryIO:
    """The open lock file of a folder: let go when it is closed, or with the process.

    Raises:
        GalleryError: if another has it.
        OSError: if the file system has no locks.
    """
    file = (folder / "lock").open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise GalleryError(f"{folder}: another process or object writes to this gallery; open it read-only") from error
    except BaseException:
        file.close()
        raise
    return file


def write(path: Path, parts: Iterable[bytes], mode: str) -> None:
    """Write and sync."""
    with path.open(mode) as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def cut(path: Path, size: int) -> None:
    """Cut off what is behind ``size`` bytes."""
    if path.stat().st_size != size:
        os.truncate(path, size)


def sync_folder(path: Path) -> None:
    """Sync the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
