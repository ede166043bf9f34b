"""The layouts that can be generated, and how large a data set of each shall be."""

from __future__ import annotations

import math

from pyreid.data.synthetic.layouts import (
    cuhk03_np,
    dukemtmc,
    market1501,
    mars,
    msmt17,
    own_data,
    vehicleid,
    veri776,
    veri_wild,
    vric,
)
from pyreid.data.synthetic.plan import Plan, Settings, SyntheticLayout

_LAYOUTS = {
    layout.name: layout
    for layout in (
        market1501.LAYOUT,
        dukemtmc.LAYOUT,
        *cuhk03_np.LAYOUTS,
        msmt17.LAYOUT,
        mars.LAYOUT,
        veri776.LAYOUT,
        *vehicleid.LAYOUTS,
        *veri_wild.LAYOUTS,
        vric.LAYOUT,
        own_data.FOLDERS,
        own_data.CSV,
    )
}
_DISTRACTORS_PER_IMAGE = 0.15
_JUNK_PER_IMAGE = 0.1


def list_synthetic() -> list[str]:
    """Names of the layouts that can be generated, sorted."""
    return sorted(_LAYOUTS)


def get_synthetic(name: str) -> SyntheticLayout:
    """The layout called ``name``.

    Raises:
        ValueError: there is none; the message lists the names.
    """
    if name not in _LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(list_synthetic())}, got {name!r}")
    return _LAYOUTS[name]


def make_plan(settings: Settings) -> Plan:
    """List all images of a data set.

    Raises:
        ValueError: there is no such layout, or it has no distractors and no junk images where some are asked for.
    """
    layout = get_synthetic(settings.layout)
    if not layout.has_background and (settings.num_distractors or settings.num_junk):
        raise ValueError(f"{layout.name} has no distractors and no junk images; num_distractors and num_junk must be 0")
    return layout.plan(settings)


def default_background(layout: str, num_test_ids: int, images_per_id: int) -> tuple[int, int]:
    """Numbers of distractors and of junk images where none are asked for."""
    if not get_synthetic(layout).has_background:
        return 0, 0
    images = max(0, num_test_ids) * max(0, images_per_id)
    return math.ceil(images * _DISTRACTORS_PER_IMAGE), math.ceil(images * _JUNK_PER_IMAGE)


def sizes_for(images: int, *, layout: str, num_cameras: int) -> tuple[int, int, int]:
    """Training identities, test identities and images per identity of a data set of about ``images`` images.

    Raises:
        ValueError: fewer than 100 images are asked for, or there is no such layout.
    """
    chosen = get_synthetic(layout)
    if images < 100:
        raise ValueError(f"images must be at least 100, got {images}")
    per_id = max(6, min(20, round(math.sqrt(images / 4))))
    extra = (_DISTRACTORS_PER_IMAGE + _JUNK_PER_IMAGE) * per_id if chosen.has_background else 0.0
    ids = max(2, round(images / (per_id + chosen.test_images(per_id, num_cameras) + extra)))
    return ids, ids, per_id
