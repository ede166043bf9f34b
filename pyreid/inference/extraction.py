"""Features of image files, streamed into a file: whole or not at all, and continued after an interruption.

Beside the output lie, until it is complete, the rows so far (``.NAME.part``) and a journal (``.NAME.journal``): the
settings, then, batch by batch, the number of images whose rows have reached the disk. Beside a complete output lie the
list of its images and ``NAME.settings.json``, by which ``resume`` knows that it is complete.
"""

from __future__ import annotations

import glob
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pyreid._files import write_json, write_text
from pyreid.errors import DatasetError, PyreidError
from pyreid.inference.extraction_journal import (
    Progress,
    append,
    check_settings,
    check_skipped,
    has_rows,
    header,
    leftovers,
    lock,
    missing_files,
    read_journal,
    settings_of,
    size_of,
)
from pyreid.inference.extractor import FeatureExtractor

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
OUTPUT_SUFFIXES = (".npy", ".safetensors")
_SYNC_SECONDS = 2.0  # between two waits for the disk; what came since the last is computed again

OnBatch = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Extraction:
    """What :func:`extract_to_file` has written.

    Attributes:
        rows: N.
        columns: D.
        skipped: the images that cannot be read and have no row.
        was_complete: whether it was there before, so that ``resume`` had nothing to do.
    """

    rows: int
    columns: int
    skipped: tuple[Path, ...] = ()
    was_complete: bool = False


