"""CUHK03-NP: PNG files; an identity is seen by one pair of cameras, which are called 1 and 2 in every pair."""

from __future__ import annotations

from functools import partial

from pyreid.data.sets.named_folders import FOLDERS
from pyreid.data.synthetic.chance import stream
from pyreid.data.synthetic.plan import (
    Plan,
    Settings,
    Shot,
    SyntheticLayout,
    plan_with_own_queries,
)


def _visits(settings: Settings, pid: int) -> dict[int, int]:
    """Half of the images from each camera of a pair; an odd number of cameras leaves one without a pair."""
    pair = int(stream(settings.seed, "pair", pid).integers(settings.num_cameras // 2))
    first = (settings.images_per_id + 1) // 2
    return {2 * pair: first, 2 * pair + 1: settings.images_per_id - first}


def _plan(settings: Settings, boxes: str) -> Plan:
    def place(split: str, pid: int, camera: int, number: int) -> Shot:
        # The images of an identity are counted through both cameras.
        name = f"{pid:04d}_c{camera % 2 + 1}_{2 * number + camera % 2 + 1}.png"
        return Shot(pid, camera, number, (f"{boxes}/{FOLDERS[split]}/{name}",), camid=camera % 2)

    return plan_with_own_queries(settings, place, _visits)


def _test_images(images_per_id: int, num_cameras: int) -> float:
    return images_per_id + 2


LAYOUTS = tuple(
    SyntheticLayout(
        name=f"cuhk03_np_{boxes}",
        subject="person",
        size=(128, 64),
        plan=partial(_plan, boxes=boxes),
        test_images=_test_images,
    )
    for boxes in ("labeled", "detected")
)
