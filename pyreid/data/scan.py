"""Reading folders and list files without failing at the first fault.

One scan serves both the loader, which raises, and ``pyreid check``, which lists everything.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pyreid.data.layouts import Listing
from pyreid.data.records import ImageRecord

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
"""Endings of image files in folders whose layout does not say which."""

_SHOWN = 5  # faults of one kind in one list file; a wrong file would have one in each of its 100 000 lines


@dataclass(slots=True)
class Scan:
    """Collects the faults of one layout while its folders and lists are read.

    Attributes:
        problems: faults that make the data set unusable as it is, each naming a file or folder.
        notices: oddities that do not.
    """

    problems: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    _held: dict[Path, frozenset[str]] = field(default_factory=dict)

    def listing(
        self,
        root: Path,
        *,
        train: Iterable[ImageRecord],
        query: Iterable[ImageRecord],
        gallery: Iterable[ImageRecord],
        **names: Mapping[int, str],
    ) -> Listing:
        """What was found, with the faults so far; ``names`` are :class:`Listing`'s, of identities and cameras."""
        return Listing(
            root=root,
            train=tuple(train),
            query=tuple(query),
            gallery=tuple(gallery),
            problems=tuple(self.problems),
            notices=tuple(self.notices),
            **names,
        )

    def names(self, folder: Path, suffixes: Sequence[str] = (".jpg",)) -> list[str]:
        """Sorted names of the images in ``folder``; a missing folder is a problem.

        Hidden files and those with other endings are left out and noted; Market-1501 ships a ``Thumbs.db``, which is
        not. A folder without a single image is a problem.
        """
        kinds = " or ".join(suffixes)
        if not folder.is_dir():
            self.problems.append(f"{folder}: folder not found")
            return []
        names: list[str] = []
        ignored = 0
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.lower().endswith(tuple(suffixes)) and not entry.name.startswith("."):
                    names.append(entry.name)
                elif entry.name != "Thumbs.db":
                    ignored += 1
        if not names:
            self.problems.append(f"{folder}: holds no {kinds} file")
        if ignored:
            self.notices.append(f"{folder}: {ignored} entries that are not {kinds} images are ignored")
        return sorted(names)

    def holds(self, path: Path) -> bool:
        """Whether ``path`` exists; each folder is read once, which is quick where a file system's ``stat`` is slow."""
        held = self._held.get(path.parent)
        if held is None:
            try:
                with os.scandir(path.parent) as entries:
                    held = frozenset(entry.name for entry in entries)
            except OSError:
                held = frozenset()
            self._held[path.parent] = held
        return path.name in held

    def lines(self, path: Path) -> list[tuple[int, str]]:
        """Lines of a list file that are not blank, stripped, with their numbers from 1; a missing file is a problem."""
        try:
            text = path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            self.problems.append(f"{path}: file not found")
            return []
        except (OSError, UnicodeDecodeError) as error:
            self.problems.append(f"{path}: cannot be read ({error})")
            return []
        found = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
        if not found:
            self.problems.append(f"{path}: the list is empty")
        return found

    def rows(self, path: Path, pattern: re.Pattern[str], expected: str) -> list[tuple[int, re.Match[str]]]:
        """Lines of a list file that have the form of ``pattern``; others are problems that name file and line."""
        rows: list[tuple[int, re.Match[str]]] = []
        faults: list[tuple[int, str]] = []
        for number, line in self.lines(path):
            match = pattern.fullmatch(line)
            if match is None:
                faults.append((number, f"{line[:100]!r} does not have the form {expected}"))
            else:
                rows.append((number, match))
        self.faults(path, faults)
        return rows

    def faults(self, path: Path, faults: Sequence[tuple[int, str]]) -> None:
        """Problems of one kind in the lines of one file: the first few, and how many more there are."""
        for number, text in faults[:_SHOWN]:
            self.problems.append(f"{path}:{number}: {text}")
        if len(faults) > _SHOWN:
            last = faults[_SHOWN - 1][1]
            self.problems.append(f"{path}: {len(faults) - _SHOWN} more lines have faults as the last one: {last}")

    def listed(
        self,
        path: Path,
        pattern: re.Pattern[str],
        expected: str,
        make: Callable[[re.Match[str]], ImageRecord | str],
    ) -> tuple[ImageRecord, ...]:
        """Records of the images that a list file names, in its order.

        A line of another form, an image that is listed twice and one that is not on disk are problems.

        Args:
            path: the list file.
            pattern: the form of a line.
            expected: the same for people.
            make: the record of a line, or what is wrong with it.
        """
        records: list[ImageRecord] = []
        lines: dict[Path, int] = {}
        wrong: list[tuple[int, str]] = []
        twice: list[tuple[int, str]] = []
        missing: list[tuple[int, str]] = []
        for number, match in self.rows(path, pattern, expected):
            record = make(match)
            if isinstance(record, str):
                wrong.append((number, record))
            elif record.path in lines:
                twice.append((number, f"{record.path.name} is listed already in line {lines[record.path]}"))
            elif not self.holds(record.path):
                missing.append((number, f"{record.path} does not exist"))
            else:
                lines[record.path] = number
                records.append(record)
        for faults in (wrong, twice, missing):
            self.faults(path, faults)
        return tuple(records)

    def note_unlisted(self, where: Path, listed: Iterable[Path], suffixes: Sequence[str] = (".jpg",)) -> None:
        """A notice at ``where`` if the folders of the listed images hold others, too."""
        names: dict[Path, set[str]] = {}
        for path in listed:
            names.setdefault(path.parent, set()).add(path.name)
        count = sum(
            name.lower().endswith(tuple(suffixes)) for folder, own in names.items() for name in self._held[folder] - own
        )
        if count:
            self.notices.append(f"{where}: {count} images of the folder are not listed and are left out")


def find_root(root: Path, *, marker: str, inner: Sequence[str]) -> Path:
    """The folder that holds the splits: ``root`` itself, or the first of its ``inner`` folders that has ``marker``."""
    if not (root / marker).exists():
        for name in inner:
            if (root / name / marker).exists():
                return root / name
    return root