def read_paths(sources: Sequence[str], *, missing_ok: bool = False) -> list[Path]:
    """The image files of folders, glob patterns, list files and single files, one source after the other.

    A folder gives the images in it and below, and a pattern its matches, both sorted by name; a ``.txt`` file gives its
    lines, relative to the file's folder, in their order. With ``missing_ok`` also those that name no file.

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
            found = _read_list(place, missing_ok) if place.suffix == ".txt" else [place]
        elif glob.has_magic(source):
            found = sorted(Path(name) for name in glob.glob(str(place), recursive=True) if not Path(name).is_dir())  # noqa: PTH207
        else:
            raise FileNotFoundError(f"images: {source}: no such file or folder")
        if not found:
            raise DatasetError(f"images: {source}: expected at least one image ({', '.join(IMAGE_SUFFIXES)}), got none")
        paths += found
    return paths


def _read_list(path: Path, missing_ok: bool) -> list[Path]:
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        image = path.parent / Path(line.strip()).expanduser()
        if not missing_ok and not image.is_file():
            raise DatasetError(f"images: {path}, line {number}: no such file: {image}")
        found.append(image)
    return found


def paths_file(output: Path) -> Path:
    """Where :func:`extract_to_file` lists the images of ``output`` in the order of the rows."""
    return output.with_name(f"{output.name}.paths.txt")


def skipped_file(output: Path) -> Path:
    """Where :func:`extract_to_file` names the images that it has left out: a line each of path, tab, what is wrong."""
    return output.with_name(f"{output.name}.skipped.txt")


def settings_file(output: Path) -> Path:
    """Where :func:`extract_to_file` says what ``output`` was made of."""
    return output.with_name(f"{output.name}.settings.json")


def extract_to_file(
    extractor: FeatureExtractor,
    paths: Sequence[Path],
    output: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    skip_unreadable: bool = False,
    on_batch: OnBatch | None = None,
) -> Extraction:
    """Write the features of image files to a ``.npy`` or ``.safetensors`` file, batch by batch.

    Memory does not grow with the number of images. The output, ``NAME.paths.txt``, the list of the images in the order
    of the rows, and ``NAME.settings.json`` appear when all is done. After an interruption, ``resume`` computes what is
    missing; on the CPU the file is then the same, to the bit, as without the interruption.

    Args:
        extractor: gives the features.
        paths: N image files.
        output: a ``.npy`` file, or a ``.safetensors`` file that gets one tensor, ``features``; (N, D) float32.
        resume: continue what an interrupted call has left, or begin if there is nothing. If the output is complete and
            of the same images and settings, nothing is done.
        overwrite: replace ``output`` and what an interrupted call has left. The old output stays until all new rows are
            on the disk; then it is removed, the new list written, and the new output put in place. A reader sees the
            old pair, a list without an output, or the new pair. If interrupted, go on with ``resume``.
        skip_unreadable: leave out images that cannot be read, or are not there at the start, and name them in
            ``NAME.skipped.txt``; N is then the number of the others. The batches are those of all images, and what was
            left out before an interruption stays out. An interrupted call without this option may be resumed with it.
        on_batch: called with the number of images of each batch, first with that of those done before.

    Returns:
        An :class:`Extraction`.

    Raises:
        ValueError: no images, another suffix, both ``resume`` and ``overwrite``, or features that are not finite.
        FileExistsError: ``output`` or the rest of an interrupted call is there, and neither option is given.
        pyreid.errors.PyreidError: the settings or images are not those of the interrupted call or of the complete
            output, files are damaged, or another process writes the same output.
        pyreid.errors.DatasetError: an image cannot be read; with ``skip_unreadable``: none can be, or one that was
            there at the start is gone, as when a disk is no longer mounted.
    """
    if resume and overwrite:
        raise ValueError("resume and overwrite exclude each other; give one of them")
    if output.suffix not in OUTPUT_SUFFIXES:
        raise ValueError(f"output: expected a file that ends in {' or '.join(OUTPUT_SUFFIXES)}, got {output}")
    if not paths:
        raise ValueError("images: expected at least one, got none")
    if output.is_dir():
        raise IsADirectoryError(f"output: expected a file, got the folder {output}")
    part, journal_path = leftovers(output)
    complete = output.exists() and not journal_path.exists()
    if not overwrite and not resume:
        if complete:
            raise FileExistsError(f"output {output}: exists; choose another name, or replace it with --overwrite")
        if journal_path.exists():
            raise FileExistsError(
                f"output {output}: an interrupted extraction lies beside it; continue with --resume, or start "
                "anew with --overwrite"
            )
    missing = missing_files(paths, allowed=skip_unreadable)
    settings = settings_of(extractor, paths)
    if resume and complete:
        return _complete(output, paths, settings, skip_unreadable)
    output.parent.mkdir(parents=True, exist_ok=True)
    with journal_path.open("a+b") as journal:
        lock(journal, output)
        progress = read_journal(journal, settings, output) if resume else Progress()
        check_skipped(len(progress.skipped), output, allowed=skip_unreadable)
        if progress.done == len(paths) and not part.exists():  # stopped after the last step but one
            journal_path.unlink()
            return _result(paths, progress)
        if progress.done == 0:
            journal.truncate(0)
            part.unlink(missing_ok=True)
            append(journal, json.dumps(settings))
        try:
            _write_rows(extractor, paths, part, journal, progress, missing if skip_unreadable else None, on_batch)
        except BaseException:
            if not has_rows(journal) and not output.exists():  # nothing to resume, such as after a wrong first image
                part.unlink(missing_ok=True)
                journal_path.unlink()
            raise
        # An output that is there is complete, and the list beside it is its own: the old one goes before its list does.
        output.unlink(missing_ok=True)
        _write_lists(output, paths, settings, progress)
        part.replace(output)
        journal_path.unlink()
    return _result(paths, progress)


def _result(paths: Sequence[Path], progress: Progress) -> Extraction:
    skipped = tuple(paths[position] for position in sorted(progress.skipped))
    return Extraction(progress.rows, int(progress.columns or 0), skipped)


def _write_lists(output: Path, paths: Sequence[Path], settings: dict[str, Any], progress: Progress) -> None:
    skipped = progress.skipped
    kept = (path for position, path in enumerate(paths) if position not in skipped)
    write_text(paths_file(output), "".join(f"{path}\n" for path in kept))
    if skipped:
        found = ((str(paths[position]), skipped[position]) for position in sorted(skipped))
        lines = (f"{path}\t{' '.join(wrong.removeprefix(f'{path}: ').split())}\n" for path, wrong in found)
        write_text(skipped_file(output), "".join(lines))
    else:
        skipped_file(output).unlink(missing_ok=True)
    made = {"rows": progress.rows, "columns": progress.columns, "skipped": sorted(skipped)}
    write_json(settings_file(output), {"settings": settings} | made)


def _complete(output: Path, paths: Sequence[Path], settings: dict[str, Any], skip_unreadable: bool) -> Extraction:
    """What a complete output holds; ``PyreidError`` unless it is that of these images and settings."""
    file = settings_file(output)
    if not file.is_file():
        raise PyreidError(
            f"output {output}: exists, but without {file.name}, which says what it was made of; choose another name, "
            "or replace it with --overwrite"
        )
    try:
        made = json.loads(file.read_bytes())
        before, columns, skipped = (
            made["settings"],
            int(made["columns"]),
            [int(position) for position in made["skipped"]],
        )
        progress = Progress(before["number of images"], columns, dict.fromkeys(skipped, ""))
        expected = size_of(output.suffix, progress.done, progress)
    except (ValueError, TypeError, KeyError) as error:
        raise PyreidError(f"{file}: expected what the output was made of, got something damaged ({error!r})") from error
    check_settings(before, settings, output, "the complete extraction")
    check_skipped(len(skipped), output, allowed=skip_unreadable)
    if output.stat().st_size != expected or not paths_file(output).is_file():
        raise PyreidError(
            f"output {output}: expected {expected} bytes and {paths_file(output).name} beside it, got "
            f"{output.stat().st_size} bytes; replace it with --overwrite"
        )
    result = _result(paths, progress)
    return Extraction(result.rows, result.columns, result.skipped, was_complete=True)


def _write_rows(
    extractor: FeatureExtractor,
    paths: Sequence[Path],
    part: Path,
    journal: IO[bytes],
    progress: Progress,
    missing: set[int] | None,
    on_batch: OnBatch | None,
) -> None:
    """Write what is missing, and keep ``progress`` up to date; ``missing`` is None where no image may be left out."""
    suffix, total = Path(part.stem).suffix, len(paths)  # of .NAME.npy.part
    new: list[tuple[int, str]] = []  # left out since the journal's last line

    def skip(position: int, wrong: str) -> None:
        if position not in (missing or ()):
            try:
                paths[position].stat()
            except OSError as error:
                raise DatasetError(
                    f"{paths[position]}: was there at the start and is not now ({error.strerror}); continue with "
                    "--resume when it is back"
                ) from error
        progress.skipped[position] = wrong
        new.append((position, wrong))

    if on_batch is not None and progress.done:
        on_batch(progress.done)
    with part.open("r+b" if progress.done else "wb") as file:

        def sync() -> None:
            file.flush()
            os.fsync(file.fileno())
            append(journal, json.dumps([progress.done, progress.columns, *([new] if new else [])]))
            new.clear()

        if progress.columns is not None:  # rows that the journal does not know of may be torn
            file.truncate(size_of(suffix, total, progress))
            file.seek(0, os.SEEK_END)
        synced, rows = -np.inf, progress.rows
        batches: Iterator[NDArray[np.float32]] = iter(())
        if progress.done < total:
            batches = extractor.stream(
                list(paths), start=progress.done, on_unreadable=None if missing is None else skip
            )
        for batch in batches:
            if progress.columns is None:
                progress.columns = batch.shape[1]
                file.write(header(suffix, total, progress.columns))
            file.write(np.ascontiguousarray(batch, dtype="<f4").data)
            rows, before = rows + len(batch), progress.done
            progress.done = rows + len(progress.skipped)
            if time.monotonic() - synced > _SYNC_SECONDS or progress.done == total:
                sync()
                synced = time.monotonic()
            if on_batch is not None:
                on_batch(progress.done - before)
        if progress.columns is None:
            raise DatasetError(f"images: expected one that can be read, got none; the first: {progress.skipped[0]}")
        if progress.done < total:  # none of the last batch can be read
            before, progress.done = progress.done, total
            sync()
            if on_batch is not None:
                on_batch(total - before)
        if progress.skipped:
            size = len(header(suffix, total, progress.columns))
            file.seek(0)
            file.write(header(suffix, progress.rows, progress.columns, length=size))
            file.flush()
            os.fsync(file.fileno())
