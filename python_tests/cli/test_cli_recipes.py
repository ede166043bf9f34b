from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pyreid.cli.recipes import recipes
from pyreid.errors import RecipeError
from pyreid.training import load_recipe

app = typer.Typer()
app.command()(recipes)


def test_the_list_has_the_papers_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 0, result.output
    line = next(line for line in result.output.splitlines() if "safr/veri776_small" in line)
    for part in ("safr_small", "veri776", "77.14", "93.14", "SAFR, Table 2"):
        assert part in line
    assert "demo" in result.output


def test_a_name_prints_a_recipe_that_loads(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["safr/veri776_small", "optimizer.lr=0.25"])
    assert result.exit_code == 0, result.output
    path = tmp_path / "printed.yaml"
    path.write_text(result.output)
    assert load_recipe(path) == load_recipe("safr/veri776_small", ["optimizer.lr=0.25"])


def test_an_unknown_name_is_an_error() -> None:
    result = CliRunner().invoke(app, ["safr/veri776_tiny"])
    assert isinstance(result.exception, RecipeError)
    assert "did you mean" in str(result.exception)
