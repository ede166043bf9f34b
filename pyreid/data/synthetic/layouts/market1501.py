"""Market-1501: everything is in the file names."""

from __future__ import annotations

from pyreid.data.records import JUNK_PID
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
    identity = "-1" if pid == JUNK_PID else f"{pid:04d}"
    # The hand-drawn boxes of the queries have number 00, the detector's boxes others.
    box = 0 if split == "query" else 1
    name = f"{identity}_c{camera + 1}s1_{number * 25 + 1:06d}_{box:02d}.jpg"
    return Shot(pid, camera, number, (f"{FOLDERS[split]}/{name}",), camid=camera)


def _plan(settings: Settings) -> Plan:
    return plan_with_own_queries(settings, _place)


LAYOUT = SyntheticLayout(
    name="market1501",
    subject="person",
    size=(128, 64),
    plan=_plan,
    test_images=gallery_and_queries,
    has_background=True,
)
