"""Tiny data sets in the real layouts, written by the tests."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

MARKET = {
    "bounding_box_train": (
        "0002_c1s1_000451_03.jpg",
        "0002_c2s1_000551_01.jpg",
        "0007_c3s3_077419_03.jpg",
        "0007_c6s3_077419_04.jpg",
    ),
    "query": ("0001_c1s1_001051_00.jpg", "0003_c4s6_015641_00.jpg"),
    "bounding_box_test": (
        "-1_c1s1_000401_03.jpg",
        "0000_c1s1_000151_01.jpg",
        "0001_c1s1_001051_01.jpg",
        "0001_c2s1_000301_02.jpg",
        "0003_c5s6_015716_02.jpg",
    ),
}
VERI = {
    "image_train": (
        "0001_c001_00016450_0.jpg",
        "0001_c012_00016460_0.jpg",
        "0004_c004_00085220_0.jpg",
        "0004_c005_00085225_0.jpg",
    ),
    "image_query": ("0002_c002_00030600_0.jpg",),
    "image_test": ("0002_c002_00030600_0.jpg", "0002_c020_00030640_1.jpg"),
}
VERI_LISTS = {"name_train.txt": "image_train", "name_query.txt": "image_query", "name_test.txt": "image_test"}


def write_image(path: Path, *, size: tuple[int, int] = (16, 8), seed: int = 0) -> None:
    """A JPEG of noise; ``size`` is (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "JPEG")


def write_folders(root: Path, folders: dict[str, Iterable[str]]) -> Path:
    for folder, names in folders.items():
        for number, name in enumerate(names):
            write_image(root / folder / name, seed=number)
    return root


def write_market(root: Path) -> Path:
    return write_folders(root, MARKET)


def write_veri(root: Path, *, lists: bool = True) -> Path:
    write_folders(root, VERI)
    if lists:
        for list_name, folder in VERI_LISTS.items():
            (root / list_name).write_text("".join(f"{name}\r\n" for name in VERI[folder]))
    return root
