from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pyreid.cli.synth import synth
from pyreid.data import load_dataset
from pyreid.errors import DatasetError

SMALL = ["--train-ids", "3", "--test-ids", "2", "--images-per-id", "4", "--height", "32", "--width", "16"]


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.command()(synth)
    return app


def test_writes_a_set_and_says_what_it_holds(tmp_path: Path, app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["veri776", str(tmp_path / "set"), *SMALL, "--workers", "1"])
    assert result.exit_code == 0, result.output
    dataset = load_dataset("veri776", tmp_path / "set")
    assert len(dataset.train) == 12
    assert f"12 train, {len(dataset.query)} query, 8 gallery images" in result.output


def test_all_options_reach_the_generator(tmp_path: Path, app: typer.Typer) -> None:
    options = ["--cameras", "3", "--distractors", "2", "--junk", "3", "--seed", "5"]
    result = CliRunner().invoke(app, ["market1501", str(tmp_path / "set"), *SMALL, *options])
    assert result.exit_code == 0, result.output
    dataset = load_dataset("market1501", tmp_path / "set")
    pids = [record.pid for record in dataset.gallery]
    assert (pids.count(0), pids.count(-1)) == (2, 3)
    assert {record.camid for record in dataset.train} <= {0, 1, 2}
    assert '"seed": 5' in (tmp_path / "set" / "synthetic.json").read_text()


def test_images_picks_the_sizes(tmp_path: Path, app: typer.Typer) -> None:
    arguments = ["market1501", str(tmp_path / "set"), "--images", "150", "--height", "32", "--width", "16"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    total = sum(len(records) for records in load_dataset("market1501", tmp_path / "set").splits.values())
    assert abs(total - 150) <= 15


def test_full_folder_is_refused_and_overwrite_replaces_it(tmp_path: Path, app: typer.Typer) -> None:
    arguments = ["market1501", str(tmp_path / "set"), *SMALL]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == 1
    assert isinstance(refused.exception, DatasetError)
    assert CliRunner().invoke(app, [*arguments, "--overwrite"]).exit_code == 0


def test_usage_errors_exit_with_2(tmp_path: Path, app: typer.Typer) -> None:
    unknown = CliRunner().invoke(app, ["duke", str(tmp_path / "set")])
    assert unknown.exit_code == 2
    assert "expected one of csv, cuhk03_np_detected" in " ".join(unknown.output.replace("│", " ").split())
    both = CliRunner().invoke(app, ["market1501", str(tmp_path / "set"), "--images", "200", "--train-ids", "5"])
    assert both.exit_code == 2
    assert list(tmp_path.iterdir()) == []
