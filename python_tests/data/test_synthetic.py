from __future__ import annotations

import hashlib
import itertools
import json
import re
import warnings
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from pyreid.data import ImageRecord, ReIDDataset, load_dataset, synthesize
from pyreid.data.synthetic import generator
from pyreid.data.synthetic.person_look import person_look
from pyreid.data.synthetic.plan import Settings
from pyreid.data.synthetic.registry import default_background, make_plan, sizes_for
from pyreid.data.synthetic.render import render_image, render_plain
from pyreid.data.synthetic.vehicle_look import vehicle_look
from pyreid.errors import DatasetError

LAYOUTS = ("market1501", "veri776")
SUBJECTS = ("person", "vehicle")
SMALL = {"num_train_ids": 5, "num_test_ids": 4, "images_per_id": 5, "num_cameras": 4, "size": (48, 24)}


def file_hashes(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def settings(**changes: object) -> Settings:
    values: dict = {
        "layout": "market1501",
        "num_train_ids": 20,
        "num_test_ids": 15,
        "images_per_id": 8,
        "num_cameras": 6,
        "size": (128, 64),
        "seed": 0,
        "num_distractors": 7,
        "num_junk": 5,
    }
    return Settings(**{**values, **changes})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_set_loads_without_a_warning_and_holds_what_was_asked_for(tmp_path: Path, layout: str) -> None:
    calls: list[tuple[int, int]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = synthesize(layout, tmp_path / "set", **SMALL, workers=1, progress=lambda *call: calls.append(call))
        assert load_dataset(layout, tmp_path / "set") == made
    assert len(made.train) == 25
    assert set(made.train_labels) == {1, 2, 3, 4, 5}
    assert {record.pid for record in made.query} == {6, 7, 8, 9}
    # One query per test identity and camera; every query has a match in another camera.
    assert len({(record.pid, record.camid) for record in made.query}) == len(made.query)
    for query in made.query:
        assert any(record.pid == query.pid and record.camid != query.camid for record in made.gallery)
    pids = [record.pid for record in made.gallery]
    expected_background = (3, 2) if layout == "market1501" else (0, 0)
    assert (pids.count(0), pids.count(-1)) == expected_background
    assert len([pid for pid in pids if pid > 0]) == 20
    for split in made.splits.values():
        for record in split:
            with Image.open(record.path) as image:
                assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (24, 48))
    total = len({record.path.name for split in made.splits.values() for record in split})
    assert calls[0] == (0, total)
    assert calls[-1] == (total, total)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bytes_do_not_depend_on_the_number_of_workers(tmp_path: Path, layout: str) -> None:
    sizes = {**SMALL, "num_train_ids": 40}
    for name, workers in (("one", 1), ("three", 3)):
        synthesize(layout, tmp_path / name, **sizes, seed=7, workers=workers)
    one = file_hashes(tmp_path / "one")
    assert one == file_hashes(tmp_path / "three")
    assert len(one) > 200
    synthesize(layout, tmp_path / "other", **sizes, seed=8)
    other = file_hashes(tmp_path / "other")
    shared = [name for name in one if name.endswith(".jpg") and name in other]
    assert shared
    assert not any(one[name] == other[name] for name in shared)


def test_pixels_do_not_depend_on_the_size_of_the_set(tmp_path: Path) -> None:
    synthesize("market1501", tmp_path / "few", **SMALL, workers=1)
    synthesize("market1501", tmp_path / "many", **{**SMALL, "num_train_ids": 9}, workers=1)
    few, many = file_hashes(tmp_path / "few"), file_hashes(tmp_path / "many")
    names = [name for name in few if name.startswith("bounding_box_train")]
    assert names
    assert all(few[name] == many[name] for name in names)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_images_of_one_identity_and_camera_differ(subject: str) -> None:
    shots = [
        np.asarray(render_image(subject, seed=0, pid=3, camera=1, number=number, size=(64, 32))[0], dtype=float)  # type: ignore[arg-type]
        for number in range(4)
    ]
    for first, second in itertools.combinations(shots, 2):
        assert np.abs(first - second).mean() > 4


def test_veri_queries_are_in_the_gallery_and_the_labels_agree_with_the_files(tmp_path: Path) -> None:
    made = synthesize("veri776", tmp_path / "set", **SMALL, workers=1)
    hashes = file_hashes(tmp_path / "set")
    for record in made.query:
        assert hashes[f"image_query/{record.path.name}"] == hashes[f"image_test/{record.path.name}"]
    for split, list_name in (("train", "name_train.txt"), ("query", "name_query.txt"), ("gallery", "name_test.txt")):
        listed = (tmp_path / "set" / list_name).read_text().split()
        assert listed == [record.path.name for record in made.splits[split]]
    for records, file_name, root_tag in (
        (made.train, "train_label.xml", "TrainingImages"),
        (made.gallery, "test_label.xml", "TestImages"),
    ):
        # Python's XML parser does not know gb2312; the declaration is the real set's.
        text = (tmp_path / "set" / file_name).read_text(encoding="gb2312")
        assert text.startswith('<?xml version="1.0" encoding="gb2312"?>')
        tree = ElementTree.fromstring(text.split("\n", 1)[1])
        assert tree.tag == root_tag
        items = list(tree.iter("Item"))
        assert int(tree.find("Items").attrib["number"]) == len(items) == len(records)  # type: ignore[union-attr]
        for item, record in zip(items, records, strict=True):
            assert item.attrib["imageName"] == record.path.name
            assert int(item.attrib["vehicleID"]) == record.pid
            assert item.attrib["cameraID"] == f"c{record.camid + 1:03d}"
            assert 1 <= int(item.attrib["colorID"]) <= 10
            assert 1 <= int(item.attrib["typeID"]) <= 9


@pytest.mark.parametrize("subject", SUBJECTS)
def test_the_drawing_decides_the_identity(subject: str) -> None:
    """Without a camera, any two identities differ in a visible number of pixels in at least one of two views."""
    views = [
        np.stack([
            np.asarray(render_plain(subject, seed=0, pid=pid, size=(128, 64), azimuth=azimuth), dtype=float)  # type: ignore[arg-type]
            for pid in range(1, 81)
        ])
        for azimuth in (0.6, 3.6)
    ]  # fmt: skip
    for first, second in itertools.combinations(range(80), 2):
        changed = max(int((np.abs(view[first] - view[second]).max(-1) > 40).sum()) for view in views)
        assert changed >= 20, f"{subject} {first + 1} and {second + 1} differ in {changed} of 8192 pixels"


def test_families_differ_in_one_small_part() -> None:
    for look in (person_look, vehicle_look):
        families = 0
        for block in range(40):
            first, *others = (look(0, block * 4 + member + 1) for member in range(4))
            differences = [
                {name for name in first.__dataclass_fields__ if getattr(first, name) != getattr(other, name)}
                for other in others
            ]
            if all(len(names) == 1 for names in differences):
                families += 1
                assert len(set.union(*differences)) == 1
            else:
                assert all(len(names) > 3 for names in differences)
        assert 10 <= families <= 30


def histogram(record: ImageRecord) -> np.ndarray:
    with Image.open(record.path) as image:
        pixels = np.asarray(image).reshape(-1, 3)
    counts, _ = np.histogramdd(pixels, bins=(8, 8, 8), range=((0, 256),) * 3)
    return np.sqrt(counts.ravel() / counts.sum())


def mean_average_precision(dataset: ReIDDataset, query: np.ndarray, gallery: np.ndarray) -> float:
    """Mean AP (step) by sorting, with the Market-1501 rule."""
    pids = np.array([record.pid for record in dataset.gallery])
    cameras = np.array([record.camid for record in dataset.gallery])
    precisions = []
    for record, row in zip(dataset.query, query @ gallery.T, strict=True):
        keep = (pids != -1) & ~((pids == record.pid) & (cameras == record.camid))
        hits = np.flatnonzero((pids[keep] == record.pid)[np.argsort(-row[keep], kind="stable")])
        assert len(hits)
        precisions.append(np.mean(np.arange(1, len(hits) + 1) / (hits + 1)))
    return float(np.mean(precisions))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_colour_histogram_fails(tmp_path: Path, layout: str) -> None:
    sizes = {"num_train_ids": 1, "num_test_ids": 40, "images_per_id": 8, "size": (128, 64)}
    made = synthesize(layout, tmp_path / "set", **sizes)
    query, gallery = (np.stack([histogram(record) for record in records]) for records in (made.query, made.gallery))
    assert mean_average_precision(made, query, gallery) < 0.2
    # The measure itself is able to see an identity.
    ids = np.eye(45)
    query, gallery = (ids[[max(r.pid, 0) for r in records]] for records in (made.query, made.gallery))
    assert mean_average_precision(made, query, gallery) == 1.0


def test_refuses_a_folder_that_is_not_empty(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(DatasetError, match=r"mine: the folder is not empty; .*--overwrite"):
        synthesize("market1501", tmp_path / "mine", **SMALL)
    with pytest.raises(DatasetError, match="is not a synthetic data set of pyreid"):
        synthesize("market1501", tmp_path / "mine", **SMALL, overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    with pytest.raises(DatasetError, match=r"thesis\.txt: exists and is not a folder"):
        synthesize("market1501", tmp_path / "mine" / "thesis.txt", **SMALL, overwrite=True)


def test_overwrite_replaces_the_whole_set(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "set"
    root.mkdir(parents=True)
    synthesize("market1501", root, **SMALL, workers=1)
    before = file_hashes(root)
    with pytest.raises(DatasetError, match="the folder is not empty"):
        synthesize("market1501", root, **SMALL, workers=1)
    assert file_hashes(root) == before
    synthesize("veri776", root, **SMALL, workers=1, overwrite=True)
    assert not (root / "query").exists()
    assert (root / "image_query").is_dir()
    assert [path.name for path in root.parent.iterdir()] == ["set"]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    def stop(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    monkeypatch.setattr(generator, "_CHUNK", 8)
    with pytest.raises(KeyboardInterrupt):
        synthesize("market1501", tmp_path / "set", **SMALL, workers=workers, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_overwrite_keeps_the_old_set(tmp_path: Path) -> None:
    synthesize("market1501", tmp_path / "set", **SMALL, workers=1)
    before = file_hashes(tmp_path / "set")

    def stop(done: int, total: int) -> None:
        if done:
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        synthesize("market1501", tmp_path / "set", **SMALL, seed=1, workers=1, overwrite=True, progress=stop)
    assert file_hashes(tmp_path / "set") == before
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_plan(layout: str) -> None:
    background = {"num_distractors": 0, "num_junk": 0} if layout == "veri776" else {}
    plan = make_plan(settings(layout=layout, **background))
    paths = [path for shot in plan.shots for path in shot.paths]
    assert len(set(paths)) == len(paths)
    assert len({(shot.pid, shot.camera, shot.number) for shot in plan.shots}) == len(plan.shots)
    for pid in range(1, 21):
        own = [shot for shot in plan.train if shot.pid == pid]
        assert len(own) == 8
        assert len({shot.camera for shot in own}) >= 3
    assert {shot.pid for shot in plan.query} == set(range(21, 36))


def test_manifest_states_settings_and_counts_and_nothing_of_the_run(tmp_path: Path) -> None:
    synthesize("market1501", tmp_path / "set", **SMALL, seed=3, workers=1)
    manifest = json.loads((tmp_path / "set" / "synthetic.json").read_text())
    assert manifest["settings"]["seed"] == 3
    assert manifest["counts"]["train_images"] == 25
    assert set(manifest) == {"generator", "generator_version", "settings", "counts"}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("images", [100, 300, 2000, 20_000, 100_000])
def test_sizes_for_comes_close(layout: str, images: int) -> None:
    train_ids, test_ids, per_id = sizes_for(images, layout=layout, num_cameras=6)
    distractors, junk = default_background(layout, test_ids, per_id)
    plan = make_plan(
        settings(
            layout=layout,
            num_train_ids=train_ids,
            num_test_ids=test_ids,
            images_per_id=per_id,
            num_distractors=distractors,
            num_junk=junk,
        )
    )
    assert abs(len(plan.shots) - images) <= max(0.05 * images, 15)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": "duke"}, "layout must be one of csv, .*, vric, got 'duke'"),
        ({"num_train_ids": 0}, "num_train_ids must be at least 1, got 0"),
        ({"num_test_ids": -1}, "num_test_ids must be at least 1, got -1"),
        ({"images_per_id": 1}, "images_per_id must be at least 2, got 1"),
        ({"num_cameras": 1}, "num_cameras must be at least 2, got 1"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"size": (8, 64)}, r"size must be a \(height, width\) between 16 and 2048"),
        ({"layout": "veri776", "num_junk": 1}, "veri776 has no distractors"),
        ({"workers": 0}, "workers must be at least 1, got 0"),
    ],
)
def test_bad_arguments_make_nothing(tmp_path: Path, changes: dict, message: str) -> None:
    arguments = {"layout": "market1501", **SMALL, **changes}
    with pytest.raises(ValueError, match=message) as caught:
        synthesize(arguments.pop("layout"), tmp_path / "set", **arguments)
    assert not re.search(r"\n", str(caught.value))
    assert list(tmp_path.iterdir()) == []


def test_sizes_for_too_few_images() -> None:
    with pytest.raises(ValueError, match="images must be at least 100, got 20"):
        sizes_for(20, layout="market1501", num_cameras=6)
