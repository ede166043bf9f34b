"""MSMT17, first release: a folder per identity, four lists, identities from 0 in training and in testing."""

from __future__ import annotations

from pathlib import Path

from pyreid.data.sets.msmt17 import LISTS, VERSIONS
from pyreid.data.synthetic.plan import (
    Plan,
    Settings,
    Shot,
    SyntheticLayout,
    gallery_and_queries,
    plan_with_own_queries,
    write_lines,
)

_VALIDATION = 10  # every tenth training image


def _plan(settings: Settings) -> Plan:
    train, test = VERSIONS["MSMT17_V1"]

    def place(split: str, pid: int, camera: int, number: int) -> Shot:
        own = pid - 1 if split == "train" else pid - settings.test_pids.start
        # The image number counts through all cameras of an identity.
        image = number * settings.num_cameras + camera
        name = f"{own:04d}_{image:03d}_{camera + 1:02d}_0303morning_{number * 7:04d}_0.jpg"
        return Shot(pid, camera, number, (f"{train if split == 'train' else test}/{own:04d}/{name}",), camid=camera)

    return plan_with_own_queries(settings, place)


def _write_side_files(root: Path, settings: Settings, plan: Plan) -> None:
    splits = {
        "train": [shot for number, shot in enumerate(plan.train) if number % _VALIDATION != _VALIDATION - 1],
        "val": [shot for number, shot in enumerate(plan.train) if number % _VALIDATION == _VALIDATION - 1],
        "query": plan.query,
        "gallery": plan.gallery,
    }
    for split, shots in splits.items():
        below = [shot.paths[0].split("/", 1)[1] for shot in shots]
        write_lines(root / LISTS[split][1], [f"{path} {int(path.split('/')[0])}" for path in below])


LAYOUT = SyntheticLayout(
    name="msmt17",
    subject="person",
    size=(128, 64),
    plan=_plan,
    write_side_files=_write_side_files,
    test_images=gallery_and_queries,
)
