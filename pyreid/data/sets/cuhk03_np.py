"""CUHK03 with 767 training and 700 test identities (Zhong et al., CVPR 2017; made of CUHK03 by Li et al., CVPR 2014).

::

    CUHK03-NP/
      labeled/                                       boxes drawn by hand
        bounding_box_train/0001_c1_1.png             identity, camera of the identity's pair, image
        query/0003_c1_22.png
        bounding_box_test/0003_c2_27.png
      detected/                                      the same folders, boxes of a detector

Each identity was seen by one of five pairs of cameras; cameras 1 and 2 are those of its own pair.
"""

from __future__ import annotations

import re
from pathlib import Path

from pyreid.data.layouts import DatasetFacts, Layout, Listing, tree_of
from pyreid.data.protocol import Protocol
from pyreid.data.scan import find_root
from pyreid.data.sets.named_folders import FOLDERS, scan_named_folders

_PATTERN = re.compile(r"(?P<pid>\d+)_c(?P<camera>\d+)_\d+\.(png|jpg)", re.IGNORECASE)
_PARENTS = ("CUHK03-NP", "cuhk03-np", "CUHK03_NP", "cuhk03_np")


def _scan(root: Path, boxes: str) -> Listing:
    inner = (boxes, *(f"{parent}/{boxes}" for parent in _PARENTS))
    return scan_named_folders(
        find_root(root, marker=FOLDERS["train"], inner=inner),
        pattern=_PATTERN,
        expected="0001_c1_1.png (identity, camera, image)",
        suffixes=(".png", ".jpg"),
    )


def _scan_labeled(root: Path) -> Listing:
    return _scan(root, "labeled")


def _scan_detected(root: Path) -> Listing:
    return _scan(root, "detected")


_SOURCE = "Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017"
_PROTOCOL = Protocol(ap="trapezoid", no_match="zero", preset="cuhk03-np-official")

LABELED = Layout(
    name="cuhk03_np_labeled",
    title="CUHK03-NP (labelled)",
    subject="person",
    source=_SOURCE,
    tree=tree_of(__doc__),
    scan=_scan_labeled,
    facts=DatasetFacts(
        train_images=7368, train_ids=767, query_images=1400, query_ids=700, gallery_images=5328, cameras=2
    ),
    protocol=_PROTOCOL,
    unique_names=True,
)
DETECTED = Layout(
    name="cuhk03_np_detected",
    title="CUHK03-NP (detected)",
    subject="person",
    source=_SOURCE,
    tree=tree_of(__doc__),
    scan=_scan_detected,
    facts=DatasetFacts(
        train_images=7365, train_ids=767, query_images=1400, query_ids=700, gallery_images=5332, cameras=2
    ),
    protocol=_PROTOCOL,
    unique_names=True,
)
