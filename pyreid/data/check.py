"""A check of a data set on disk, before hours are spent on it."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from PIL import Image

from pyreid.data.layouts import Layout, Listing, describe_difference, protocol_of
from pyreid.data.protocol import Protocol
from pyreid.data.records import NO_CAMERA, NO_TRACK, ImageRecord
from pyreid.data.registry import get_layout, missing_root

Progress = Callable[[int, int], None]

_EXAMPLES = 5
_SMALLEST_SIDE = 8
_IN_FLIGHT = 1024


@dataclass(frozen=True, slots=True)
class SplitCount:
    """Size of a split; junk and distractors are images that ``ids`` does not count."""

    split: str
    images: int
    ids: int
    cameras: int
    junk: int
    distractors: int
    tracks: int = 0


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What :func:`check_dataset` found.

    Attributes:
        name: the data set's name.
        root: the folder that holds the splits.
        errors: faults that make training or evaluation fail or mean nothing.
        warnings: what is unusual, but works.
        summary: one line per fact: counts, cameras, image sizes.
        counts: the size of each split.
    """

    name: str
    root: Path
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    summary: list[str] = field(default_factory=list)
    counts: list[SplitCount] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there are no errors."""
        return not self.errors


@dataclass(frozen=True, slots=True)
class _Decoded:
    """What decoding one file gave: an error, or its size and mode."""

    path: Path
    error: str | None
    size: tuple[int, int] = (0, 0)
    mode: str = ""


def check_dataset(
    name: str, root: Path | str, *, workers: int | None = None, progress: Progress | None = None
) -> CheckReport:
    """Read every file of a data set and look for whatever would spoil a training or an evaluation.

    Errors: folders and lists that are missing or empty, names and lines that cannot be parsed, lists that disagree with
    the folders or name an image twice, empty splits, files that cannot be decoded to the end, identities in both
    training and test, a test image that is also a training image, and no query at all with a match under the data set's
    protocol. Warnings: counts that differ from the published ones, files left out, training identities with a single
    image, queries without a match, names that occur twice, images that are tiny or not RGB.

    Args:
        name: one of :func:`pyreid.data.list_datasets`.
        root: the folder of the unpacked archive, or its parent.
        workers: threads that decode; None for one per core.
        progress: called with the files decoded and the total.

    Returns:
        The report; faults of the data set never raise.

    Raises:
        ValueError: there is no data set of that name, or ``workers`` is not positive.
    """
    layout = get_layout(name)
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    root = Path(root)
    missing = missing_root(layout, root)
    if missing is not None:
        return CheckReport(name, root, errors=[missing])
    listing = layout.scan(root)
    report = CheckReport(name, listing.root, errors=list(listing.problems), warnings=list(listing.notices))
    for split in ("train", "query", "gallery"):
        records: tuple[ImageRecord, ...] = getattr(listing, split)
        report.counts.append(_count(split, records, layout))
        # A missing or empty folder is a problem already; this is a folder without a usable name.
        if not records and not listing.problems:
            report.errors.append(f"{listing.root}: the {split} split has no usable image")
    difference = describe_difference(layout, listing)
    if difference is not None and not listing.problems:  # with problems, the counts are wrong anyhow
        report.warnings.append(difference)
    _check_names(listing, layout, report)
    _check_identities(listing, layout, report)
    _check_matches(listing, protocol_of(layout, listing), report)
    _check_files(listing, report, workers or os.cpu_count() or 1, progress)
    return report


def _count(split: str, records: Iterable[ImageRecord], layout: Layout) -> SplitCount:
    records = tuple(records)
    return SplitCount(
        split,
        images=len(records),
        ids=len({record.pid for record in records} - {layout.junk_pid, layout.distractor_pid}),
        cameras=len({record.camid for record in records} - {NO_CAMERA}),
        junk=sum(layout.junk_pid is not None and record.pid == layout.junk_pid for record in records),
        distractors=sum(
            layout.distractor_pid is not None and record.pid == layout.distractor_pid for record in records
        ),
        tracks=len({record.track for record in records} - {NO_TRACK}),
    )


def _some(items: list[str]) -> str:
    """The first few items, and how many more there are."""
    more = f" and {len(items) - _EXAMPLES} more" if len(items) > _EXAMPLES else ""
    return ", ".join(items[:_EXAMPLES]) + more


def _check_names(listing: Listing, layout: Layout, report: CheckReport) -> None:
    def name_of(record: ImageRecord) -> str:
        return record.path.name.casefold() if layout.unique_names else str(record.path)

    names = {
        split: Counter(name_of(record) for record in getattr(listing, split)) for split in ("train", "query", "gallery")
    }
    for split, counts in names.items():
        twice = sorted(name for name, count in counts.items() if count > 1)
        if twice:
            report.warnings.append(f"{split}: {len(twice)} file names occur twice: {_some(twice)}")
    for split in ("query", "gallery"):
        shared = sorted(set(names["train"]) & set(names[split]))
        if shared:
            report.errors.append(f"train and {split} share {len(shared)} file names: {_some(shared)}")
    # The queries of VeRi-776 and MARS are part of the gallery; the same in Market-1501 comes from a copy by mistake.
    shared = sorted(set(names["query"]) & set(names["gallery"]))
    if shared and not layout.query_in_gallery:
        report.warnings.append(f"query and gallery share {len(shared)} file names: {_some(shared)}")


def _check_identities(listing: Listing, layout: Layout, report: CheckReport) -> None:
    def name_of(pid: int) -> str:
        return listing.id_names.get(pid, str(pid))

    per_id = Counter(record.pid for record in listing.train)
    single = sorted(pid for pid, count in per_id.items() if count == 1)
    if single:
        shown = _some([name_of(pid) for pid in single])
        report.warnings.append(f"train: {len(single)} identities have a single image, which batches repeat: {shown}")
    if len(per_id) == 1:
        report.errors.append("train: there is one identity only, nothing can be told apart")
    test_ids = {record.pid for record in (*listing.query, *listing.gallery)}
    overlap = sorted(set(per_id) & (test_ids - {layout.junk_pid, layout.distractor_pid}))
    if overlap and not layout.separate_test_ids:
        shown = _some([name_of(pid) for pid in overlap])
        report.errors.append(f"{len(overlap)} identities are both in train and in query or gallery: {shown}")


def _check_matches(listing: Listing, protocol: Protocol, report: CheckReport) -> None:
    """Whether the queries have a right answer under the data set's own rule."""
    query: Iterable[ImageRecord] = listing.query
    where = "in another camera" if protocol.camera_filter else "in the gallery"
    what = "queries"
    if protocol.function == "evaluate_random_gallery":
        _check_random_gallery(listing, report)
        return
    if protocol.function == "pool_tracks":  # a track is one query
        query = {record.track: record for record in reversed(listing.query)}.values()
        what = "query tracks"
    query = sorted(query, key=lambda record: (record.track, record.path))
    seen = {(record.pid, record.camid) for record in listing.gallery}
    cameras = Counter(pid for pid, _ in seen)
    # The Market-1501 rule: gallery images of the query's identity in the query's camera do not count.
    lonely = [
        record.path.name
        for record in query
        if cameras[record.pid] - (protocol.camera_filter and (record.pid, record.camid) in seen) == 0
    ]
    if lonely and len(lonely) == len(query) and listing.gallery:
        report.errors.append(
            f"no query has an image of its identity {where}; nothing can be evaluated (first query: {lonely[0]})"
        )
    elif lonely and listing.gallery:
        fate = "are skipped" if protocol.no_match == "skip" else "count as 0"
        report.warnings.append(f"query: {len(lonely)} {what} have no match {where} and {fate}: {_some(lonely)}")


