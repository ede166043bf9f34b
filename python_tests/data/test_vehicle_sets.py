"""Hand-written trees with the oddities of VehicleID, VeRi-Wild, VRIC, and VeRi-776's tracks."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from pyreid.data import DatasetWarning, ReIDDataset, check_dataset, load_dataset
from pyreid.errors import DatasetError
from python_tests.data.layout_files import VERI, write_image, write_veri

pytestmark = pytest.mark.filterwarnings("ignore::pyreid.data.DatasetWarning")


def load(name: str, root: Path) -> ReIDDataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DatasetWarning)
        return load_dataset(name, root)


def errors(name: str, root: Path) -> str:
    return "\n".join(check_dataset(name, root, workers=1).errors)


def warned(name: str, root: Path) -> str:
    return "\n".join(check_dataset(name, root, workers=1).warnings)


def write_list(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def write_vehicleid(root: Path) -> Path:
    lists = root / "train_test_split"
    write_list(lists / "train_list.txt", "0000003 1", "0000001 1", "0000002 2")
    write_list(lists / "test_list_800.txt", "0000012 9", "0000011 9", "0000013 7", "0000010 9", "0000014 7")
    write_list(lists / "test_list_2400.txt", "0000012 9", "0000011 9", "0000013 7", "0000015 8", "0000016 8")
    for number in (1, 2, 3, 10, 11, 12, 13, 14, 15, 16):
        write_image(root / "image" / f"{number:07d}.jpg", seed=number)
    return root


@pytest.mark.parametrize("inner", ["", "VehicleID_V1.0"])
def test_vehicleid_lists_have_no_endings_and_the_first_image_is_the_gallery(tmp_path: Path, inner: str) -> None:
    write_vehicleid(tmp_path / inner)
    dataset = load("vehicleid_800", tmp_path)
    assert [(record.path.name, record.pid) for record in dataset.train] == [
        ("0000003.jpg", 1),
        ("0000001.jpg", 1),
        ("0000002.jpg", 2),
    ]
    assert [(record.path.stem, record.pid) for record in dataset.gallery] == [("0000012", 9), ("0000013", 7)]
    assert [record.path.stem for record in dataset.query] == ["0000011", "0000010", "0000014"]
    assert not dataset.has_cameras
    assert (dataset.protocol.function, dataset.protocol.repeats) == ("evaluate_random_gallery", 10)
    # The name without a number is the largest test set that papers report.
    assert {record.pid for record in load("vehicleid", tmp_path).gallery} == {9, 7, 8}


def test_vehicleid_test_lists_that_are_not_there(tmp_path: Path) -> None:
    write_vehicleid(tmp_path)
    with pytest.raises(DatasetError, match=r"test_list_1600\.txt: file not found"):
        load("vehicleid_1600", tmp_path)
    assert errors("vehicleid_800", tmp_path) == ""
    report = check_dataset("vehicleid_800", tmp_path, workers=1)
    assert "no cameras" in report.summary
    assert [count.cameras for count in report.counts] == [0, 0, 0]


def test_vehicleid_faults(tmp_path: Path) -> None:
    write_vehicleid(tmp_path)
    lists = tmp_path / "train_test_split"
    write_list(lists / "train_list.txt", "0000003 1", "0000001.jpg 1", "0000003 2", "0000099 2", "1,2", "0000002 x")
    found = errors("vehicleid_800", tmp_path)
    assert "train_list.txt:3: 0000003.jpg is listed already in line 1" in found
    assert "train_list.txt:4: " in found
    assert "0000099.jpg does not exist" in found
    assert "train_list.txt:5: '1,2' does not have the form '0042305 9' (image, identity)" in found
    assert "train_list.txt:6: '0000002 x' does not have the form" in found
    assert "train_list.txt:2" not in found, "an ending is no fault"


def test_vehicleid_identities_of_one_image_are_never_a_query(tmp_path: Path) -> None:
    write_vehicleid(tmp_path)
    lists = tmp_path / "train_test_split"
    write_list(lists / "test_list_800.txt", "0000012 9", "0000011 9", "0000013 7")
    assert "test: 1 identities have a single image and are never a query: 7" in warned("vehicleid_800", tmp_path)
    write_list(lists / "test_list_800.txt", "0000012 9", "0000013 7")
    found = errors("vehicleid_800", tmp_path)
    assert "no test identity has two images" in found
    write_list(lists / "test_list_800.txt", "0000010 2", "0000011 2")
    assert "1 identities are both in train and in query or gallery: 2" in errors("vehicleid_800", tmp_path)


def test_a_test_image_that_is_a_training_image(tmp_path: Path) -> None:
    write_vehicleid(tmp_path)
    write_list(tmp_path / "train_test_split" / "test_list_800.txt", "0000001 9", "0000011 9")
    assert "train and gallery share 1 file names" in errors("vehicleid_800", tmp_path)


def write_wild(root: Path) -> Path:
    lists = root / "train_test_split"
    write_list(
        lists / "vehicle_info.txt",
        "id/image;Camera ID;Time;Model;Type;Color",
        "00001/000001;174;2018-03-14 09:00:00;Audi;SUV;white",
        "00001/000002;2;2018-03-14 09:05:00;Audi;SUV;white",
        "30672/000003;2;2018-03-14 09:05:00;;;",
        "30672/000004;9;2018-03-14 09:05:00;;;",
        "30672/000005;174;2018-03-14 09:05:00;;;",
    )
    write_list(lists / "train_list.txt", "00001/000001", "00001/000002.jpg")
    write_list(lists / "test_3000.txt", "30672/000004", "30672/000005")
    write_list(lists / "test_3000_query.txt", "30672/000003")
    for name in ("00001/000001", "00001/000002", "30672/000003", "30672/000004", "30672/000005"):
        write_image(root / "images" / f"{name}.jpg")
    return root


@pytest.mark.parametrize("inner", ["", "VERI-Wild", "VeRI-Wild"])
def test_wild_cameras_come_from_the_list_of_all_images(tmp_path: Path, inner: str) -> None:
    write_wild(tmp_path / inner)
    dataset = load("veri_wild_small", tmp_path)
    # Cameras 2, 9 and 174 are numbered from 0, and keep their names.
    assert [(r.pid, r.camid) for r in dataset.train] == [(1, 2), (1, 0)]
    assert [(r.pid, r.camid) for r in dataset.query] == [(30672, 0)]
    assert [(r.pid, r.camid) for r in dataset.gallery] == [(30672, 1), (30672, 2)]
    assert dict(dataset.camera_names) == {0: "2", 1: "9", 2: "174"}
    assert "cameras as named on disk: 2, 9, 174" in check_dataset("veri_wild_small", tmp_path, workers=1).summary
    with pytest.raises(DatasetError, match=r"test_5000_query\.txt: file not found"):
        load("veri_wild_medium", tmp_path)


def test_wild_faults(tmp_path: Path) -> None:
    write_wild(tmp_path)
    lists = tmp_path / "train_test_split"
    (lists / "vehicle_info.txt").write_text("id/image;Camera ID\n00001/000001;174\n00001-000002;2\n30672/000003;2\n")
    found = errors("veri_wild_small", tmp_path)
    assert "vehicle_info.txt:3: '00001-000002;2' does not have the form" in found
    assert "vehicle_info.txt:1" not in found
    assert "train_list.txt:2: 00001/000002 has no camera in vehicle_info.txt" in found
    assert "test_3000.txt:1: 30672/000004 has no camera" in found
    (lists / "vehicle_info.txt").unlink()
    assert "vehicle_info.txt: file not found" in errors("veri_wild_small", tmp_path)


def write_vric(root: Path) -> Path:
    write_list(root / "vric_train.txt", "a_1.jpg 1 60", "a_2.jpg 1 3", "b_1.jpg 2 1")
    write_list(root / "vric_probe.txt", "p_1.jpg 1 5", "p_2.jpg 4 6")
    write_list(root / "vric_gallery.txt", "g_1.jpg 1 5", "g_2.jpg 4 7")
    for name in ("train_images/a_1", "train_images/a_2", "train_images/b_1", "probe_images/p_1", "probe_images/p_2"):
        write_image(root / f"{name}.jpg")
    for name in ("gallery_images/g_1", "gallery_images/g_2"):
        write_image(root / f"{name}.jpg")
    return root


@pytest.mark.parametrize("inner", ["", "VRIC"])
def test_vric_has_one_gallery_image_per_identity_and_no_filter(tmp_path: Path, inner: str) -> None:
    write_vric(tmp_path / inner)
    dataset = load("vric", tmp_path)
    assert [(r.pid, r.camid) for r in dataset.train] == [(1, 59), (1, 2), (2, 0)]
    assert [(r.pid, r.camid) for r in dataset.query] == [(1, 4), (4, 5)]
    assert [(r.pid, r.camid) for r in dataset.gallery] == [(1, 4), (4, 6)]
    assert not dataset.protocol.camera_filter
    # The right answer of the first query is of its own camera, and counts.
    assert errors("vric", tmp_path) == ""
    assert "no match" not in warned("vric", tmp_path)
    write_list(tmp_path / inner / "vric_gallery.txt", "g_2.jpg 4 7")
    assert "query: 1 queries have no match in the gallery and are skipped: p_1.jpg" in warned("vric", tmp_path)


def test_vric_cameras_may_count_from_zero(tmp_path: Path) -> None:
    write_vric(tmp_path)
    write_list(tmp_path / "vric_train.txt", "a_1.jpg 1 59", "a_2.jpg 1 0", "b_1.jpg 2 1")
    dataset = load("vric", tmp_path)
    assert [r.camid for r in dataset.train] == [59, 0, 1]
    assert [r.camid for r in dataset.query] == [5, 6]


def test_vric_faults(tmp_path: Path) -> None:
    write_vric(tmp_path)
    write_list(tmp_path / "vric_train.txt", "a_1.jpg 1 60", "a_2.jpg 1", "b_1.jpg 2 0", "c_1.jpg 2 1", "a_1.jpg 1 60")
    found = errors("vric", tmp_path)
    assert "vric_train.txt:2: 'a_2.jpg 1' does not have the form '000001.jpg 1 2' (name, identity, camera)" in found
    assert "vric_train.txt:3: " not in found
    assert "vric_train.txt:4: " in found
    assert "c_1.jpg does not exist" in found
    assert "vric_train.txt:5: a_1.jpg is listed already in line 1" in found
    assert "vric_train.txt: 1 images of the folder are not listed" in warned("vric", tmp_path)


TEST_IMAGES = (*VERI["image_test"], "0002_c020_00030645_0.jpg", "0005_c003_00000010_0.jpg")


def write_veri_tracks(root: Path, *lines: str) -> Path:
    write_veri(root)
    for name in TEST_IMAGES:
        write_image(root / "image_test" / name)
    write_list(root / "name_test.txt", *TEST_IMAGES)
    write_list(root / "test_track.txt", *lines)
    return root


def test_veri_tracks_with_and_without_names(tmp_path: Path) -> None:
    write_veri_tracks(
        tmp_path,
        "0002_c002_t00030600 0002_c002_00030600_0.jpg ",
        "0002_c020_00030640_1.jpg 0002_c020_00030645_0.jpg",  # a line without a name
        "0005_c003_t00000010 0005_c003_00000010_0.jpg ",
    )
    dataset = load("veri776", tmp_path)
    assert [record.track for record in dataset.gallery] == [0, 1, 1, 2]
    assert [record.track for record in dataset.query] == [0], "the query image is a gallery image"
    assert dataset.has_tracks
    assert [protocol.function for protocol in dataset.alternatives] == ["evaluate_tracks"]
    assert errors("veri776", tmp_path) == ""


def test_veri_without_tracks_has_none(tmp_path: Path) -> None:
    write_veri(tmp_path)
    assert not load("veri776", tmp_path).has_tracks


def test_veri_images_in_no_track_become_one_of_their_own(tmp_path: Path) -> None:
    write_veri_tracks(tmp_path, "t 0002_c020_00030640_1.jpg 0002_c020_00030645_0.jpg")
    dataset = load("veri776", tmp_path)
    assert [record.track for record in dataset.gallery] == [1, 0, 0, 2]
    assert "test_track.txt: 2 gallery images are in no track, each becomes one of its own" in warned(
        "veri776", tmp_path
    )


def test_veri_track_faults(tmp_path: Path) -> None:
    write_veri_tracks(
        tmp_path,
        "t1 0002_c002_00030600_0.jpg 0009_c002_00030600_0.jpg",
        "t2 0002_c020_00030640_1.jpg 0005_c003_00000010_0.jpg",
        "t3 0002_c020_00030640_1.jpg",
        "t4 0002_c020_00030645_0.jpg 0002_c020_00030645_0.jpg",
    )
    found = errors("veri776", tmp_path)
    assert "test_track.txt:1: 0009_c002_00030600_0.jpg is not in image_test" in found
    assert "test_track.txt:2: the track has images of 2 identities or cameras, expected one of each" in found
    assert "test_track.txt:3: 0002_c020_00030640_1.jpg is in a track already" in found
    assert "test_track.txt:4: an image is in a track already" in found
