"""VeRi-776: the queries are gallery images in a folder of their own; name lists, tracks and labels."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from xml.sax.saxutils import quoteattr

from pyreid.data.sets.veri776 import FOLDERS, NAME_LISTS, TRACK_LIST
from pyreid.data.synthetic.plan import (
    Plan,
    Settings,
    Shot,
    SyntheticLayout,
    gallery_only,
    numbered_visits,
    visits,
    write_lines,
)
from pyreid.data.synthetic.vehicle_look import BODY_TYPES, PAINT_NAMES, vehicle_look

_TRACK_IMAGES = 3  # of a track at most


def _shot(pid: int, camera: int, number: int, track: int, splits: Iterable[str]) -> Shot:
    name = f"{pid:04d}_c{camera + 1:03d}_{number * 5 + 1:08d}_0.jpg"
    paths = tuple(f"{FOLDERS[split]}/{name}" for split in splits)
    return Shot(pid, camera, number, paths, camid=camera, track=track)


def _plan(settings: Settings) -> Plan:
    train = [_shot(*shot, -1, ["train"]) for shot in numbered_visits(settings, settings.train_pids)]
    query: list[Shot] = []
    gallery: list[Shot] = []
    track = -1
    for pid in settings.test_pids:
        for camera, count in visits(settings, pid).items():
            for number in range(count):
                track += number % _TRACK_IMAGES == 0
                splits = ["query", "gallery"] if number == 0 else ["gallery"]
                gallery.append(_shot(pid, camera, number, track, splits))
                if number == 0:
                    query.append(gallery[-1])
    return Plan(tuple(train), tuple(query), tuple(gallery))


def _label_file(kind: str, shots: tuple[Shot, ...], seed: int) -> str:
    looks = {pid: vehicle_look(seed, pid) for pid in sorted({shot.pid for shot in shots})}
    lines = ['<?xml version="1.0" encoding="gb2312"?>', f'<{kind} Version="1.0">', f'  <Items number="{len(shots)}">']
    for shot in shots:
        color, body = looks[shot.pid].paint + 1, BODY_TYPES.index(looks[shot.pid].body) + 1
        lines.append(
            f'    <Item imageName={quoteattr(_name(shot))} vehicleID="{shot.pid:04d}" '
            f'cameraID="c{shot.camera + 1:03d}" colorID="{color}" typeID="{body}" />'
        )
    return "\n".join([*lines, "  </Items>", f"</{kind}>", ""])


def _name(shot: Shot) -> str:
    return shot.paths[0].rpartition("/")[2]  # the same in both folders of a query


def _write_side_files(root: Path, settings: Settings, plan: Plan) -> None:
    for split, shots in (("train", plan.train), ("query", plan.query), ("gallery", plan.gallery)):
        write_lines(root / NAME_LISTS[split], [_name(shot) for shot in shots])
    tracks: dict[int, list[Shot]] = {}
    for shot in plan.gallery:
        tracks.setdefault(shot.track, []).append(shot)
    lines = []
    for track, shots_of_track in tracks.items():
        first = shots_of_track[0]
        names = " ".join(_name(shot) for shot in shots_of_track)
        lines.append(f"{first.pid:04d}_c{first.camera + 1:03d}_t{track:08d} {names} ")
    write_lines(root / TRACK_LIST, lines)
    for file_name, kind, shots in (
        ("train_label.xml", "TrainingImages", plan.train),
        ("test_label.xml", "TestImages", plan.gallery),
    ):
        (root / file_name).write_text(_label_file(kind, shots, settings.seed), encoding="gb2312")
    for file_name, classes in (("list_color.txt", PAINT_NAMES), ("list_type.txt", BODY_TYPES)):
        write_lines(root / file_name, [f"{number} {name}" for number, name in enumerate(classes, start=1)])


LAYOUT = SyntheticLayout(
    name="veri776",
    subject="vehicle",
    size=(128, 128),
    plan=_plan,
    write_side_files=_write_side_files,
    test_images=gallery_only,
)
