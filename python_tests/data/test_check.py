from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from pyreid.data import CheckReport, check_dataset, synthesize
from python_tests.data.layout_files import write_image, write_market, write_veri


def only(lines: list[str], part: str) -> str:
    """The one line that contains ``part``."""
    found = [line for line in lines if part in line]
    assert len(found) == 1, (part, lines)
    assert "\n" not in found[0]
    return found[0]


def test_sound_set_has_no_findings(tmp_path: Path) -> None:
    made = synthesize("market1501", tmp_path / "set", num_train_ids=3, num_test_ids=3, images_per_id=4, size=(32, 16))
    calls: list[tuple[int, int]] = []
    report = check_dataset("market1501", tmp_path / "set", progress=lambda *call: calls.append(call))
    assert report.ok
    assert (report.errors, report.warnings) == ([], [])
    total = sum(len(records) for records in made.splits.values())
    assert calls[-1] == (total, total)
    assert [(count.split, count.images, count.ids) for count in report.counts] == [
        ("train", 12, 3),
        ("query", len(made.query), 3),
        ("gallery", len(made.gallery), 3),
    ]
    assert (report.counts[2].distractors, report.counts[2].junk) == (2, 2)
    assert "image sizes: height 32 to 32, width 16 to 16" in report.summary


@pytest.mark.parametrize("name", ["market1501", "veri776"])
def test_tiny_real_layouts_have_only_the_warning_of_their_counts(tmp_path: Path, name: str) -> None:
    (write_market if name == "market1501" else write_veri)(tmp_path)
    report = check_dataset(name, tmp_path)
    assert report.errors == []
    assert len(report.warnings) == 1
    assert "counts differ from the published" in report.warnings[0]


def test_missing_root_is_an_error_not_an_exception(tmp_path: Path) -> None:
    report = check_dataset("market1501", tmp_path / "nowhere")
    assert report.errors == [f"{tmp_path / 'nowhere'}: folder not found, expected the Market-1501 data set"]


def test_missing_and_empty_folders_and_bad_names_are_all_listed(tmp_path: Path) -> None:
    write_market(tmp_path)
    shutil.rmtree(tmp_path / "query")
    for path in (tmp_path / "bounding_box_train").iterdir():
        path.unlink()
    write_image(tmp_path / "bounding_box_test" / "holiday.jpg")
    write_image(tmp_path / "bounding_box_test" / "beach.jpg")
    errors = check_dataset("market1501", tmp_path).errors
    only(errors, "query: folder not found")
    only(errors, "bounding_box_train: holds no .jpg file")
    only(errors, "holiday.jpg: the name does not have the form")
    only(errors, "beach.jpg: the name does not have the form")


def test_split_with_junk_only_is_an_empty_split(tmp_path: Path) -> None:
    write_market(tmp_path)
    for path in (tmp_path / "bounding_box_train").iterdir():
        path.unlink()
    write_image(tmp_path / "bounding_box_train" / "-1_c1s1_000401_03.jpg")
    only(check_dataset("market1501", tmp_path).errors, "the train split has no usable image")


def test_truncated_empty_and_foreign_files_are_all_named(tmp_path: Path) -> None:
    write_market(tmp_path)
    truncated = tmp_path / "query" / "0001_c1s1_001051_00.jpg"
    write_image(truncated, size=(64, 64))
    truncated.write_bytes(truncated.read_bytes()[:-400])
    (tmp_path / "bounding_box_test" / "0000_c1s1_000151_01.jpg").write_bytes(b"")
    (tmp_path / "bounding_box_train" / "0002_c1s1_000451_03.jpg").write_text("<html>404</html>")
    report = check_dataset("market1501", tmp_path)
    assert len(report.errors) == 3
    assert "truncated" in only(report.errors, "0001_c1s1_001051_00.jpg: cannot be read as an image")
    assert "the file is empty" in only(report.errors, "0000_c1s1_000151_01.jpg: cannot be read as an image")
    assert "UnidentifiedImageError" in only(report.errors, "0002_c1s1_000451_03.jpg: cannot be read as an image")
    assert "11 images listed, 8 decoded" in report.summary


