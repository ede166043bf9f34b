"""Market-1501 as it comes out of its archive (Zheng et al., Scalable Person Re-identification, ICCV 2015).

::

    Market-1501-v15.09.15/
      bounding_box_train/0002_c1s1_000451_03.jpg     identity, camera, sequence, frame, box
      query/0001_c1s1_001051_00.jpg
      bounding_box_test/0001_c2s1_000301_02.jpg      identity -1: junk; 0000: a distractor

Identity -1 is a bad detection, which evaluation removes; identity 0 is nobody's and stays in the gallery.
"""

from __future__ import annotations

import re
from pathlib import Path

from pyreid.data.layouts import DatasetFacts, Layout, Listing, tree_of
from pyreid.data.protocol import Protocol
from pyreid.data.records import DISTRACTOR_PID, JUNK_PID
from pyreid.data.scan import find_root
from pyreid.data.sets.named_folders import FOLDERS, scan_named_folders

# A few files of the real archive end in ".jpg.jpg".
_PATTERN = re.compile(r"(?P<pid>-1|\d+)_c(?P<camera>\d+)s\d+_\d+_\d+(\.jpg)+", re.IGNORECASE)


def _scan(root: Path) -> Listing:
    return scan_named_folders(
        find_root(root, marker=FOLDERS["train"], inner=("Market-1501-v15.09.15", "Market-1501", "market1501")),
        pattern=_PATTERN,
        expected="0002_c1s1_000451_03.jpg (identity, camera, sequence, frame, box)",
        nobody=(JUNK_PID, DISTRACTOR_PID),
    )


LAYOUT = Layout(
    name="market1501",
    title="Market-1501",
    subject="person",
    source="Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015",
    tree=tree_of(__doc__),
    scan=_scan,
    facts=DatasetFacts(
        train_images=12936, train_ids=751, query_images=3368, query_ids=750, gallery_images=19732, cameras=6
    ),
    protocol=Protocol(ap="trapezoid", no_match="zero", preset="market1501-official"),
    distractor_pid=DISTRACTOR_PID,
    junk_pid=JUNK_PID,
    unique_names=True,
)
