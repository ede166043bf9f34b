"""MARS: tracklets of a few frames, and the evaluation code's lists of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from pyreid.data.mat_file import write_mat
from pyreid.data.records import JUNK_PID
from pyreid.data.sets.mars import FOLDERS, TRACKS
from pyreid.data.synthetic.plan import (
    Plan,
    Settings,
    Shot,
    SyntheticLayout,
    background,
    gallery_only,
    visits,
    write_lines,
)

_FRAMES = 4  # of a tracklet at most


def _tracklets(settings: Settings, pids: Iterable[int]) -> Iterator[tuple[int, int, list[int]]]:
    """Identity, camera and frame numbers of each tracklet."""
    for pid in pids:
        for camera, count in visits(settings, pid).items():
            for first in range(0, count, _FRAMES):
                yield pid, camera, list(range(first, min(first + _FRAMES, count)))


def _background_tracklets(settings: Settings) -> Iterator[tuple[int, int, list[int]]]:
    by_camera: dict[tuple[int, int], list[int]] = {}
    for pid, camera, number in background(settings):
        by_camera.setdefault((pid, camera), []).append(number)
    for (pid, camera), numbers in by_camera.items():
        for first in range(0, len(numbers), _FRAMES):
            yield pid, camera, numbers[first : first + _FRAMES]


def _shots(folder: str, track: int, pid: int, camera: int, numbers: list[int]) -> list[Shot]:
    identity = "00-1" if pid == JUNK_PID else f"{pid:04d}"
    # An identity's tracklets are told apart by the number of their first frame.
    stem = f"{folder}/{identity}/{identity}C{camera + 1}T{numbers[0] + 1:04d}"
    return [
        Shot(pid, camera, number, (f"{stem}F{frame:03d}.jpg",), camid=camera, track=track)
        for frame, number in enumerate(numbers, start=1)
    ]


def _plan(settings: Settings) -> Plan:
    train: list[Shot] = []
    for track, tracklet in enumerate(_tracklets(settings, settings.train_pids)):
        train += _shots(FOLDERS["train"], track, *tracklet)
    query: list[Shot] = []
    gallery: list[Shot] = []
    tracklets = [*_tracklets(settings, settings.test_pids), *_background_tracklets(settings)]
    for track, (pid, camera, numbers) in enumerate(tracklets):
        shots = _shots(FOLDERS["test"], track, pid, camera, numbers)
        gallery += shots
        if pid in settings.test_pids and numbers[0] == 0:
            query += shots
    return Plan(tuple(train), tuple(query), tuple(gallery))


def _write_side_files(root: Path, settings: Settings, plan: Plan) -> None:
    info = root / "info"
    for side, shots in (("train", plan.train), ("test", plan.gallery)):
        write_lines(info / f"{side}_name.txt", [shot.paths[0].rpartition("/")[2] for shot in shots])
        rows: dict[int, list[int]] = {}
        for position, shot in enumerate(shots, start=1):
            row = rows.setdefault(shot.track, [position, position, shot.pid, shot.camid + 1])
            row[1] = position
        file_name, array_name = TRACKS[side]
        write_mat(info / file_name, {array_name: np.array(list(rows.values()), np.float64)})
    chosen = [track + 1 for track in dict.fromkeys(shot.track for shot in plan.query)]
    write_mat(info / "query_IDX.mat", {"query_IDX": np.array([chosen], np.float64)})


LAYOUT = SyntheticLayout(
    name="mars",
    subject="person",
    size=(128, 64),
    plan=_plan,
    write_side_files=_write_side_files,
    test_images=gallery_only,
    has_background=True,
)