def test_identity_in_train_and_test(tmp_path: Path) -> None:
    write_market(tmp_path)
    write_image(tmp_path / "bounding_box_train" / "0003_c1s1_000451_03.jpg")
    report = check_dataset("market1501", tmp_path)
    only(report.errors, "1 identities are both in train and in query or gallery: 3")
    only(report.warnings, "1 identities have a single image, which batches repeat: 3")


def test_one_training_identity(tmp_path: Path) -> None:
    write_market(tmp_path)
    for path in (tmp_path / "bounding_box_train").glob("0007*"):
        path.unlink()
    only(check_dataset("market1501", tmp_path).errors, "there is one identity only")


def test_queries_without_a_match_in_another_camera(tmp_path: Path) -> None:
    write_market(tmp_path)
    (tmp_path / "bounding_box_test" / "0003_c5s6_015716_02.jpg").unlink()
    report = check_dataset("market1501", tmp_path)
    assert report.errors == []
    only(report.warnings, "query: 1 queries have no match in another camera and count as 0: 0003_c4s6_015641_00.jpg")
    # An image in the query's own camera is no match.
    write_image(tmp_path / "bounding_box_test" / "0003_c4s6_015716_02.jpg")
    only(check_dataset("market1501", tmp_path).warnings, "query: 1 queries have no match in another camera")
    (tmp_path / "bounding_box_test" / "0001_c2s1_000301_02.jpg").unlink()
    only(check_dataset("market1501", tmp_path).errors, "no query has an image of its identity in another camera")


def test_file_names_that_occur_twice(tmp_path: Path) -> None:
    write_market(tmp_path)
    write_image(tmp_path / "bounding_box_test" / "0001_C1S1_001051_00.jpg")
    write_image(tmp_path / "bounding_box_test" / "0001_C2S1_000301_02.JPG")
    report = check_dataset("market1501", tmp_path)
    only(report.warnings, "query and gallery share 1 file names: 0001_c1s1_001051_00.jpg")
    only(report.warnings, "gallery: 1 file names occur twice: 0001_c2s1_000301_02.jpg")
    write_image(tmp_path / "query" / "0002_c1s1_000451_03.jpg")
    only(check_dataset("market1501", tmp_path).errors, "train and query share 1 file names: 0002_c1s1_000451_03.jpg")


def test_grey_and_tiny_images_are_warnings(tmp_path: Path) -> None:
    write_market(tmp_path)
    Image.new("L", (20, 30)).save(tmp_path / "query" / "0001_c1s1_001051_00.jpg")
    write_image(tmp_path / "query" / "0003_c4s6_015641_00.jpg", size=(4, 8))
    report = check_dataset("market1501", tmp_path)
    assert report.errors == []
    only(report.warnings, "1 images are not RGB and are converted: 0001_c1s1_001051_00.jpg (L)")
    only(report.warnings, "1 images are smaller than 8 pixels: 0003_c4s6_015641_00.jpg (8 x 4)")


def test_files_that_are_left_out_are_a_warning(tmp_path: Path) -> None:
    write_market(tmp_path)
    (tmp_path / "query" / "notes.txt").write_text("x")
    only(check_dataset("market1501", tmp_path).warnings, "query: 1 entries that are not .jpg images are ignored")


def test_report_does_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    write_market(tmp_path)
    for path in (tmp_path / "bounding_box_test").iterdir():
        path.write_bytes(b"broken")
    reports: list[CheckReport] = [check_dataset("market1501", tmp_path, workers=workers) for workers in (1, 4)]
    assert reports[0] == reports[1]
    assert len(reports[0].errors) == 5


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown data set 'duke'"):
        check_dataset("duke", tmp_path)
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        check_dataset("market1501", tmp_path, workers=0)
