"""What an extraction remembers: the settings that decide about its bits, and how far it has come. Internal.

A journal is a line of JSON with the settings, then lines ``[images done, columns]`` or ``[images done, columns,
[[position, what is wrong], ...]]`` with the images left out since the line before.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from torch import nn

from pyreid.errors import DatasetError, PyreidError
from pyreid.inference.embedding import device_of
from pyreid.inference.extractor import FeatureExtractor

KEY = "features"  # of the tensor in a .safetensors file


@dataclass
class Progress:
    """How far an extraction has come: ``done`` images, of which ``skipped`` have no row, by position."""

    done: int = 0
    columns: int | None = None
    skipped: dict[int, str] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return self.done - len(self.skipped)


def leftovers(output: Path) -> tuple[Path, Path]:
    """The rows and the journal of an output that is not complete."""
    return output.with_name(f".{output.name}.part"), output.with_name(f".{output.name}.journal")


def lock(journal: IO[bytes], output: Path) -> None:
    """Take the journal's lock, or raise ``PyreidError``."""
    try:
        fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise PyreidError(f"output {output}: another process is writing it") from error


def missing_files(paths: Sequence[Path], *, allowed: bool) -> set[int]:
    """Positions of files that are not there; if they are not ``allowed``, the first is a ``DatasetError``."""
    missing = set()
    for position, path in enumerate(paths):
        try:
            path.stat()
        except OSError as error:
            if not allowed:
                raise DatasetError(f"{path}: cannot be read as an image ({error.strerror})") from error
            missing.add(position)
    return missing


def settings_of(extractor: FeatureExtractor, paths: Sequence[Path]) -> dict[str, Any]:
    """All that decides about the bits of the result, as plain values."""
    device = extractor.device if extractor.device is not None else device_of(extractor.model)
    return {
        "images": _fingerprint_of_files(paths),
        "number of images": len(paths),
        "model": type(extractor.model).__name__ + repr(getattr(extractor.model, "config", "")),
        "weights": _fingerprint_of_weights(extractor.model),
        "size": list(extractor.images.size),
        "mean": list(extractor.images.mean),
        "std": list(extractor.images.std),
        "flip": extractor.flip,
        "crops": extractor.crops,
        "batch_size": extractor.batch_size,
        "device": device.type,
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "torch": str(torch.__version__),
    }


def _fingerprint_of_files(paths: Sequence[Path]) -> str:
    """Names, sizes and times: reading every image twice would double the work."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            state = path.stat()
            digest.update(f"{path.absolute()}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(f"{path.absolute()}\0missing\n".encode())
    return digest.hexdigest()


def _fingerprint_of_weights(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_settings(before: dict[str, Any], settings: dict[str, Any], output: Path, whose: str) -> None:
    """Raise ``PyreidError`` unless the settings are those of before; ``whose`` says of what these are."""
    changed = [name for name in settings if before.get(name) != settings[name]]
    if changed:
        words = [name if name in ("images", "weights") else f"{name} ({before.get(name)})" for name in changed]
        raise PyreidError(
            f"output {output}: expected the settings of {whose}, got other {', '.join(words)}; give those, or start "
            "anew with --overwrite"
        )


def check_skipped(count: int, output: Path, *, allowed: bool) -> None:
    """Raise ``PyreidError`` if images were left out before and are not to be now."""
    if count and not allowed:
        raise PyreidError(
            f"output {output}: {count} images that cannot be read were left out; continue with --skip-unreadable, or "
            "mend them and start anew with --overwrite"
        )


def read_journal(journal: IO[bytes], settings: dict[str, Any], output: Path) -> Progress:
    """What is on the disk.

    Raises:
        PyreidError: the settings are others, the journal is damaged, or rows that it knows of are not there.
    """
    journal.seek(0)
    # A line without an end was being written when the process ended.
    lines = [line for line in journal.read().splitlines(keepends=True) if line.endswith(b"\n")]
    if not lines:
        return Progress()
    part, path = leftovers(output)
    progress = Progress()
    try:
        before = json.loads(lines[0])
        if not isinstance(before, dict):
            raise TypeError("no settings")
        for line in lines[1:]:
            done, columns, *skipped = json.loads(line)
            progress.done, progress.columns = done, columns
            progress.skipped.update((int(position), str(wrong)) for position, wrong in (skipped[0] if skipped else ()))
            if type(done) is not int or type(columns) is not int or progress.rows < 1 or columns < 1:
                raise ValueError("of another kind")
    except (ValueError, TypeError) as error:
        raise PyreidError(f"{path}: expected a journal of rows, got something damaged; use --overwrite") from error
    check_settings(before, settings, output, "the interrupted extraction")
    if progress.done == 0:
        return progress
    total = settings["number of images"]
    needed = size_of(output.suffix, total, progress)
    if progress.done == total and not part.exists() and output.is_file() and output.stat().st_size == needed:
        return progress
    if progress.done > total or not part.is_file() or part.stat().st_size < needed:
        raise PyreidError(
            f"{part}: expected {progress.rows} rows of {progress.columns} columns, got less; use --overwrite"
        )
    return progress


def has_rows(journal: IO[bytes]) -> bool:
    """Whether there is more than the settings."""
    journal.seek(0)
    return journal.read().count(b"\n") > 1


def append(journal: IO[bytes], line: str) -> None:
    """Write a line to the disk itself."""
    journal.seek(0, os.SEEK_END)
    journal.write(f"{line}\n".encode())
    journal.flush()
    os.fsync(journal.fileno())


def size_of(suffix: str, total: int, progress: Progress) -> int:
    """Bytes of the header of ``total`` rows, and of the rows so far."""
    columns = progress.columns or 0
    return len(header(suffix, total, columns)) + 4 * progress.rows * columns


def header(suffix: str, rows: int, columns: int, *, length: int = 0) -> bytes:
    """What comes before the rows: of a fixed length for given sizes, so that rows can be appended.

    ``length`` is that of another number of rows, which the header then has too.
    """
    if suffix == ".safetensors":
        size = 4 * rows * columns
        text = json.dumps({KEY: {"dtype": "F32", "shape": [rows, columns], "data_offsets": [0, size]}}).encode()
        text += b" " * max(-len(text) % 8, length - 8 - len(text))
        return len(text).to_bytes(8, "little") + text
    text = repr({"descr": "<f4", "fortran_order": False, "shape": (rows, columns)}).encode()
    text += b" " * max(-(10 + len(text) + 1) % 64, length - 10 - len(text) - 1) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
