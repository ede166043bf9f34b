"""Features of image files, streamed into a file: whole or not at all, and continued after an interruption.

Beside the output lie, until it is complete, the rows so far (``.NAME.part``) and a journal (``.NAME.journal``): a line
of JSON with the settings, then, batch by batch, a line with the number of rows that have reached the disk.
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import nn

from pyreid._files import write_text
from pyreid.errors import DatasetError, PyreidError
from pyreid.inference.embedding import device_of
from pyreid.inference.extractor import FeatureExtractor

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
OUTPUT_SUFFIXES = (".npy", ".safetensors")
KEY = "features"  # of the tensor in a .safetensors file
_SYNC_SECONDS = 2.0  # between two waits for the disk; what came since the last is computed again

OnBatch = Callable[[int], None]


def read_paths(sources: Sequence[str]) -> list[Path]:
    """The image files of folders, glob patterns, list files and single files, one source after the other.

    A folder gives the images in it and below, and a pattern its matches, both sorted by name; a ``.txt`` file gives its
    lines, relative to the file's folder, in their order.

    Raises:
        FileNotFoundError: nothing is there.
        pyreid.errors.DatasetError: a source holds no image, or a line of a list names no file.
    """
    paths: list[Path] = []
    for source in sources:
        place = Path(source).expanduser()
        if place.is_dir():
            found = sorted(path for path in place.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        elif place.is_file():
            found = _read_list(place) if place.suffix == ".txt" else [place]
        elif glob.has_magic(source):
            found = sorted(Path(name) for name in glob.glob(str(place), recursive=True) if not Path(name).is_dir())  # noqa: PTH207
        else:
            raise FileNotFoundError(f"images: {source}: no such file or folder")
        if not found:
            raise DatasetError(f"images: {source}: expected at least one image ({', '.join(IMAGE_SUFFIXES)}), got none")
        paths += found
    return paths


def _read_list(path: Path) -> list[Path]:
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        image = path.parent / Path(line.strip()).expanduser()
        if not image.is_file():
            raise DatasetError(f"images: {path}, line {number}: no such file: {image}")
        found.append(image)
    return found


def paths_file(output: Path) -> Path:
    """Where :func:`extract_to_file` lists the images of ``output`` in the order of the rows."""
    return output.with_name(f"{output.name}.paths.txt")


def extract_to_file(
    extractor: FeatureExtractor,
    paths: Sequence[Path],
    output: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_batch: OnBatch | None = None,
) -> tuple[int, int]:
    """Write the features of image files to a ``.npy`` or ``.safetensors`` file, batch by batch.

    Memory does not grow with the number of images. The output and ``NAME.paths.txt``, the list of the images in the
    order of the rows, appear when all is done. After an interruption, ``resume`` computes what is missing; on the CPU
    the file is then the same, to the bit, as without the interruption.

    Args:
        extractor: gives the features.
        paths: N image files.
        output: a ``.npy`` file, or a ``.safetensors`` file that gets one tensor, ``features``; (N, D) float32.
        resume: continue what an interrupted call has left, or begin if there is nothing.
        overwrite: replace ``output`` and what an interrupted call has left. The old output stays until all new rows are
            on the disk; then it is removed, the new list written, and the new output put in place. A reader sees the
            old pair, a list without an output, or the new pair. If interrupted, go on with ``resume``.
        on_batch: called with the number of images of each batch, first with that of those done before.

    Returns:
        (N, D).

    Raises:
        ValueError: no images, another suffix, both ``resume`` and ``overwrite``, or features that are not finite.
        FileExistsError: ``output`` or the rest of an interrupted call is there, and neither option is given.
        pyreid.errors.PyreidError: the settings or images are not those of the interrupted call, its files are damaged,
            or another process writes the same output.
        pyreid.errors.DatasetError: an image cannot be read.
    """
    if resume and overwrite:
        raise ValueError("resume and overwrite exclude each other; give one of them")
    if output.suffix not in OUTPUT_SUFFIXES:
        raise ValueError(f"output: expected a file that ends in {' or '.join(OUTPUT_SUFFIXES)}, got {output}")
    if not paths:
        raise ValueError("images: expected at least one, got none")
    if output.is_dir():
        raise IsADirectoryError(f"output: expected a file, got the folder {output}")
    part, journal_path = _leftovers(output)
    if not overwrite:
        if output.exists() and not journal_path.exists():
            raise FileExistsError(f"output {output}: exists; choose another name, or replace it with --overwrite")
        if not resume and journal_path.exists():
            raise FileExistsError(
                f"output {output}: an interrupted extraction lies beside it; continue with --resume, or start "
                "anew with --overwrite"
            )
    settings = _settings(extractor, paths)
    output.parent.mkdir(parents=True, exist_ok=True)
    with journal_path.open("a+b") as journal:
        _lock(journal, output)
        done, columns = _read_journal(journal, settings, output) if resume else (0, None)
        if done == len(paths) and not part.exists():  # stopped after the last step but one
            journal_path.unlink()
            return done, int(columns or 0)
        if done == 0:
            journal.truncate(0)
            part.unlink(missing_ok=True)
            _append(journal, json.dumps(settings))
        try:
            columns = _write_rows(extractor, paths, part, journal, done, columns, on_batch)
        except BaseException:
            if not _has_rows(journal) and not output.exists():  # nothing to resume, such as after a wrong first image
                part.unlink(missing_ok=True)
                journal_path.unlink()
            raise
        # An output that is there is complete, and the list beside it is its own: the old one goes before its list does.
        output.unlink(missing_ok=True)
        write_text(paths_file(output), "".join(f"{path}\n" for path in paths))
        part.replace(output)
        journal_path.unlink()
    return len(paths), columns


def _leftovers(output: Path) -> tuple[Path, Path]:
    return output.with_name(f".{output.name}.part"), output.with_name(f".{output.name}.journal")


def _lock(journal: IO[bytes], output: Path) -> None:
    try:
        fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise PyreidError(f"output {output}: another process is writing it") from error


def _settings(extractor: FeatureExtractor, paths: Sequence[Path]) -> dict[str, Any]:
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
        except OSError as error:
            raise DatasetError(f"{path}: cannot be read as an image ({error.strerror})") from error
        digest.update(f"{path.absolute()}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _fingerprint_of_weights(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read_journal(journal: IO[bytes], settings: dict[str, Any], output: Path) -> tuple[int, int | None]:
    """Rows that are on the disk, and their columns; (0, None) if there are none."""
    journal.seek(0)
    # A line without an end was being written when the process ended.
    lines = [line for line in journal.read().splitlines(keepends=True) if line.endswith(b"\n")]
    if not lines:
        return 0, None
    part, path = _leftovers(output)
    try:
        before = json.loads(lines[0])
        done, columns = json.loads(lines[-1]) if len(lines) > 1 else (0, 1)
        fits = isinstance(before, dict) and isinstance(done, int) and isinstance(columns, int)
        if not fits or done < 0 or columns < 1:
            raise ValueError("of another kind")
    except (ValueError, TypeError) as error:
        raise PyreidError(f"{path}: expected a journal of rows, got something damaged; use --overwrite") from error
    changed = [name for name in settings if before.get(name) != settings[name]]
    if changed:
        words = [name if name in ("images", "weights") else f"{name} ({before.get(name)})" for name in changed]
        raise PyreidError(
            f"output {output}: expected the settings of the interrupted extraction, got other {', '.join(words)}; give "
            "those, or start anew with --overwrite"
        )
    if done == 0:
        return 0, None
    rows = settings["number of images"]
    needed = len(_header(output.suffix, rows, columns)) + 4 * done * columns
    if done == rows and not part.exists() and output.is_file() and output.stat().st_size == needed:
        return done, columns
    if done > rows or not part.is_file() or part.stat().st_size < needed:
        raise PyreidError(f"{part}: expected {done} rows of {columns} columns, got less; use --overwrite")
    return done, columns


def _has_rows(journal: IO[bytes]) -> bool:
    journal.seek(0)
    return journal.read().count(b"\n") > 1


def _write_rows(
    extractor: FeatureExtractor,
    paths: Sequence[Path],
    part: Path,
    journal: IO[bytes],
    done: int,
    columns: int | None,
    on_batch: OnBatch | None,
) -> int:
    suffix = Path(part.stem).suffix  # of .NAME.npy.part
    if on_batch is not None and done:
        on_batch(done)
    with part.open("r+b" if done else "wb") as file:
        if columns is not None:  # rows that the journal does not know of may be torn
            file.truncate(len(_header(suffix, len(paths), columns)) + 4 * done * columns)
            file.seek(0, os.SEEK_END)
        synced = -np.inf
        batches = extractor.stream(list(paths), start=done) if done < len(paths) else iter(())
        for batch in batches:
            if columns is None:
                columns = batch.shape[1]
                file.write(_header(suffix, len(paths), columns))
            file.write(np.ascontiguousarray(batch, dtype="<f4").data)
            done += len(batch)
            if time.monotonic() - synced > _SYNC_SECONDS or done == len(paths):
                file.flush()
                os.fsync(file.fileno())
                _append(journal, json.dumps([done, columns]))
                synced = time.monotonic()
            if on_batch is not None:
                on_batch(len(batch))
    assert columns is not None  # there is at least one batch, or a journal of rows
    return columns


def _append(journal: IO[bytes], line: str) -> None:
    journal.seek(0, os.SEEK_END)
    journal.write(f"{line}\n".encode())
    journal.flush()
    os.fsync(journal.fileno())


def _header(suffix: str, rows: int, columns: int) -> bytes:
    """What comes before the rows: of a fixed length for given sizes, so that rows can be appended."""
    if suffix == ".safetensors":
        size = 4 * rows * columns
        text = json.dumps({KEY: {"dtype": "F32", "shape": [rows, columns], "data_offsets": [0, size]}}).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text
    text = repr({"descr": "<f4", "fortran_order": False, "shape": (rows, columns)}).encode()
    text += b" " * (-(10 + len(text) + 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
