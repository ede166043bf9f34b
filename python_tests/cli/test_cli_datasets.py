from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from pyreid.cli.datasets import datasets
from pyreid.data import list_datasets


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.command()(datasets)
    return app


def test_table_names_every_data_set(app: typer.Typer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 0, result.output
    rows = {line.split()[0]: line for line in result.output.splitlines() if line.strip()}
    assert set(list_datasets()) <= set(rows)
    assert "12,936" in rows["market1501"]
    assert "image to image or image to track" in rows["veri776"]
    assert rows["csv"].count(" - ") == 5


def test_no_count_is_cut_off_in_a_narrow_terminal(app: typer.Typer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    output = CliRunner().invoke(app, []).output
    assert "…" not in output
    for word in ("12,936", "681,089", "vehicleid_13164", "cameras", "gallery"):
        assert word in output


@pytest.mark.parametrize("name", list_datasets())
def test_one_data_set_shows_its_folders_and_its_protocol(app: typer.Typer, name: str) -> None:
    result = CliRunner().invoke(app, [name])
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"{name}: ")
    assert "pyreid.evaluation." in result.output
    assert "/\n" in result.output  # a folder of the tree
    assert "None" not in result.output


def test_facts_and_variants_are_printed(app: typer.Typer) -> None:
    output = CliRunner().invoke(app, ["vehicleid_800"]).output
    assert "113,346 train images, 13,164 train ids, 5,693 query images, 800 gallery images" in output
    assert "same training images: vehicleid_800, vehicleid_1600, vehicleid_2400" in output


def test_unknown_name_exits_with_2(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["duke"])
    assert result.exit_code == 2
