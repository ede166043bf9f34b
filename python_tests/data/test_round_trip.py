"""Every layout: what the generator plans and writes is what the loader reads and the check accepts."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict
from pathlib import Path

import pytest
from PIL import Image

from pyreid.data import ReIDDataset, check_dataset, list_datasets, load_dataset, synthesize
from pyreid.data.layouts import count_facts, protocol_of
from pyreid.data.records import NO_CAMERA, NO_TRACK, ImageRecord
from pyreid.data.registry import get_layout
from pyreid.data.synthetic.plan import Settings, Shot
from pyreid.data.synthetic.registry import default_background, get_synthetic, list_synthetic, make_plan

SIZES = {"num_train_ids": 4, "num_test_ids": 3, "images_per_id": 7, "num_cameras": 4, "seed": 5}
TRACKED = {"mars", "veri776"}


def settings(name: str) -> Settings:
    distractors, junk = default_background(name, 3, 7)
    return Settings(layout=name, size=(32, 16), num_distractors=distractors, num_junk=junk, **SIZES)  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=list_datasets())
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, ReIDDataset]:
    root = tmp_path_factory.mktemp(request.param) / "set"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = synthesize(request.param, root, **SIZES, size=(32, 16), workers=1)
        assert load_dataset(request.param, root) == made
    return request.param, root, made


def test_every_data_set_can_be_generated() -> None:
    assert list_synthetic() == list_datasets()
    for name in list_datasets():
        subject = get_layout(name).subject
        assert get_synthetic(name).subject == ("person" if subject == "any" else subject)


def test_records_are_those_of_the_plan(written: tuple[str, Path, ReIDDataset]) -> None:
    name, root, made = written
    plan = make_plan(settings(name))
    pids: dict[tuple[bool, int], int] = {}
    cameras: dict[int, int] = {}

    def agree(shots: tuple[Shot, ...], records: tuple[ImageRecord, ...], *, split: str) -> None:
        # VeRi-776 stores a query twice: the copy of the split counts.
        at = {str(root / path): shot for shot in shots for path in shot.paths}
        assert {str(record.path) for record in records} <= set(at)
        assert len({record.path for record in records}) == len(records) == len(shots), split
        for record in records:
            shot = at[str(record.path)]
            assert pids.setdefault((split == "train", shot.pid), record.pid) == record.pid
            assert record.track == shot.track
            # Cameras may be numbered anew, but one stays one.
            assert (record.camid == NO_CAMERA) == (shot.camid == NO_CAMERA)
            assert cameras.setdefault(shot.camid, record.camid) == record.camid

    for split in ("train", "query", "gallery"):
        agree(getattr(plan, split), made.splits[split], split=split)
    assert len(set(cameras.values())) == len(cameras)
    for train in (True, False):
        own = [pid for (side, _), pid in pids.items() if side == train]
        assert len(set(own)) == len(own)


def test_manifest_states_what_is_there(written: tuple[str, Path, ReIDDataset]) -> None:
    name, root, made = written
    manifest = json.loads((root / "synthetic.json").read_text())
    listing = get_layout(name).scan(root)
    assert manifest["counts"] == asdict(count_facts(listing))
    assert manifest["counts"]["train_images"] == len(made.train) == 28
    assert manifest["counts"]["query_ids"] == 3
    for variant, counts in manifest.get("variants", {}).items():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            other = load_dataset(variant, root)
        assert counts["gallery_images"] == len(other.gallery)
        assert other.train == made.train
        assert {record.path for record in other.query} <= {record.path for record in made.query}


def test_check_finds_nothing(written: tuple[str, Path, ReIDDataset]) -> None:
    name, root, _ = written
    report = check_dataset(name, root, workers=1)
    assert (report.errors, report.warnings) == ([], [])


def test_a_file_that_is_missing_is_found(written: tuple[str, Path, ReIDDataset]) -> None:
    name, _, made = written
    victim = made.gallery[0].path
    if not victim.exists():
        pytest.fail("the test needs an image to take away")
    data = victim.read_bytes()
    victim.unlink()
    try:
        report = check_dataset(name, made.root, workers=1)
        found = [line for line in (*report.errors, *report.warnings) if victim.name in line or "counts differ" in line]
        assert found, "a half-copied set is not noticed"
    finally:
        victim.write_bytes(data)


def test_cameras_tracks_and_protocol(written: tuple[str, Path, ReIDDataset]) -> None:
    name, root, made = written
    assert made.has_tracks == (name in TRACKED)
    assert made.has_cameras == (not name.startswith("vehicleid"))
    layout = get_layout(name)
    assert made.protocol == layout.protocol == protocol_of(layout, layout.scan(root))
    assert made.shared_ids == set()
    if name in TRACKED:
        owners: dict[int, set[tuple[int, int]]] = {}
        for record in made.gallery:
            owners.setdefault(record.track, set()).add((record.pid, record.camid))
        assert NO_TRACK not in owners
        assert all(len(owner) == 1 for owner in owners.values())
        assert len(owners) < len(made.gallery), "a track has several images"


def test_images_have_the_form_of_the_layout(written: tuple[str, Path, ReIDDataset]) -> None:
    name, _, made = written
    expected = "PNG" if name.startswith("cuhk03") else "JPEG"
    for record in (*made.train[:2], *made.query[:2]):
        with Image.open(record.path) as image:
            assert (image.format, image.mode, image.size) == (expected, "RGB", (16, 32))


def test_smaller_test_sets_are_nested(tmp_path: Path) -> None:
    """The reported sizes below the one asked for hold their share of the test identities."""
    for name, variants in (
        ("vehicleid", {"vehicleid_800": 2, "vehicleid_1600": 4, "vehicleid_2400": 6, "vehicleid": 6}),
        ("veri_wild_large", {"veri_wild_small": 2, "veri_wild_medium": 3, "veri_wild_large": 6}),
    ):
        root = tmp_path / name
        synthesize(name, root, num_train_ids=2, num_test_ids=6, images_per_id=3, num_cameras=3, size=(16, 16))
        for variant, ids in variants.items():
            test = load_dataset(variant, root)
            assert len({record.pid for record in (*test.query, *test.gallery)}) == ids
    (root / "train_test_split" / "test_3000.txt").unlink()
    with pytest.raises(ValueError, match=r"test_3000\.txt: file not found"):
        load_dataset("veri_wild_small", root)


def test_cuhk03_identities_are_seen_by_one_pair_of_cameras() -> None:
    plan = make_plan(Settings("cuhk03_np_labeled", 6, 6, 5, 6, (32, 16), 0, 0, 0))
    for pid in range(1, 7):
        own = [shot for shot in plan.train if shot.pid == pid]
        drawn = sorted({shot.camera for shot in own})
        assert drawn == [drawn[0], drawn[0] + 1]
        assert drawn[0] % 2 == 0
        assert sorted(shot.camid for shot in own) == [0, 0, 0, 1, 1]
    assert len({shot.camera for shot in plan.train}) > 2
