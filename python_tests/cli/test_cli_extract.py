"""``pyreid extract``: the same features as the class, whole files, and extraction that survives a kill."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

import pyreid
from pyreid.cli.extract import extract
from pyreid.inference import read_paths

app = typer.Typer()
app.command()(extract)

# Kills its own process at a batch: before its rows are written, or when they are, but not in the journal.
KILLED = """
import os, signal, sys
from pyreid.inference import extraction
from pyreid.cli.main import main

when, at = sys.argv.pop(1), int(sys.argv.pop(1))
extraction._SYNC_SECONDS = 0.0
original, count = extraction.append, 0

def append(journal, line):
    global count
    count += 1
    if when == "rows" and count == at:
        os.kill(os.getpid(), signal.SIGKILL)
    original(journal, line)
    if when == "journal" and count == at:
        journal.write(b"[99")  # a torn line
        journal.flush()
        os.kill(os.getpid(), signal.SIGKILL)

extraction.append = append
main()
"""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a model, and eleven images in two folders."""
    root = tmp_path_factory.mktemp("extract")
    torch.manual_seed(2)
    torch.save(pyreid.create_model("rmnet").state_dict(), root / "w.pt")
    rng = np.random.default_rng(0)
    for index in range(11):
        place = root / "images" / ("a" if index < 6 else "b")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 10, 3), dtype=np.uint8)).save(place / f"{index:02d}.png")
    (root / "images/readme.md").write_text("no image")
    return root


def command(folder: Path, output: Path, *more: str, images: str | None = None) -> list[str]:
    given = images or str(folder / "images")
    options = ["--weights", str(folder / "w.pt"), "--batch-size", "2", "--device", "cpu", "--output", str(output)]
    return ["rmnet", given, *options, *more]


def expected_of(folder: Path) -> np.ndarray:
    model = pyreid.FeatureExtractor("rmnet", weights=folder / "w.pt", batch_size=2, device="cpu")
    return model(sorted((folder / "images").rglob("*.png")))


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_features_are_those_of_the_class(folder: Path, tmp_path: Path, suffix: str) -> None:
    output = tmp_path / "new" / f"f{suffix}"
    done = CliRunner().invoke(app, command(folder, output))
    assert done.exit_code == 0, done.output
    features = np.load(output) if suffix == ".npy" else safetensors.numpy.load_file(output)["features"]
    np.testing.assert_array_equal(features, expected_of(folder))
    listed = Path(f"{output}.paths.txt").read_text().splitlines()
    assert listed == [str(path) for path in sorted((folder / "images").rglob("*.png"))]
    names = [output.name, f"{output.name}.paths.txt", f"{output.name}.settings.json"]
    assert sorted(path.name for path in output.parent.iterdir()) == names
    assert output.stat().st_mode & 0o777 == Path(f"{output}.paths.txt").stat().st_mode & 0o777
    if suffix == ".npy":
        assert np.load(output, mmap_mode="r").offset % 64 == 0


def test_a_file_of_one_row_and_flips(folder: Path, tmp_path: Path) -> None:
    one = str(folder / "images/a/00.png")
    done = CliRunner().invoke(app, command(folder, tmp_path / "f.npy", "--flip", "concat", images=one))
    assert done.exit_code == 0, done.output
    model = pyreid.FeatureExtractor("rmnet", weights=folder / "w.pt", flip="concat", device="cpu")
    np.testing.assert_array_equal(np.load(tmp_path / "f.npy"), model(one))


def test_sources_of_images(folder: Path, tmp_path: Path) -> None:
    (folder / "list.txt").write_text("images/b/07.png\n\nimages/a/01.png\n")
    found = read_paths([str(folder / "list.txt"), str(folder / "images/*/0[03].png"), str(folder / "images/b")])
    names = [path.name for path in found]
    assert names == ["07.png", "01.png", "00.png", "03.png", "06.png", "07.png", "08.png", "09.png", "10.png"]


