"""Hand-written trees with the oddities of DukeMTMC-reID, CUHK03-NP, MSMT17 and MARS."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from pyreid.data import DatasetWarning, ReIDDataset, check_dataset, load_dataset
from pyreid.data.mat_file import write_mat
from pyreid.errors import DatasetError
from python_tests.data.layout_files import write_folders, write_image

pytestmark = pytest.mark.filterwarnings("ignore::pyreid.data.DatasetWarning")

DUKE = {
    "bounding_box_train": ("0001_c2_f0046182.jpg", "0001_c5_f0051341.jpg", "7140_c8_f0000001.jpg"),
    "query": ("0005_c2_f0046985.jpg",),
    "bounding_box_test": ("0002_c1_f0044158.jpg", "0005_c3_f0064001.jpg"),
}
CUHK = {
    "bounding_box_train": ("0001_c1_1.png", "0001_c2_6.png"),
    "query": ("0003_c1_22.png",),
    "bounding_box_test": ("0003_c1_21.png", "0003_c2_27.png"),
}
MSMT_LISTS = {
    "list_train.txt": ("0000/0000_000_01_0303morning_0015_0.jpg 0", "0001/0001_002_14_0113noon_0001_1_ex.jpg 1"),
    "list_val.txt": ("0000/0000_001_12_0303morning_0008_0.jpg 0",),
    "list_query.txt": ("0000/0000_000_05_0303morning_0003_0.jpg 0",),
    "list_gallery.txt": ("0000/0000_003_15_0303afternoon_0036_1.jpg 0", "0002/0002_000_05_0113noon_0003_0.jpg 2"),
}


def load(name: str, root: Path) -> ReIDDataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DatasetWarning)
        return load_dataset(name, root)


def facts(records: tuple) -> list[tuple[int, int]]:
    return [(record.pid, record.camid) for record in records]


def errors(name: str, root: Path) -> str:
    return "\n".join(check_dataset(name, root, workers=1).errors)


@pytest.mark.parametrize("inner", ["", "DukeMTMC-reID"])
def test_duke(tmp_path: Path, inner: str) -> None:
    write_folders(tmp_path / inner, DUKE)
    dataset = load("dukemtmc", tmp_path)
    assert facts(dataset.train) == [(1, 1), (1, 4), (7140, 7)]
    assert facts(dataset.query) == [(5, 1)]
    assert facts(dataset.gallery) == [(2, 0), (5, 2)]
    assert (dataset.protocol.ap, dataset.protocol.no_match, dataset.protocol.camera_filter) == (
        "trapezoid",
        "zero",
        True,
    )


def test_duke_names_of_market_are_refused(tmp_path: Path) -> None:
    write_folders(tmp_path, DUKE)
    write_image(tmp_path / "query" / "0001_c1s1_001051_00.jpg")
    with pytest.raises(DatasetError, match=r"0001_c1s1_001051_00\.jpg: the name does not have the form 0001_c2_f"):
        load("dukemtmc", tmp_path)


@pytest.mark.parametrize("inner", ["", "CUHK03-NP", "cuhk03-np"])
def test_cuhk03_finds_the_boxes_it_is_asked_for(tmp_path: Path, inner: str) -> None:
    write_folders(tmp_path / inner / "labeled", CUHK)
    detected = {**CUHK, "query": ("0004_c2_2.png",), "bounding_box_test": ("0004_c1_1.png",)}
    write_folders(tmp_path / inner / "detected", detected)
    (tmp_path / inner / "labeled" / "query" / "Thumbs.db").write_bytes(b"x")
    labeled = load("cuhk03_np_labeled", tmp_path)
    assert facts(labeled.train) == [(1, 0), (1, 1)]
    assert facts(labeled.gallery) == [(3, 0), (3, 1)]
    assert facts(load("cuhk03_np_detected", tmp_path).query) == [(4, 1)]
    assert labeled.root == tmp_path / inner / "labeled"
    assert load("cuhk03_np_labeled", tmp_path / inner / "labeled").query == labeled.query


def test_cuhk03_files_of_other_kinds_are_noted(tmp_path: Path) -> None:
    write_folders(tmp_path / "labeled", CUHK)
    write_image(tmp_path / "labeled" / "query" / "0003_c2_30.bmp")
    with pytest.warns(DatasetWarning, match=r"1 entries that are not \.png or \.jpg images are ignored"):
        load_dataset("cuhk03_np_labeled", tmp_path)


def write_msmt(root: Path, *, version: int = 1) -> Path:
    train, test = ("train", "test") if version == 1 else ("mask_train_v2", "mask_test_v2")
    for name, lines in MSMT_LISTS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("".join(f"{line}\n" for line in lines))
        folder = root / (train if name in ("list_train.txt", "list_val.txt") else test)
        for line in lines:
            write_image(folder / line.split()[0])
    return root


@pytest.mark.parametrize(("version", "inner"), [(1, ""), (1, "MSMT17_V1"), (2, "MSMT17_V2"), (2, "msmt17")])
def test_msmt_reads_camera_and_identity_of_either_release(tmp_path: Path, version: int, inner: str) -> None:
    write_msmt(tmp_path / inner, version=version)
    dataset = load("msmt17", tmp_path)
    assert facts(dataset.train) == [(0, 0), (1, 13), (0, 11)], "training is list_train and list_val"
    assert facts(dataset.query) == [(0, 4)]
    assert facts(dataset.gallery) == [(0, 14), (2, 4)]
    # Identity 0 of training is another person than identity 0 of testing.
    assert dataset.separate_test_ids
    assert dataset.shared_ids == set()
    assert "identities are both" not in errors("msmt17", tmp_path)


def test_msmt_without_list_val(tmp_path: Path) -> None:
    write_msmt(tmp_path)
    (tmp_path / "list_val.txt").unlink()
    with pytest.warns(DatasetWarning, match=r"list_val\.txt: file not found, its training images are left out"):
        assert len(load_dataset("msmt17", tmp_path).train) == 2
    notices = "\n".join(check_dataset("msmt17", tmp_path, workers=1).warnings)
    assert "train: 1 images of the folder are not listed" in notices


def test_msmt_faults_name_file_and_line(tmp_path: Path) -> None:
    write_msmt(tmp_path)
    (tmp_path / "list_query.txt").write_text(
        "0000/0000_000_05_0303morning_0003_0.jpg 0\n\n"
        "0000/0000_000_05_0303morning_0003_0.jpg 0\n"
        "0000/0000_009_05_0303morning_0003_0.jpg 0\n"
        "0000/nonsense.jpg 0\n"
        "0000/0000_000_05_0303morning_0003_0.jpg\n"
        "0000/0000_004_00_0303morning_0003_0.jpg 0\n"
    )
    found = errors("msmt17", tmp_path)
    assert "list_query.txt:3: 0000_000_05_0303morning_0003_0.jpg is listed already in line 1" in found
    assert "list_query.txt:4: " in found
    assert "0000_009_05_0303morning_0003_0.jpg does not exist" in found
    assert "list_query.txt:5: '0000/nonsense.jpg 0' does not have the form" in found
    assert "list_query.txt:6: '0000/0000_000_05_0303morning_0003_0.jpg' does not have the form" in found
    assert "list_query.txt:7: 0000/0000_004_00_0303morning_0003_0.jpg is of camera 0" in found
    with pytest.raises(DatasetError, match=r"list_query\.txt:5: .*\(4 more faults: pyreid check msmt17"):
        load("msmt17", tmp_path)


def test_msmt_validation_image_that_is_a_training_image_too(tmp_path: Path) -> None:
    write_msmt(tmp_path)
    (tmp_path / "list_val.txt").write_text(MSMT_LISTS["list_train.txt"][0] + "\n")
    with pytest.raises(DatasetError, match=r"list_val\.txt: 1 images are in list_train\.txt, too"):
        load("msmt17", tmp_path)


def test_a_half_copied_set_is_summed_up(tmp_path: Path) -> None:
    write_msmt(tmp_path)
    lines = [f"0007/0007_{number:03d}_05_0303morning_0003_0.jpg 7\n" for number in range(300)]
    (tmp_path / "list_gallery.txt").write_text("".join(lines))
    found = [line for line in check_dataset("msmt17", tmp_path, workers=1).errors if "list_gallery.txt" in line]
    assert len(found) == 6
    assert "list_gallery.txt: 295 more lines have faults as the last one" in found[-1]
    (tmp_path / "list_gallery.txt").write_text("\n")
    assert "list_gallery.txt: the list is empty" in errors("msmt17", tmp_path)
    (tmp_path / "list_gallery.txt").write_bytes(b"\xff\xfe\x00")
    assert "list_gallery.txt: cannot be read" in errors("msmt17", tmp_path)


TRAIN_FRAMES = ("0001C1T0001F001.jpg", "0001C1T0001F002.jpg", "0001C2T0003F001.jpg", "0003C6T0001F001.jpg")
TEST_FRAMES = (
    "00-1C1T0001F001.jpg",
    "00-1C1T0001F002.jpg",
    "0000C2T0009F001.jpg",
    "0002C1T0001F001.jpg",
    "0002C1T0001F002.jpg",
    "0002C3T0001F001.jpg",
)
TRAIN_TRACKS = ((1, 2, 1, 1), (3, 3, 1, 2), (4, 4, 3, 6))
TEST_TRACKS = ((1, 2, -1, 1), (3, 3, 0, 2), (4, 5, 2, 1), (6, 6, 2, 3))


def write_mars(
    root: Path,
    *,
    test_tracks: tuple[tuple[int, ...], ...] = TEST_TRACKS,
    query: tuple[int, ...] = (3,),
    test_frames: tuple[str, ...] = TEST_FRAMES,
) -> Path:
    info = root / "info"
    info.mkdir(parents=True, exist_ok=True)
    for side, frames in (("train", TRAIN_FRAMES), ("test", test_frames)):
        (info / f"{side}_name.txt").write_text("".join(f"{name}\n" for name in frames))
        for name in frames:
            write_image(root / f"bbox_{side}" / name[:4] / name)
    write_mat(info / "tracks_train_info.mat", {"track_train_info": np.array(TRAIN_TRACKS, float)})
    write_mat(info / "tracks_test_info.mat", {"track_test_info": np.array(test_tracks, float)})
    write_mat(info / "query_IDX.mat", {"query_IDX": np.array([query], float)})
    return root


@pytest.mark.parametrize("inner", ["", "MARS"])
def test_mars_frames_know_their_tracklet(tmp_path: Path, inner: str) -> None:
    write_mars(tmp_path / inner)
    dataset = load("mars", tmp_path)
    assert [(r.pid, r.camid, r.track) for r in dataset.train] == [(1, 0, 0), (1, 0, 0), (1, 1, 1), (3, 5, 2)]
    assert [(r.pid, r.camid, r.track) for r in dataset.query] == [(2, 0, 2), (2, 0, 2)]
    assert [(r.pid, r.camid, r.track) for r in dataset.gallery] == [
        (-1, 0, 0),
        (-1, 0, 0),
        (0, 1, 1),
        (2, 0, 2),
        (2, 0, 2),
        (2, 2, 3),
    ]
    assert dataset.query[0].path.name == "0002C1T0001F001.jpg"
    assert dataset.protocol.function == "pool_tracks"
    report = check_dataset("mars", tmp_path, workers=1)
    assert report.errors == []
    assert [(count.tracks, count.ids, count.junk, count.distractors) for count in report.counts] == [
        (3, 2, 0, 0),
        (1, 1, 0, 0),
        (4, 1, 2, 1),
    ]
    # The query's frames are gallery frames as well, and are decoded once.
    assert report.summary[0] == "10 images listed, 10 decoded"


def test_mars_published_tracklets_are_compared(tmp_path: Path) -> None:
    write_mars(tmp_path)
    (line,) = [line for line in check_dataset("mars", tmp_path, workers=1).warnings if "counts differ" in line]
    assert "4 gallery tracks (expected 12180)" in line
    assert "query images" not in line, "how many frames the queries have is not published"


def test_mars_query_without_another_camera_counts_as_a_track(tmp_path: Path) -> None:
    write_mars(
        tmp_path, query=(3, 4), test_tracks=((1, 2, -1, 1), (3, 3, 0, 2), (4, 5, 2, 1)), test_frames=TEST_FRAMES[:5]
    )
    assert "query_IDX.mat:2: names tracklet 4 of 3" in errors("mars", tmp_path)
    write_mars(tmp_path, test_tracks=((1, 2, -1, 1), (3, 3, 0, 2), (4, 5, 2, 1)), test_frames=TEST_FRAMES[:5])
    assert "no query has an image of its identity in another camera" in errors("mars", tmp_path)
    frames = (*TEST_FRAMES, "0005C1T0001F001.jpg", "0005C1T0001F002.jpg")
    write_mars(tmp_path, test_tracks=(*TEST_TRACKS, (7, 8, 5, 1)), query=(3, 5), test_frames=frames)
    warned = "\n".join(check_dataset("mars", tmp_path, workers=1).warnings)
    assert "query: 1 query tracks have no match in another camera and count as 0: 0005C1T0001F001.jpg" in warned


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_tracks": ((1, 2, -1, 1), (3, 9, 0, 2))}, "tracks_test_info.mat:2: frames 3 to 9 of 6 are no tracklet"),
        ({"test_tracks": ((2, 1, -1, 1),)}, "tracks_test_info.mat:1: frames 2 to 1 of 6 are no tracklet"),
        ({"test_tracks": ((1, 3, -1, 1),)}, "0000C2T0009F001.jpg is not"),
        ({"test_tracks": ((1, 2, -1, 1), (2, 2, -1, 1))}, "its frame 00-1C1T0001F002.jpg is in another tracklet, too"),
        ({"test_tracks": ((4, 5, 2.5, 1),)}, "expected an array track_test_info of whole numbers"),
        ({"test_tracks": ((4, 5, 2),)}, r"expected an array (N, 4), got shape (1, 3)"),
        ({"query": (0,)}, "query_IDX.mat:1: names tracklet 0 of 4"),
        ({"query": (3, 3)}, "query_IDX.mat:2: names tracklet 3 again"),
        ({"query": (1,)}, "query_IDX.mat:1: names tracklet 1 of identity -1, expected a person's"),
        ({"query": (2,)}, "query_IDX.mat:1: names tracklet 2 of identity 0, expected a person's"),
    ],
)
def test_mars_lists_that_disagree(tmp_path: Path, changes: dict, message: str) -> None:
    write_mars(tmp_path, **changes)
    assert message in errors("mars", tmp_path)


def test_mars_files_that_are_missing_or_no_mars(tmp_path: Path) -> None:
    write_mars(tmp_path)
    (tmp_path / "bbox_test" / "0002" / TEST_FRAMES[3]).unlink()
    (tmp_path / "info" / "train_name.txt").write_text(f"{TRAIN_FRAMES[0]}\n" * 2 + "0001C0T0001F001.jpg\nx.png\n")
    found = errors("mars", tmp_path)
    assert f"test_name.txt:4: {tmp_path / 'bbox_test' / '0002' / TEST_FRAMES[3]} does not exist" in found
    assert "train_name.txt:2: 0001C1T0001F001.jpg is listed already in line 1" in found
    assert "train_name.txt:3: '0001C0T0001F001.jpg' does not have the form" in found
    assert "train_name.txt:4: 'x.png' does not have the form" in found
    (tmp_path / "info" / "query_IDX.mat").unlink()
    (tmp_path / "info" / "tracks_test_info.mat").write_bytes(b"x" * 300)
    found = errors("mars", tmp_path)
    assert "query_IDX.mat: file not found" in found
    assert "tracks_test_info.mat: is not a MAT file of version 5" in found


def test_mars_frames_in_no_list_or_tracklet_are_noted(tmp_path: Path) -> None:
    write_mars(tmp_path, test_tracks=TEST_TRACKS[1:], query=(2,))
    write_image(tmp_path / "bbox_test" / "0002" / "0002C4T0001F001.jpg")
    noted = "\n".join(check_dataset("mars", tmp_path, workers=1).warnings)
    assert "tracks_test_info.mat: 2 listed frames are in no tracklet and are left out" in noted
    assert "test_name.txt: 1 images of the folder are not listed and are left out" in noted
