"""Users' own images: a folder per identity and CSV files, with and without cameras and splits."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyreid.data import DatasetWarning, ReIDDataset, check_dataset, load_dataset
from pyreid.data.records import NO_CAMERA
from pyreid.data.sets.own_data import OwnImage, number_names, split_in_halves
from pyreid.errors import DatasetError
from python_tests.data.layout_files import write_image

pytestmark = pytest.mark.filterwarnings("ignore::pyreid.data.DatasetWarning")


def load(name: str, root: Path) -> ReIDDataset:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_dataset(name, root)


def errors(name: str, root: Path) -> str:
    return "\n".join(check_dataset(name, root, workers=1).errors)


def write(root: Path, *paths: str) -> Path:
    for number, path in enumerate(paths):
        write_image(root / path, seed=number)
    return root


def test_folders_without_cameras_have_no_filter(tmp_path: Path) -> None:
    write(tmp_path, "train/anna/a.jpg", "train/anna/b.PNG", "train/bob/a.jpg", "query/carl/1.jpg", "gallery/carl/2.jpg")
    write(tmp_path, "gallery/dora/1.jpg")
    dataset = load("folders", tmp_path)
    assert [(r.pid, r.camid) for r in dataset.train] == [(1, NO_CAMERA), (1, NO_CAMERA), (2, NO_CAMERA)]
    assert [r.pid for r in dataset.query] == [3]
    assert [r.pid for r in dataset.gallery] == [3, 4]
    assert dict(dataset.id_names) == {1: "anna", 2: "bob", 3: "carl", 4: "dora"}
    assert not dataset.has_cameras
    assert not dataset.protocol.camera_filter
    report = check_dataset("folders", tmp_path, workers=1)
    assert report.errors == []
    # One name in the folders of several identities is nothing to worry about.
    assert report.warnings == ["train: 1 identities have a single image, which batches repeat: bob"]


def test_folders_with_cameras(tmp_path: Path) -> None:
    write(tmp_path, "train/7/hall/a.jpg", "train/7/door/a.jpg", "train/12/hall/a.jpg", "train/12/door/x.jpg")
    write(tmp_path, "query/030/hall/1.jpg", "gallery/030/door/2.jpg", "gallery/030/hall/3.jpg")
    dataset = load("folders", tmp_path)
    # Whole numbers stay what they are; cameras are numbered by their names' length, then alphabetically.
    assert {record.pid for record in dataset.train} == {7, 12}
    assert [(r.pid, r.camid) for r in dataset.query] == [(30, 1)]
    assert [(r.pid, r.camid) for r in dataset.gallery] == [(30, 0), (30, 1)]
    assert dict(dataset.camera_names) == {0: "door", 1: "hall"}
    assert dataset.protocol.camera_filter
    assert errors("folders", tmp_path) == ""
    (tmp_path / "gallery" / "030" / "door" / "2.jpg").unlink()
    assert "no query has an image of its identity in another camera" in errors("folders", tmp_path)


def test_folders_without_splits(tmp_path: Path) -> None:
    write(tmp_path, *(f"{name}/{number}.jpg" for name in ("anna", "bob", "carl", "dora") for number in range(3)))
    with pytest.warns(DatasetWarning, match=r"no splits are given; every second identity is for testing \(2\)"):
        dataset = load_dataset("folders", tmp_path)
    assert {dataset.id_names[r.pid] for r in dataset.train} == {"anna", "carl"}
    assert [(dataset.id_names[r.pid], r.path.name) for r in dataset.query] == [("bob", "0.jpg"), ("dora", "0.jpg")]
    assert len(dataset.gallery) == 4


def test_folder_faults(tmp_path: Path) -> None:
    write(tmp_path, "train/anna/a.jpg", "train/anna/hall/b.jpg", "query/carl/1.jpg", "query/loose.jpg")
    write(tmp_path, "train/bob/x/y/z.jpg")
    (tmp_path / "train" / "anna" / "notes.txt").write_text("x")
    found = errors("folders", tmp_path)
    assert "query: holds 1 images outside of an identity's folder, such as loose.jpg" in found
    assert "gallery: folder not found" in found
    assert "has no camera, but other images have one" in found
    assert "train/bob/x: holds a folder, y, where images are expected" in found
    assert "anna: 1 files that are no images are ignored" in "\n".join(
        check_dataset("folders", tmp_path, workers=1).warnings
    )
    (tmp_path / "empty").mkdir()
    assert "empty: holds no folder of an identity" in errors("folders", tmp_path / "empty")


def write_csv(root: Path, text: str, name: str = "dataset.csv") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)
    return root / name


def test_csv_with_everything(tmp_path: Path) -> None:
    write(tmp_path, "images/1.jpg", "images/2, left.jpg", "q.jpg", "g.jpg")
    outside = tmp_path.parent / f"{tmp_path.name}_outside.jpg"
    write_image(outside)
    write_csv(
        tmp_path,
        "\ufeffID,Path,Split,Camera\n"
        'anna,images/1.jpg,train,hall\n\n"anna","images/2, left.jpg",TRAIN,door\n'
        f"carl,q.jpg,query,hall\ncarl,g.jpg,gallery,door\nbob,{outside},train,hall\n",
    )
    dataset = load("csv", tmp_path)
    assert [(dataset.id_names[r.pid], r.path.name, dataset.camera_names[r.camid]) for r in dataset.train] == [
        ("anna", "1.jpg", "hall"),
        ("anna", "2, left.jpg", "door"),
        ("bob", outside.name, "hall"),
    ]
    assert dataset.protocol.camera_filter
    assert load("csv", tmp_path / "dataset.csv") == dataset
    assert errors("csv", tmp_path / "dataset.csv") == ""


def test_csv_with_path_and_id_only(tmp_path: Path) -> None:
    paths = [f"{identity}_{number}.jpg" for identity in range(4) for number in range(3)]
    write(tmp_path, *paths)
    path = write_csv(tmp_path, "path,id\n" + "".join(f"{path},{path[0]}\n" for path in paths), name="mine.csv")
    with pytest.warns(DatasetWarning, match="every second identity is for testing"):
        dataset = load_dataset("csv", path)
    assert {record.pid for record in dataset.train} == {0, 2}, "whole numbers stay, 0 as well"
    assert [record.path.name for record in dataset.query] == ["1_0.jpg", "3_0.jpg"]
    assert not dataset.has_cameras
    with pytest.raises(DatasetError, match=r"dataset\.csv: file not found; put one there, or give"):
        load_dataset("csv", tmp_path)
    with pytest.raises(DatasetError, match="nowhere: file or folder not found, expected the CSV file data set"):
        load_dataset("csv", tmp_path / "nowhere")
    with pytest.raises(DatasetError, match=r"mine\.csv: folder not found"):
        load_dataset("folders", path)


def test_csv_faults_name_file_and_line(tmp_path: Path) -> None:
    write(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    write_csv(
        tmp_path,
        "path,id,camera,split\n"
        "1.jpg,anna,hall,train\n"
        "1.jpg,anna,hall,train\n"
        "9.jpg,anna,hall,train\n"
        "2.jpg,anna,hall,test\n"
        ",anna,hall,train\n"
        "2.jpg,,hall,train\n"
        "2.jpg,anna\n"
        "2.jpg,anna,,train\n"
        "3.jpg,anna,hall,\n",
    )
    found = errors("csv", tmp_path)
    assert "dataset.csv:3: 1.jpg is listed already in line 2" in found
    assert f"dataset.csv:4: {tmp_path / '9.jpg'} does not exist" in found
    assert "dataset.csv:5: split is 'test', expected train, query or gallery" in found
    assert "dataset.csv:6: path is empty" in found
    assert "dataset.csv: 1 more lines have faults as the last one" not in found
    assert "dataset.csv:7: id is empty" in found
    assert "dataset.csv:8: has 2 values, expected 4" in found
    assert "2.jpg: has no camera, but other images have one" in found
    assert "3.jpg: has no split, but other images have one" in found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"dataset\.csv:1: the heading is '', expected path,id"),
        ("path,identity\n1.jpg,1\n", r"dataset\.csv:1: the heading is 'path,identity', expected path,id"),
        ("path,id,id\n", r"dataset\.csv:1: the heading is 'path,id,id'"),
        ("path,id,colour\n", r"dataset\.csv:1: the heading is 'path,id,colour'"),
        ("path,id\n", r"dataset\.csv: the list is empty"),
    ],
)
def test_csv_headings(tmp_path: Path, text: str, message: str) -> None:
    write_csv(tmp_path, text)
    with pytest.raises(DatasetError, match=message):
        load_dataset("csv", tmp_path)


@given(st.lists(st.text("0123456789ab", min_size=1, max_size=3), min_size=1, max_size=12))
def test_numbers_of_names_are_one_to_one(names: list[str]) -> None:
    numbers = number_names(names)
    assert set(numbers) == set(names)
    assert len(set(numbers.values())) == len(numbers)
    if all(name.isdigit() for name in names) and len({int(name) for name in names}) == len(set(names)):
        assert all(numbers[name] == int(name) for name in names)
    else:
        assert sorted(numbers.values()) == list(range(1, len(numbers) + 1))


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2)), min_size=1, max_size=40))
def test_halves_are_disjoint_and_each_camera_of_a_test_identity_has_one_query(pairs: list[tuple[int, int]]) -> None:
    images = [OwnImage(path=Path(str(n)), identity=str(i), camera=str(c)) for n, (i, c) in enumerate(pairs)]
    done = split_in_halves(images)
    assert [image.path for image in done] == [image.path for image in images]
    train = {image.identity for image in done if image.split == "train"}
    test = {image.identity for image in done if image.split != "train"}
    assert not train & test
    assert 0 <= len(train) - len(test) <= 1
    queries = [(image.identity, image.camera) for image in done if image.split == "query"]
    assert len(set(queries)) == len(queries)
    for identity in test:
        own = [image for image in done if image.identity == identity]
        cameras = {image.camera for image in own}
        asked = [image.camera for image in own if image.split == "query"]
        if len(cameras) < len(own):
            assert set(asked) == cameras
        else:  # one image in each camera: the others are what the query is to find
            assert asked == [own[0].camera]


def test_one_image_in_each_camera_leaves_a_gallery(tmp_path: Path) -> None:
    rows = [f"{i}{c}.jpg,{i},{c}" for i in "ab" for c in "xyz"]
    for row in rows:
        write_image(tmp_path / row.partition(",")[0])
    path = write_csv(tmp_path, "\n".join(["path,id,camera", *rows]) + "\n")
    with pytest.warns(DatasetWarning, match="where no camera has a second one, the first image alone"):
        dataset = load_dataset("csv", path)
    assert [record.path.name for record in dataset.query] == ["bx.jpg"]
    assert [record.path.name for record in dataset.gallery] == ["by.jpg", "bz.jpg"]
