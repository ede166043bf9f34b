"""VRIC: three folders and three lists; a test identity has one query and one gallery image, of two cameras."""

from __future__ import annotations

from pathlib import Path

from pyreid.data.sets.vric import LISTS
from pyreid.data.synthetic.plan import Plan, Settings, Shot, SyntheticLayout, numbered_visits, visits, write_lines


def _shot(split: str, image: int, pid: int, camera: int, number: int) -> Shot:
    return Shot(pid, camera, number, (f"{LISTS[split][1]}/{image:06d}.jpg",), camid=camera)


def _plan(settings: Settings) -> Plan:
    drawn = numbered_visits(settings, settings.train_pids)
    train = [_shot("train", image, *shot) for image, shot in enumerate(drawn, start=1)]
    query: list[Shot] = []
    gallery: list[Shot] = []
    for image, pid in enumerate(settings.test_pids, start=len(train) + 1):
        first, second, *_ = visits(settings, pid)
        query.append(_shot("query", image, pid, first, 0))
        gallery.append(_shot("gallery", image + settings.num_test_ids, pid, second, 0))
    return Plan(tuple(train), tuple(query), tuple(gallery))


def _write_side_files(root: Path, settings: Settings, plan: Plan) -> None:
    for split, shots in (("train", plan.train), ("query", plan.query), ("gallery", plan.gallery)):
        lines = [f"{shot.paths[0].rpartition('/')[2]} {shot.pid} {shot.camid + 1}" for shot in shots]
        write_lines(root / LISTS[split][0], lines)


def _test_images(images_per_id: int, num_cameras: int) -> float:
    return 2


LAYOUT = SyntheticLayout(
    name="vric",
    subject="vehicle",
    size=(128, 128),
    plan=_plan,
    write_side_files=_write_side_files,
    test_images=_test_images,
)
