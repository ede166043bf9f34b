"""VehicleID: numbered images in one folder, and lists that say whose they are; no cameras.

The lists of the reported sizes below the one asked for are written, too, with their share of the test identities.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

from pyreid.data.records import NO_CAMERA
from pyreid.data.sets.vehicleid import DEFAULT_SIZE, REPORTED, SIZES
from pyreid.data.synthetic.plan import Plan, Settings, Shot, SyntheticLayout, gallery_only, numbered_visits, write_lines


def _shots(settings: Settings, pids: range, first: int) -> list[Shot]:
    drawn = numbered_visits(settings, pids)
    return [Shot(*shot, (f"image/{image:07d}.jpg",), camid=NO_CAMERA) for image, shot in enumerate(drawn, start=first)]


def _pids(settings: Settings, share: float) -> range:
    return settings.test_pids[: math.ceil(settings.num_test_ids * share)]


def _plan(settings: Settings, size: int) -> Plan:
    train = _shots(settings, settings.train_pids, 1)
    query: list[Shot] = []
    gallery: list[Shot] = []
    seen: set[int] = set()
    for shot in _shots(settings, settings.test_pids, len(train) + 1):
        (query if shot.pid in seen else gallery).append(shot)
        seen.add(shot.pid)
    names = {f"vehicleid_{other}": other for other in {*REPORTED, size} if other <= size}
    if size >= DEFAULT_SIZE:
        names["vehicleid"] = DEFAULT_SIZE
    variants = {name: _pids(settings, other / size) for name, other in sorted(names.items())}
    return Plan(tuple(train), tuple(query), tuple(gallery), variants)


def _write_side_files(root: Path, settings: Settings, plan: Plan) -> None:
    def lines(shots: tuple[Shot, ...], pids: range) -> list[str]:
        ordered = sorted((shot for shot in shots if shot.pid in pids), key=lambda shot: shot.paths)
        return [f"{Path(shot.paths[0]).stem} {shot.pid}" for shot in ordered]

    lists = root / "train_test_split"
    write_lines(lists / "train_list.txt", lines(plan.train, settings.train_pids))
    for name, pids in plan.variants.items():
        if name != "vehicleid":
            size = name.rpartition("_")[2]
            write_lines(lists / f"test_list_{size}.txt", lines((*plan.query, *plan.gallery), pids))


LAYOUTS = tuple(
    SyntheticLayout(
        name=name,
        subject="vehicle",
        size=(128, 128),
        plan=partial(_plan, size=size),
        write_side_files=_write_side_files,
        test_images=gallery_only,
    )
    for name, size in (("vehicleid", DEFAULT_SIZE), *((f"vehicleid_{size}", size) for size in SIZES))
)
