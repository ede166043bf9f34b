"""VeRi-Wild: a folder per identity, lists of all test sets, and the cameras in a list of all images.

The test sets that are smaller than the one asked for are written, too, with their share of the test identities.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

from pyreid.data.sets.veri_wild import SIZES
from pyreid.data.synthetic.plan import Plan, Settings, Shot, SyntheticLayout, gallery_only, numbered_visits, write_lines


def _shots(settings: Settings, pids: range, first: int) -> list[Shot]:
    drawn = numbered_visits(settings, pids)
    return [
        Shot(*shot, (f"images/{shot[0]:05d}/{image:06d}.jpg",), camid=shot[1])
        for image, shot in enumerate(drawn, start=first)
    ]


def _plan(settings: Settings, size: int) -> Plan:
    train = _shots(settings, settings.train_pids, 1)
    query: list[Shot] = []
    gallery: list[Shot] = []
    seen: set[int] = set()
    for shot in _shots(settings, settings.test_pids, len(train) + 1):
        (gallery if shot.pid in seen else query).append(shot)
        seen.add(shot.pid)
    variants = {
        f"veri_wild_{name}": settings.test_pids[: math.ceil(settings.num_test_ids * other / size)]
        for name, other in SIZES.items()
        if other <= size
    }
    return Plan(tuple(train), tuple(query), tuple(gallery), variants)


def _listed(shot: Shot) -> str:
    return shot.paths[0].removeprefix("images/").removesuffix(".jpg")


def _write_side_files(root: Path, settings: Settings, plan: Plan) -> None:
    lists = root / "train_test_split"
    ordered = sorted(plan.shots, key=lambda shot: shot.paths)
    info = [f"{_listed(shot)};{shot.camid + 1};2018-03-14 09:{shot.number:02d}:00;;;" for shot in ordered]
    write_lines(lists / "vehicle_info.txt", ["id/image;Camera ID;Time;Model;Type;Color", *info])
    write_lines(lists / "train_list.txt", [_listed(shot) for shot in plan.train])
    for name, pids in plan.variants.items():
        size = SIZES[name.rpartition("_")[2]]
        own = plan.tested_on(pids)
        write_lines(lists / f"test_{size}.txt", [_listed(shot) for shot in own.gallery])
        write_lines(lists / f"test_{size}_query.txt", [_listed(shot) for shot in own.query])


LAYOUTS = tuple(
    SyntheticLayout(
        name=f"veri_wild_{name}",
        subject="vehicle",
        size=(128, 128),
        plan=partial(_plan, size=size),
        write_side_files=_write_side_files,
        test_images=gallery_only,
    )
    for name, size in SIZES.items()
)
