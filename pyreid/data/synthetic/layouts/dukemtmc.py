"""DukeMTMC-reID: everything is in the file names."""

from __future__ import annotations

from pyreid.data.sets.named_folders import FOLDERS
from pyreid.data.synthetic.plan import (
    Plan,
    Settings,
    Shot,
    SyntheticLayout,
    gallery_and_queries,
    plan_with_own_queries,
)


def _place(split: str, pid: int, camera: int, number: int) -> Shot:
    name = f"{pid:04d}_c{camera + 1}_f{40000 + number * 60:07d}.jpg"
    return Shot(pid, camera, number, (f"{FOLDERS[split]}/{name}",), camid=camera)


def _plan(settings: Settings) -> Plan:
    return plan_with_own_queries(settings, _place)


LAYOUT = SyntheticLayout(name="dukemtmc", subject="person", size=(128, 64), plan=_plan, test_images=gallery_and_queries)
