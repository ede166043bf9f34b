"""Files of a run appear whole or not at all."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from pyreid._files import write_atomically, write_json, write_text
from pyreid.errors import TrainingError
from pyreid.training.run_folder import RunFolder, write_csv


def test_an_output_that_cannot_be_made_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        TrainingError, match=r"output .*file/deep/run: nothing can be written in .*file \(it is a file\)"
    ):
        RunFolder(tmp_path / "file" / "deep" / "run").check(resume=False, overwrite=False)
    RunFolder(tmp_path / "a" / "run").check(resume=False, overwrite=False)
    assert not (tmp_path / "a").exists()
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)  # root may write anywhere
    with pytest.raises(TrainingError, match=r"nothing can be written in .* \(no permission to write there\)"):
        RunFolder(tmp_path / "a" / "run").check(resume=False, overwrite=False)


def test_a_reader_of_the_old_file_keeps_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "old")
    with path.open() as reader:
        write_text(path, "new and longer")
        assert reader.read() == "old", "the file was replaced, not rewritten"
    assert path.read_text() == "new and longer"
    assert list(path.parent.iterdir()) == [path]


def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    before = path.read_bytes()

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_atomically(path, fail)
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(path, {"a": float("nan")})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_files_get_the_usual_rights(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    write_text(tmp_path / "ours", "")
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_csv_keeps_every_digit_and_leaves_gaps_empty(tmp_path: Path) -> None:
    value = 0.1 + 0.2
    write_csv(tmp_path / "m.csv", [{"a": 1, "b": value}, {"a": 2}], ["a", "b"])
    assert (tmp_path / "m.csv").read_text() == f"a,b\n1,{value!r}\n2,\n"


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("file", ["repeat.json", "run-1/recipe.yaml"])
def test_a_run_among_repeated_ones_is_refused(tmp_path: Path, file: str, resume: bool, overwrite: bool) -> None:
    if resume and overwrite:
        return
    write_text(tmp_path / file, "")
    with pytest.raises(TrainingError, match="holds the folders of repeated runs; choose another folder, or give --rep"):
        RunFolder(tmp_path).check(resume=resume, overwrite=overwrite)


def test_clear_deletes_only_what_a_run_writes(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    write_text(folder.recipe, "")
    write_text(folder.last_checkpoint, "")
    write_text(tmp_path / "thesis.tex", "dear")
    assert folder.holds_a_run()
    folder.clear()
    assert not folder.holds_a_run()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "")
    with pytest.raises(RuntimeError, match="is a file, expected a folder"):
        RunFolder(tmp_path / "file").check(resume=False, overwrite=False)
