"""Replacing an output: continued after an interruption, and never beside the list of another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pyreid.errors import DatasetError
from pyreid.inference import FeatureExtractor, extract_to_file, extraction


class Means(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3))


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{n}.png" for n in range(4)]
    for n, path in enumerate(paths):
        Image.new("RGB", (4, 4), (40 * n, 9, 9)).save(path)
    return paths


def extractor() -> FeatureExtractor:
    return FeatureExtractor(Means(), size=(4, 4), batch_size=1, device="cpu")


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