def _check_random_gallery(listing: Listing, report: CheckReport) -> None:
    counts = Counter(record.pid for record in (*listing.query, *listing.gallery))
    single = [str(pid) for pid, count in sorted(counts.items()) if count == 1]
    if single and len(single) == len(counts):
        report.errors.append("no test identity has two images, one for the gallery and one for a query")
    elif single:
        report.warnings.append(
            f"test: {len(single)} identities have a single image and are never a query: {_some(single)}"
        )


def _decode(path: Path) -> _Decoded:
    """Decode a file to its last pixel."""
    try:
        if path.stat().st_size == 0:
            return _Decoded(path, "the file is empty")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                image.load()
                return _Decoded(path, None, image.size, image.mode)
    except Exception as error:  # a decoder may raise anything on broken bytes; all of it is reported
        return _Decoded(path, f"{type(error).__name__}: {error}")


def _check_files(listing: Listing, report: CheckReport, workers: int, progress: Progress | None) -> None:
    # The query tracks of MARS are gallery tracks as well, in the same files.
    paths = list(dict.fromkeys(record.path for record in (*listing.train, *listing.query, *listing.gallery)))
    widths: Counter[int] = Counter()
    heights: Counter[int] = Counter()
    odd_modes: list[str] = []
    tiny: list[str] = []
    remaining = iter(paths)
    done = 0
    # Pillow's JPEG decoder lets go of the interpreter's lock, so threads decode in parallel.
    with ThreadPoolExecutor(workers) as pool:
        while batch := list(islice(remaining, _IN_FLIGHT)):
            for decoded in pool.map(_decode, batch):
                done += 1
                if decoded.error is not None:
                    report.errors.append(f"{decoded.path}: cannot be read as an image ({decoded.error})")
                    continue
                widths[decoded.size[0]] += 1
                heights[decoded.size[1]] += 1
                if min(decoded.size) < _SMALLEST_SIDE:
                    tiny.append(f"{decoded.path.name} ({decoded.size[0]} x {decoded.size[1]})")
                if decoded.mode != "RGB":
                    odd_modes.append(f"{decoded.path.name} ({decoded.mode})")
            if progress is not None:
                progress(done, len(paths))
    if tiny:
        report.warnings.append(f"{len(tiny)} images are smaller than {_SMALLEST_SIDE} pixels: {_some(tiny)}")
    if odd_modes:
        report.warnings.append(f"{len(odd_modes)} images are not RGB and are converted: {_some(odd_modes)}")
    report.summary.append(f"{len(paths)} images listed, {sum(widths.values())} decoded")
    report.summary.extend(_describe(count) for count in report.counts)
    report.summary.append(_describe_cameras(listing))
    if widths:
        report.summary.append(
            f"image sizes: height {min(heights)} to {max(heights)}, width {min(widths)} to {max(widths)}"
        )


def _describe(count: SplitCount) -> str:
    tracks = f" in {count.tracks} tracks" if count.tracks else ""
    background = f", {count.junk} junk and {count.distractors} distractors" if count.junk or count.distractors else ""
    return f"{count.split}: {count.images} images{tracks}, {count.ids} identities, {count.cameras} cameras{background}"


def _describe_cameras(listing: Listing) -> str:
    found = {record.camid for record in (*listing.train, *listing.query, *listing.gallery)} - {NO_CAMERA}
    if not found:
        return "no cameras"
    names = ", ".join(listing.camera_names.get(camera, str(camera + 1)) for camera in sorted(found))
    return f"cameras as named on disk: {names}"
