"""Replacing an output: continued after an interruption, and never beside the list of another; images left out."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pyreid.errors import DatasetError, PyreidError
from pyreid.evaluation import open_features
from pyreid.inference import FeatureExtractor, extract_to_file, extraction, read_paths


class Means(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3))


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{n}.png" for n in range(4)]
    for n, path in enumerate(paths):
        Image.new("RGB", (4, 4), (40 * n, 9, 9)).save(path)
    return paths


def extractor(batch_size: int = 1, workers: int = 0) -> FeatureExtractor:
    return FeatureExtractor(Means(), size=(4, 4), batch_size=batch_size, workers=workers, device="cpu")


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name.startswith((".", "f"))}


def test_an_interrupted_overwrite_is_resumed(
    images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction, "_SYNC_SECONDS", 0.0)
    output, seen = tmp_path / "f.npy", []
    extract_to_file(extractor(), images, output)
    old = output.read_bytes()

    def interrupt(count: int) -> None:
        seen.append(count)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_to_file(extractor(), images[::-1], output, overwrite=True, on_batch=interrupt)
    assert output.read_bytes() == old
    seen = [0, 0]
    extract_to_file(extractor(), images[::-1], output, resume=True, on_batch=interrupt)
    assert seen == [0, 0, 2, 1, 1]
    np.testing.assert_array_equal(np.load(output), extractor()(images[::-1]))


@pytest.mark.parametrize("step", ["list", "features", "journal"])
def test_features_never_lie_beside_another_list(
    images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    output = tmp_path / "f.npy"
    extract_to_file(extractor(), images, output)
    replace, unlink = Path.replace, Path.unlink

    def fail_to_replace(path: Path, target: Path) -> Path:
        if (step == "list" and target.name.endswith(".txt")) or (step == "features" and path.suffix == ".part"):
            raise OSError("stopped")
        return replace(path, target)

    def fail_to_unlink(path: Path, missing_ok: bool = False) -> None:
        if step == "journal" and path.suffix == ".journal":
            raise OSError("stopped")
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail_to_replace)
        patch.setattr(Path, "unlink", fail_to_unlink)
        with pytest.raises(OSError, match="stopped"):
            extract_to_file(extractor(), images[::-1], output, overwrite=True)
    assert output.exists() == (step == "journal")
    extract_to_file(extractor(), images[::-1], output, resume=True)
    np.testing.assert_array_equal(np.load(output), extractor()(images[::-1]))
    assert extraction.paths_file(output).read_text().split() == [str(path) for path in images[::-1]]
    assert not list(tmp_path.glob(".f.npy*"))


def test_without_a_row_nothing_is_left(images: list[Path], tmp_path: Path) -> None:
    images[0].write_bytes(b"no image")
    output = tmp_path / "f.npy"
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DatasetError):
        extract_to_file(extractor(), images, output)
    assert sorted(tmp_path.iterdir()) == before
    images[0], images[3] = images[3], images[0]
    with pytest.raises(DatasetError):  # rows that are there are kept
        extract_to_file(extractor(), images, output)
    assert len(list(tmp_path.iterdir())) == len(before) + 2


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
@pytest.mark.parametrize("wrong", [(0,), (1, 2), (9, 10), (0, 1, 4, 5, 10), (2, 3, 10)])
def test_a_resumed_extraction_leaves_out_the_same_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: tuple[int, ...], suffix: str
) -> None:
    monkeypatch.setattr(extraction, "_SYNC_SECONDS", 0.0)
    paths = [tmp_path / f"{n}.png" for n in range(11)]
    for n, path in enumerate(paths):
        if n in wrong:
            path.write_bytes(b"no image")
        else:
            Image.new("RGB", (4, 4), (20 * n, 9, 9)).save(path)
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    whole, output = (tmp_path / name / f"f{suffix}" for name in ("whole", "cut"))
    counts: list[int] = []
    done = extract_to_file(extractor(2), paths, whole, skip_unreadable=True, on_batch=counts.append)
    assert sum(counts) == 11
    assert (done.rows, done.skipped) == (11 - len(wrong), tuple(paths[n] for n in wrong))
    good = [path for n, path in enumerate(paths) if n not in wrong]
    rows = open_features(whole)
    np.testing.assert_allclose(rows, extractor()(good), rtol=1e-6)
    assert extraction.paths_file(whole).read_text().split() == [str(path) for path in good]

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    times = 0
    while not output.exists():  # each time a batch further
        times += 1
        assert times < 9
        seen: list[int] = []

        def later(count: int, seen: list[int] = seen, first: bool = times == 1) -> None:
            seen.append(count)
            if len(seen) > (not first):
                interrupt(count)

        try:
            extract_to_file(extractor(2), paths, output, resume=True, skip_unreadable=True, on_batch=later)
        except KeyboardInterrupt:
            assert not output.exists()
    assert times > 2
    assert files_of(output.parent) == files_of(whole.parent)


def test_images_may_be_left_out_from_where_the_extraction_stopped(images: list[Path], tmp_path: Path) -> None:
    images[2].write_bytes(b"no image")
    output = tmp_path / "f.npy"
    with pytest.raises(DatasetError, match=r"2\.png: cannot be read as an image"):
        extract_to_file(extractor(), images, output)
    counts: list[int] = []
    done = extract_to_file(extractor(), images, output, resume=True, skip_unreadable=True, on_batch=counts.append)
    assert counts[0] > 0
    assert (done.rows, done.skipped, done.was_complete) == (3, (images[2],), False)
    again = extract_to_file(extractor(), images, output, resume=True, skip_unreadable=True)
    assert (again.rows, again.skipped, again.was_complete) == (3, (images[2],), True)
    with pytest.raises(PyreidError, match="1 images that cannot be read were left out; continue with --skip-unr"):
        extract_to_file(extractor(), images, output, resume=True)
    Image.new("RGB", (4, 4)).save(images[2])
    with pytest.raises(PyreidError, match="got other images"):
        extract_to_file(extractor(), images, output, resume=True, skip_unreadable=True)
    assert extract_to_file(extractor(), images, output, overwrite=True).skipped == ()
    assert not extraction.skipped_file(output).exists()


def test_an_image_left_out_is_not_read_again_without_the_option(
    images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction, "_SYNC_SECONDS", 0.0)
    images[0].write_bytes(b"no image")
    output = tmp_path / "f.npy"

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_to_file(extractor(), images, output, skip_unreadable=True, on_batch=interrupt)
    with pytest.raises(PyreidError, match="1 images that cannot be read were left out"):
        extract_to_file(extractor(), images, output, resume=True)
    assert extract_to_file(extractor(), images, output, resume=True, skip_unreadable=True).rows == 3


def test_missing_files_are_left_out_but_not_those_of_a_disk_that_goes_away(
    images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction, "_SYNC_SECONDS", 0.0)
    (tmp_path / "list.txt").write_text("0.png\ngone.png\n1.png\n2.png\n")
    with pytest.raises(DatasetError, match="line 2: no such file"):
        read_paths([str(tmp_path / "list.txt")])
    paths = read_paths([str(tmp_path / "list.txt")], missing_ok=True)
    output = tmp_path / "f.npy"
    with pytest.raises(DatasetError, match=r"gone\.png: cannot be read as an image"):
        extract_to_file(extractor(), paths, output)
    content = images[2].read_bytes()
    state = images[2].stat()
    with pytest.raises(DatasetError, match=r"2\.png: was there at the start and is not now"):
        extract_to_file(
            extractor(), paths, output, skip_unreadable=True, on_batch=lambda _: images[2].unlink(missing_ok=True)
        )
    images[2].write_bytes(content)
    os.utime(images[2], ns=(state.st_atime_ns, state.st_mtime_ns))
    done = extract_to_file(extractor(), paths, output, resume=True, skip_unreadable=True)
    assert (done.rows, done.skipped) == (3, (tmp_path / "gone.png",))
    np.testing.assert_array_equal(np.load(output), extractor()(images[:3]))


def test_nothing_readable_is_an_error_and_workers_leave_out_the_same(images: list[Path], tmp_path: Path) -> None:
    for path in images[1:3]:
        path.write_bytes(b"no image")
    output = tmp_path / "f.npy"
    done = extract_to_file(extractor(2, workers=1), images, output, skip_unreadable=True)
    assert done.skipped == tuple(images[1:3])
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DatasetError, match=r"expected one that can be read, got none; the first: .*1\.png"):
        extract_to_file(extractor(), images[1:3], tmp_path / "g.npy", skip_unreadable=True)
    assert sorted(tmp_path.iterdir()) == before
