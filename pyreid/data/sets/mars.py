"""MARS (Zheng et al., MARS: A Video Benchmark for Large-Scale Person Re-identification, ECCV 2016).

::

    MARS/
      bbox_train/0001/0001C1T0001F001.jpg            identity, camera, tracklet, frame
      bbox_test/0002/0002C1T0001F001.jpg             00-1: junk; 0000: distractors
      info/                                          of the authors' evaluation code
        train_name.txt  test_name.txt                file names of all frames, in order
        tracks_train_info.mat  tracks_test_info.mat  a tracklet per row: first and last frame from 1, identity, camera
        query_IDX.mat                                the rows of the test tracklets that are queries, from 1

All five files of ``info`` are read; each record is a frame, and its ``track`` the row of its tracklet. The gallery is
every test tracklet, the queries included, as in the authors' code: the rule that removes the query's identity in its
own camera takes out the query itself. Tracklets of identity -1 are junk, those of identity 0 distractors.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pyreid.data.layouts import DatasetFacts, Layout, Listing, tree_of
from pyreid.data.mat_file import read_mat
from pyreid.data.protocol import Protocol
from pyreid.data.records import DISTRACTOR_PID, JUNK_PID, ImageRecord
from pyreid.data.scan import Scan, find_root
from pyreid.errors import DatasetError

FOLDERS = {"train": "bbox_train", "test": "bbox_test"}
TRACKS = {
    "train": ("tracks_train_info.mat", "track_train_info"),
    "test": ("tracks_test_info.mat", "track_test_info"),
}
"""File and name of the arrays that list the tracklets."""

_NAME = re.compile(r"(?P<folder>(?P<pid>00-1|\d{4}))C(?P<camera>\d)T\d{4}F\d+\.jpg", re.IGNORECASE)


def _read_array(scan: Scan, path: Path, name: str) -> NDArray[np.int64] | None:
    """The array ``name`` of a MAT file as whole numbers; None and a problem if there is none."""
    if not path.is_file():
        scan.problems.append(f"{path}: file not found")
        return None
    try:
        arrays = read_mat(path)
    except DatasetError as error:
        scan.problems.append(str(error))
        return None
    # The authors' files hold one array each; its name does not matter then.
    found = arrays.get(name, next(iter(arrays.values())) if len(arrays) == 1 else None)
    if found is None or not np.all(found == np.floor(found)):
        scan.problems.append(
            f"{path}: expected an array {name} of whole numbers, got {', '.join(arrays) or 'no array'}"
        )
        return None
    return found.astype(np.int64)


def _read_frames(scan: Scan, root: Path, side: str) -> list[tuple[Path, int, int] | None]:
    """Path, identity and camera of every frame in the order of its name list; None where a name cannot be used."""
    path = root / "info" / f"{side}_name.txt"
    folder = root / FOLDERS[side]
    if not folder.is_dir():
        scan.problems.append(f"{folder}: folder not found")
    frames: list[tuple[Path, int, int] | None] = []
    wrong: list[tuple[int, str]] = []
    missing: list[tuple[int, str]] = []
    twice: list[tuple[int, str]] = []
    lines: dict[str, int] = {}
    folders: dict[str, Path] = {}
    for number, name in scan.lines(path):
        match = _NAME.fullmatch(name)
        frame: tuple[Path, int, int] | None = None
        if match is None or int(match["camera"]) < 1:
            wrong.append((number, f"{name[:100]!r} does not have the form 0001C1T0001F001.jpg"))
        elif name in lines:
            twice.append((number, f"{name} is listed already in line {lines[name]}"))
        else:
            lines[name] = number
            own = folders.setdefault(match["folder"], folder / match["folder"])
            pid = JUNK_PID if match["pid"] == "00-1" else int(match["pid"])
            if scan.holds(own / name):
                frame = (own / name, pid, int(match["camera"]) - 1)
            else:
                missing.append((number, f"{own / name} does not exist"))
        frames.append(frame)
    for faults in (wrong, twice, missing):
        scan.faults(path, faults)
    scan.note_unlisted(path, (frame[0] for frame in frames if frame is not None))
    return frames


def _read_tracks(scan: Scan, root: Path, side: str) -> list[tuple[ImageRecord, ...]]:
    """The frames of every tracklet."""
    frames = _read_frames(scan, root, side)
    file_name, array_name = TRACKS[side]
    path = root / "info" / file_name
    rows = _read_array(scan, path, array_name)
    if rows is None or not frames:
        return []
    if rows.ndim != 2 or rows.shape[1] != 4:
        scan.problems.append(f"{path}: expected an array (N, 4), got shape {rows.shape}")
        return []
    tracks: list[tuple[ImageRecord, ...]] = []
    taken: set[Path] = set()
    wrong: list[tuple[int, str]] = []
    for track, (first, last, pid, camera) in enumerate(rows.tolist()):
        records: list[ImageRecord] = []
        if not 1 <= first <= last <= len(frames):
            wrong.append((track + 1, f"frames {first} to {last} of {len(frames)} are no tracklet"))
            tracks.append(())
            continue
        own = [frame for frame in frames[first - 1 : last] if frame is not None]
        different = [frame for frame in own if frame[1:] != (pid, camera - 1)]
        again = [frame for frame in own if frame[0] in taken]
        if different:
            name = different[0][0].name
            wrong.append((track + 1, f"is of identity {pid} and camera {camera}, but its frame {name} is not"))
        elif again:
            wrong.append((track + 1, f"its frame {again[0][0].name} is in another tracklet, too"))
        else:
            taken.update(frame[0] for frame in own)
            records = [ImageRecord(frame[0], frame[1], frame[2], track) for frame in own]
        tracks.append(tuple(records))
    scan.faults(path, wrong)
    if not wrong and len(taken) < sum(frame is not None for frame in frames):
        count = sum(frame is not None for frame in frames) - len(taken)
        scan.notices.append(f"{path}: {count} listed frames are in no tracklet and are left out")
    return tracks


def _scan(root: Path) -> Listing:
    root = find_root(root, marker=FOLDERS["train"], inner=("MARS", "mars", "Mars"))
    scan = Scan()
    train, test = _read_tracks(scan, root, "train"), _read_tracks(scan, root, "test")
    path = root / "info" / "query_IDX.mat"
    chosen = _read_array(scan, path, "query_IDX")
    query: list[ImageRecord] = []
    wrong: list[tuple[int, str]] = []
    rows = [] if chosen is None or not test else chosen.reshape(-1).tolist()
    seen: set[int] = set()
    for number, row in enumerate(rows, start=1):
        if not 1 <= row <= len(test):
            wrong.append((number, f"names tracklet {row} of {len(test)}"))
        elif row in seen:
            wrong.append((number, f"names tracklet {row} again"))
        elif test[row - 1] and test[row - 1][0].pid in (JUNK_PID, DISTRACTOR_PID):
            wrong.append((number, f"names tracklet {row} of identity {test[row - 1][0].pid}, expected a person's"))
        else:
            query += test[row - 1]
        seen.add(row)
    scan.faults(path, wrong)
    return scan.listing(
        root,
        train=(record for track in train for record in track),
        query=query,
        gallery=(record for track in test for record in track),
    )


LAYOUT = Layout(
    name="mars",
    title="MARS",
    subject="person",
    source="Zheng et al., MARS: A Video Benchmark for Large-Scale Person Re-identification, ECCV 2016",
    tree=tree_of(__doc__),
    scan=_scan,
    facts=DatasetFacts(
        train_images=509914,
        train_ids=625,
        query_ids=626,
        gallery_images=681089,
        cameras=6,
        train_tracks=8298,
        query_tracks=1980,
        gallery_tracks=12180,
    ),
    protocol=Protocol(name="track to track", function="pool_tracks", ap="trapezoid", no_match="zero"),
    distractor_pid=DISTRACTOR_PID,
    junk_pid=JUNK_PID,
    query_in_gallery=True,
    unique_names=True,
)
