from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pyreid.cli.check import check
from pyreid.data import synthesize


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.command()(check)
    return app


@pytest.fixture
def root(tmp_path: Path) -> Path:
    synthesize("market1501", tmp_path / "set", num_train_ids=3, num_test_ids=3, images_per_id=4, size=(32, 16))
    return tmp_path / "set"


def test_sound_set_exits_with_0(root: Path, app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["market1501", str(root)])
    assert result.exit_code == 0, result.output
    assert "0 errors, 0 warnings" in result.output
    assert "gallery" in result.output


def test_warnings_alone_exit_with_0(root: Path, app: typer.Typer) -> None:
    (root / "synthetic.json").unlink()
    result = CliRunner().invoke(app, ["market1501", str(root)])
    assert result.exit_code == 0, result.output
    assert "warning:" in result.output
    assert "0 errors, 1 warnings" in result.output


def test_errors_exit_with_1_and_name_the_files(root: Path, app: typer.Typer) -> None:
    broken = sorted((root / "query").iterdir())[:3]
    for path in broken:
        path.write_bytes(path.read_bytes()[:200])
    result = CliRunner().invoke(app, ["market1501", str(root)])
    assert result.exit_code == 1
    for path in broken:
        assert path.name in result.output
    short = CliRunner().invoke(app, ["market1501", str(root), "--show", "1"])
    assert "2 more errors" in short.output
    assert broken[1].name not in short.output


def test_missing_folder_exits_with_1(tmp_path: Path, app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["market1501", str(tmp_path / "nowhere")])
    assert result.exit_code == 1
    assert "folder not found" in result.output


def test_unknown_name_exits_with_2(tmp_path: Path, app: typer.Typer) -> None:
    assert CliRunner().invoke(app, ["duke", str(tmp_path)]).exit_code == 2