@pytest.mark.parametrize(("when", "at"), [("rows", 4), ("journal", 4), ("journal", 7)])
def test_a_killed_extraction_continues_with_the_same_bits(folder: Path, tmp_path: Path, when: str, at: int) -> None:
    # at counts lines of the journal: the settings, then six batches.
    output = tmp_path / "f.npy"
    script = [sys.executable, "-c", KILLED, when, str(at), "extract", *command(folder, output)]
    killed = subprocess.run(script, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert killed.returncode == -9, killed.stderr
    assert not output.exists()
    refused = CliRunner().invoke(app, command(folder, output))
    assert "continue with --resume" in str(refused.exception)

    opened: list[str] = []
    read = pyreid.inference.images.read_rgb
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            pyreid.inference.images, "read_rgb", lambda record: (opened.append(record.path.name), read(record))[1]
        )
        done = CliRunner().invoke(app, command(folder, output, "--resume"))
    assert done.exit_code == 0, (done.output, done.exception)
    kept = {("rows", 4): 4, ("journal", 4): 6, ("journal", 7): 11}[when, at]
    assert len(opened) == 11 - kept, "batches that had reached the disk are not computed again"
    np.testing.assert_array_equal(np.load(output), expected_of(folder))
    whole = tmp_path / "whole.npy"
    assert CliRunner().invoke(app, command(folder, whole)).exit_code == 0
    assert output.read_bytes() == whole.read_bytes()
    assert len(list(tmp_path.iterdir())) == 6


