"""The files beside the images: VeRi-776's name lists and labels, and the manifest of a synthetic data set."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from xml.sax.saxutils import quoteattr

from pyreid.data import veri776
from pyreid.data.layouts import MANIFEST_NAME
from pyreid.data.synthetic.plan import Plan, Settings, Shot
from pyreid.data.synthetic.vehicle_look import BODY_TYPES, PAINT_NAMES, vehicle_look

_GENERATOR_VERSION = 1


def _name_in(shot: Shot, folder: str) -> str:
    return next(path.split("/")[1] for path in shot.paths if path.startswith(f"{folder}/"))


def _label_file(kind: str, names: list[str], shots: tuple[Shot, ...], seed: int) -> str:
    looks = {pid: vehicle_look(seed, pid) for pid in sorted({shot.pid for shot in shots})}
    lines = ['<?xml version="1.0" encoding="gb2312"?>', f'<{kind} Version="1.0">', f'  <Items number="{len(shots)}">']
    for name, shot in zip(names, shots, strict=True):
        look = looks[shot.pid]
        lines.append(
            f'    <Item imageName={quoteattr(name)} vehicleID="{shot.pid:04d}" cameraID="c{shot.camera + 1:03d}" '
            f'colorID="{look.paint + 1}" typeID="{BODY_TYPES.index(look.body) + 1}" />'
        )
    return "\n".join([*lines, "  </Items>", f"</{kind}>", ""])


def _write_veri(root: Path, plan: Plan, seed: int) -> None:
    names: dict[str, list[str]] = {}
    for split, shots in (("train", plan.train), ("query", plan.query), ("gallery", plan.gallery)):
        names[split] = [_name_in(shot, veri776.FOLDERS[split]) for shot in shots]
        text = "".join(f"{name}\n" for name in names[split])
        (root / veri776.NAME_LISTS[split]).write_text(text, encoding="utf-8")
    for file_name, kind, split, shots in (
        ("train_label.xml", "TrainingImages", "train", plan.train),
        ("test_label.xml", "TestImages", "gallery", plan.gallery),
    ):
        (root / file_name).write_text(_label_file(kind, names[split], shots, seed), encoding="gb2312")
    for file_name, classes in (("list_color.txt", PAINT_NAMES), ("list_type.txt", BODY_TYPES)):
        text = "".join(f"{number} {name}\n" for number, name in enumerate(classes, start=1))
        (root / file_name).write_text(text, encoding="utf-8")


def write_side_files(root: Path, settings: Settings, plan: Plan) -> None:
    """Write everything that is not an image; nothing in it depends on when or how the images were made."""
    if settings.layout == "veri776":
        _write_veri(root, plan, settings.seed)
    manifest = {
        "generator": "pyreid",
        "generator_version": _GENERATOR_VERSION,
        "settings": asdict(settings),
        "counts": asdict(plan.facts),
    }
    (root / MANIFEST_NAME).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
