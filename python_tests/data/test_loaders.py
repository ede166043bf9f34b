from __future__ import annotations

import json
import warnings
from dataclasses import asdict
from pathlib import Path

import pytest

from pyreid.data import DatasetWarning, ReIDDataset, list_datasets, load_dataset
from pyreid.data.layouts import count_facts
from pyreid.data.registry import get_layout, list_layouts
from pyreid.errors import DatasetError
from python_tests.data.layout_files import write_image, write_market, write_veri


def load(name: str, root: Path) -> ReIDDataset:
    """Load one of the tiny sets, whose counts differ from the published ones."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DatasetWarning)
        return load_dataset(name, root)


def ids_and_cameras(records: tuple) -> list[tuple[int, int]]:
    return [(record.pid, record.camid) for record in records]


def test_list_datasets() -> None:
    assert list_datasets() == sorted(layout.name for layout in list_layouts())
    assert {"market1501", "dukemtmc", "veri776", "csv", "folders"} < set(list_datasets())


def test_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'market', expected one of csv, .*, market1501, "):
        load_dataset("market", tmp_path)


@pytest.mark.parametrize("inner", ["", "Market-1501-v15.09.15"])
def test_market_keeps_junk_and_distractors_in_the_gallery(tmp_path: Path, inner: str) -> None:
    write_market(tmp_path / inner)
    dataset = load("market1501", tmp_path)
    assert dataset.root == tmp_path / inner
    assert ids_and_cameras(dataset.train) == [(2, 0), (2, 1), (7, 2), (7, 5)]
    assert ids_and_cameras(dataset.query) == [(1, 0), (3, 3)]
    assert ids_and_cameras(dataset.gallery) == [(-1, 0), (0, 0), (1, 0), (1, 1), (3, 4)]
    assert dataset.train_labels == {2: 0, 7: 1}
    assert dataset.num_train_ids == 2
    assert all(record.path.is_file() for split in dataset.splits.values() for record in split)


def test_market_ignores_thumbs_and_reads_doubled_endings(tmp_path: Path) -> None:
    write_market(tmp_path)
    (tmp_path / "bounding_box_test" / "Thumbs.db").write_bytes(b"x")
    write_image(tmp_path / "bounding_box_test" / "0009_c2s1_000301_02.jpg.jpg")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset = load_dataset("market1501", tmp_path)
    assert (9, 1) in ids_and_cameras(dataset.gallery)
    assert not [warning for warning in caught if "ignored" in str(warning.message)]


@pytest.mark.filterwarnings("ignore:.*counts differ")
def test_market_train_leaves_junk_out(tmp_path: Path) -> None:
    write_market(tmp_path)
    write_image(tmp_path / "bounding_box_train" / "-1_c1s1_000001_01.jpg")
    write_image(tmp_path / "bounding_box_train" / "0000_c1s1_000001_01.jpg")
    with pytest.warns(DatasetWarning, match=r"bounding_box_train: 2 images of identity -1 or 0 are left out"):
        dataset = load_dataset("market1501", tmp_path)
    assert set(dataset.train_labels) == {2, 7}


def test_market_query_of_nobody_is_an_error(tmp_path: Path) -> None:
    write_market(tmp_path)
    write_image(tmp_path / "query" / "0000_c1s1_000001_00.jpg")
    with pytest.raises(DatasetError, match=r"0000_c1s1_000001_00\.jpg: a query has identity 0"):
        load_dataset("market1501", tmp_path)


@pytest.mark.parametrize("bad", ["0002c1s1_000451_03.jpg", "abcd_c1s1_000451_03.jpg", "0002_c0s1_000451_03.jpg"])
def test_market_bad_name_names_the_file(tmp_path: Path, bad: str) -> None:
    write_market(tmp_path)
    write_image(tmp_path / "query" / bad)
    with pytest.raises(DatasetError, match=bad) as caught:
        load_dataset("market1501", tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_root_and_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nowhere: folder not found"):
        load_dataset("market1501", tmp_path / "nowhere")
    write_market(tmp_path)
    for path in (tmp_path / "query").iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match=r"query: holds no \.jpg file"):
        load_dataset("market1501", tmp_path)
    (tmp_path / "query").rmdir()
    with pytest.raises(DatasetError, match="query: folder not found"):
        load_dataset("market1501", tmp_path)


def test_counts_that_differ_from_the_published_ones_warn_in_one_line(tmp_path: Path) -> None:
    write_market(tmp_path)
    with pytest.warns(DatasetWarning, match=r"published Market-1501: 4 train images \(expected 12936\)") as caught:
        load_dataset("market1501", tmp_path)
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)


def test_counts_of_a_synthetic_set_are_compared_with_its_manifest(tmp_path: Path) -> None:
    write_market(tmp_path)
    layout = get_layout("market1501")
    counts = asdict(count_facts(layout.scan(tmp_path)))
    (tmp_path / "synthetic.json").write_text(json.dumps({"generator": "pyreid", "counts": counts}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_dataset("market1501", tmp_path)
    counts["query_images"] = 17
    (tmp_path / "synthetic.json").write_text(json.dumps({"generator": "pyreid", "counts": counts}))
    with pytest.warns(DatasetWarning, match=r"synthetic\.json: 2 query images \(expected 17\)"):
        load_dataset("market1501", tmp_path)


@pytest.mark.parametrize("lists", [False, True])
@pytest.mark.parametrize("inner", ["", "VeRi"])
def test_veri(tmp_path: Path, inner: str, lists: bool) -> None:
    write_veri(tmp_path / inner, lists=lists)
    dataset = load("veri776", tmp_path)
    assert ids_and_cameras(dataset.train) == [(1, 0), (1, 11), (4, 3), (4, 4)]
    assert ids_and_cameras(dataset.query) == [(2, 1)]
    assert ids_and_cameras(dataset.gallery) == [(2, 1), (2, 19)]


def test_veri_list_order_decides(tmp_path: Path) -> None:
    write_veri(tmp_path)
    (tmp_path / "name_test.txt").write_text("0002_c020_00030640_1.jpg\n0002_c002_00030600_0.jpg\n")
    assert ids_and_cameras(load("veri776", tmp_path).gallery) == [(2, 19), (2, 1)]


@pytest.mark.filterwarnings("ignore:.*counts differ")
def test_veri_list_that_disagrees_with_the_folder(tmp_path: Path) -> None:
    write_veri(tmp_path)
    (tmp_path / "name_query.txt").write_text("0002_c002_00030600_0.jpg\n0005_c002_00030600_0.jpg\n")
    with pytest.raises(DatasetError, match=r"name_query\.txt:2: .*0005_c002_00030600_0\.jpg does not exist"):
        load_dataset("veri776", tmp_path)
    (tmp_path / "name_query.txt").write_text("0002_c002_00030600_0.jpg\n" * 2)
    with pytest.raises(DatasetError, match=r"name_query\.txt:2: 0002_.*_0\.jpg is listed already in line 1"):
        load_dataset("veri776", tmp_path)
    (tmp_path / "name_query.txt").write_text("0002_c002_00030600_0.jpg\n")
    (tmp_path / "name_train.txt").write_text("0001_c001_00016450_0.jpg\n")
    with pytest.warns(DatasetWarning, match=r"name_train\.txt: 3 images of the folder are not listed"):
        assert len(load_dataset("veri776", tmp_path).train) == 1


def test_veri_bad_name(tmp_path: Path) -> None:
    write_veri(tmp_path, lists=False)
    write_image(tmp_path / "image_test" / "0002_c1s1_000451_03.jpg")
    with pytest.raises(DatasetError, match=r"0002_c1s1_000451_03\.jpg: the name does not have the form 0001_c001"):
        load_dataset("veri776", tmp_path)