def test_resume_checks_that_nothing_has_changed(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "images"
    broken.mkdir()
    for index in range(5):
        Image.new("RGB", (10, 20), (index, 0, 0)).save(broken / f"{index}.png")
    (broken / "4.png").write_bytes(b"not an image")
    output = tmp_path / "f.npy"
    first = CliRunner().invoke(app, command(folder, output, images=str(broken)))
    assert "4.png: cannot be read as an image" in str(first.exception)
    assert not output.exists()
    other = tmp_path / "other.pt"
    torch.manual_seed(9)
    torch.save(pyreid.create_model("rmnet").state_dict(), other)
    for more, message in (
        (["--flip", "mean"], "other flip (none)"),
        (["--batch-size", "3"], "other batch_size (2)"),
        (["--weights", str(other)], "other weights;"),
    ):
        result = CliRunner().invoke(app, command(folder, output, "--resume", *more, images=str(broken)))
        assert message in str(result.exception)
    Image.new("RGB", (10, 20)).save(broken / "4.png")
    result = CliRunner().invoke(app, command(folder, output, "--resume", images=str(broken)))
    assert "other images;" in str(result.exception)
    (tmp_path / ".f.npy.part").write_bytes(b"")
    assert CliRunner().invoke(app, command(folder, output, "--overwrite", images=str(broken))).exit_code == 0
    assert np.load(output).shape[0] == 5
    again = CliRunner().invoke(app, command(folder, output, images=str(broken)))
    assert "exists; choose another name" in str(again.exception)


def test_unreadable_images_are_left_out_and_named(folder: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(folder / "images", images)
    wrong = [images / name for name in ("a/01.png", "b/08.png", "b/09.png")]  # the last two are a batch
    for path in wrong:
        path.write_bytes(path.read_bytes()[:60])
    output = tmp_path / "f.npy"
    failed = CliRunner().invoke(app, command(folder, output, images=str(images)))
    assert f"{wrong[0]}: cannot be read as an image" in str(failed.exception)
    done = CliRunner().invoke(app, command(folder, output, "--skip-unreadable", images=str(images)))
    assert done.exit_code == 0, (done.output, done.exception)
    assert done.output.splitlines()[-2:] == [
        f"{output}: 8 x 256 features; paths in f.npy.paths.txt",
        f"{output}: 3 of 11 images cannot be read and are left out, named in f.npy.skipped.txt",
    ]
    kept = [n for n, path in enumerate(sorted((folder / "images").rglob("*.png"))) if n not in (1, 8, 9)]
    np.testing.assert_allclose(np.load(output), expected_of(folder)[kept], rtol=1e-4, atol=1e-5)
    lines = [line.split("\t") for line in Path(f"{output}.skipped.txt").read_text().splitlines()]
    assert [line[0] for line in lines] == [str(path) for path in wrong]
    assert all(line[1].startswith("cannot be read as an image") for line in lines)
    listed = Path(f"{output}.paths.txt").read_text().splitlines()
    assert listed == [str(path) for path in sorted(images.rglob("*.png")) if path not in wrong]
    more = command(folder, tmp_path / "g.npy", "--skip-unreadable")
    assert (
        CliRunner().invoke(app, more).output.splitlines()[-1].endswith("0 of 11 images cannot be read and are left out")
    )
    assert not (tmp_path / "g.npy.skipped.txt").exists()


def test_resume_of_a_complete_output(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "f.npy"
    assert CliRunner().invoke(app, command(folder, output)).exit_code == 0
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    again = CliRunner().invoke(app, command(folder, output, "--resume"))
    assert (again.exit_code, again.exception) == (0, None)
    assert again.output.splitlines() == [f"{output}: complete already, 11 x 256 features; paths in f.npy.paths.txt"]
    for more, images, message in (
        (["--flip", "mean"], None, "expected the settings of the complete extraction, got other flip (none)"),
        ([], str(folder / "images/a"), "got other images, number of images (11)"),
    ):
        result = CliRunner().invoke(app, command(folder, output, "--resume", *more, images=images))
        assert result.exit_code == 1
        assert message in str(result.exception)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == before
    settings = Path(f"{output}.settings.json")
    output.write_bytes(output.read_bytes()[:-1])
    assert "bytes; replace it" in str(CliRunner().invoke(app, command(folder, output, "--resume")).exception)
    settings.write_text('{"settings": 3}')
    assert "something damaged" in str(CliRunner().invoke(app, command(folder, output, "--resume")).exception)
    settings.unlink()
    result = CliRunner().invoke(app, command(folder, output, "--resume"))
    assert "exists, but without f.npy.settings.json" in str(result.exception)


def test_rows_that_are_gone_and_damaged_journals(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "f.npy"
    images = tmp_path / "images"
    images.mkdir()
    for index in range(4):
        Image.new("RGB", (10, 20)).save(images / f"{index}.png")
    (images / "3.png").write_bytes(b"")
    assert CliRunner().invoke(app, command(folder, output, images=str(images))).exit_code == 1
    journal = tmp_path / ".f.npy.journal"
    lines = journal.read_bytes()
    part = tmp_path / ".f.npy.part"
    part.write_bytes(part.read_bytes()[:200])
    result = CliRunner().invoke(app, command(folder, output, "--resume", images=str(images)))
    assert "expected 2 rows of 256 columns, got less" in str(result.exception)
    journal.write_bytes(lines.splitlines(keepends=True)[0] + b"nonsense\n")
    result = CliRunner().invoke(app, command(folder, output, "--resume", images=str(images)))
    assert "got something damaged" in str(result.exception)


def test_two_processes_do_not_write_one_output(folder: Path, tmp_path: Path) -> None:
    with (tmp_path / ".f.npy.journal").open("ab") as journal:
        fcntl.flock(journal, fcntl.LOCK_EX)
        result = CliRunner().invoke(app, command(folder, tmp_path / "f.npy", "--resume"))
    assert "another process is writing it" in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["no_model", "{images}", "-o", "f.npy"], 1, "model: unknown name 'no_model'"),
        (["rmnet", "{images}", "-o", "f.npy"], 1, "model rmnet needs --weights FILE"),
        (["rmnet", "nowhere", "--weights", "{w}", "-o", "f.npy"], 1, "images: nowhere: no such file or folder"),
        (["rmnet", "no*.png", "--weights", "{w}", "-o", "f.npy"], 1, "images: no*.png: expected at least one image"),
        (["rmnet", "{images}", "--weights", "{w}.gone", "-o", "f.npy"], 1, "no such file"),
        (["{images}", "{images}", "-o", "f.npy"], 1, "expected the folder of a run"),
        (["gone.onnx", "{images}", "-o", "f.npy"], 1, "model: no such file: gone.onnx"),
        (["{images}/a/00.png", "{images}", "-o", "f.npy"], 1, "expected a model's name, the folder of a run or"),
        (["rmnet", "{images}", "-o", "f.txt"], 2, "--output: expected a file that ends in"),
        (["rmnet", "{images}", "-o", "f.npy", "--flip", "both"], 2, "--flip: expected none"),
        (["rmnet", "{images}", "-o", "f.npy", "--flip", "mean", "--crops", "ten"], 2, "--flip: got mean with --crops"),
        (["rmnet", "{images}", "-o", "f.npy", "--resume", "--overwrite"], 2, "exclude each other"),
        (["rmnet", "{images}"], 2, "output"),
    ],
)
def test_errors(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [part.format(images=folder / "images", w=folder / "w.pt") for part in arguments]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == code
    said = str(result.exception) if code == 1 else " ".join(result.output.replace("│", " ").split())
    assert message in said
    assert "\n" not in str(result.exception)
    assert not list(tmp_path.iterdir())
