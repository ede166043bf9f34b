"""Users' own data: a folder per identity with one per camera inside, and a CSV file."""

from __future__ import annotations

from pathlib import Path

from pyreid.data.sets.csv_file import FILE_NAME
from pyreid.data.synthetic.plan import (
    Plan,
    Settings,
    Shot,
    SyntheticLayout,
    gallery_and_queries,
    plan_with_own_queries,
    write_lines,
)


def _place_in_folders(split: str, pid: int, camera: int, number: int) -> Shot:
    path = f"{split}/person_{pid:04d}/camera_{camera + 1:02d}/{number:04d}.jpg"
    return Shot(pid, camera, number, (path,), camid=camera)


def _place_in_one_folder(split: str, pid: int, camera: int, number: int) -> Shot:
    return Shot(pid, camera, number, (f"images/person_{pid:04d}_{camera + 1:02d}_{number:04d}.jpg",), camid=camera)


def _plan_folders(settings: Settings) -> Plan:
    return plan_with_own_queries(settings, _place_in_folders)


def _plan_csv(settings: Settings) -> Plan:
    return plan_with_own_queries(settings, _place_in_one_folder)


def _write_csv(root: Path, settings: Settings, plan: Plan) -> None:
    lines = ["path,id,camera,split"]
    for split, shots in (("train", plan.train), ("query", plan.query), ("gallery", plan.gallery)):
        lines += [f"{shot.paths[0]},person_{shot.pid:04d},camera_{shot.camid + 1:02d},{split}" for shot in shots]
    write_lines(root / FILE_NAME, lines)


FOLDERS = SyntheticLayout(
    name="folders", subject="person", size=(128, 64), plan=_plan_folders, test_images=gallery_and_queries
)
CSV = SyntheticLayout(
    name="csv",
    subject="person",
    size=(128, 64),
    plan=_plan_csv,
    write_side_files=_write_csv,
    test_images=gallery_and_queries,
)
