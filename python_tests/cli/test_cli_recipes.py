from __future__ import annotations

from pathlib import Path

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from pyreid.cli.recipes import recipes
from pyreid.errors import RecipeError
from pyreid.training import list_recipes, load_recipe

app = typer.Typer()
app.command()(recipes)


def test_the_list_has_the_papers_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 0, result.output
    line = next(line for line in result.output.splitlines() if "safr/veri776_small" in line)
    for part in ("safr_small", "veri776", "77.14", "93.14", "Table 2"):
        assert part in line
    assert "demo" in result.output


def rows_of(output: str) -> list[str]:
    return [line.split()[0] for line in output.splitlines() if line.split() and line.split()[0] in list_recipes()]


@pytest.mark.parametrize("columns", [80, 40])
def test_no_name_is_cut_off(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 0, result.output
    assert rows_of(result.output) == list_recipes()
    models = {load_recipe(name).model.name for name in list_recipes()}
    data = {load_recipe(name).data.dataset for name in list_recipes()}
    cells = {cell for line in result.output.splitlines() for cell in line.split()[1:3]}
    assert models | data <= cells
    assert "safr/: SAFR\n" in result.output


def test_a_pattern_lists_what_matches() -> None:
    result = CliRunner().invoke(app, ["*/market1501_l*"])
    assert result.exit_code == 0, result.output
    assert rows_of(result.output) == [name for name in list_recipes() if "/market1501_l" in name]
    assert f"\n{len(rows_of(result.output))} recipe" in result.output
    nothing = CliRunner().invoke(app, ["nothing*"])
    assert "no recipe matches 'nothing*'" in str(nothing.exception)


def test_the_schedule_is_drawn(tmp_path: Path) -> None:
    out = tmp_path / "schedule.png"
    result = CliRunner().invoke(app, ["rmnet/market1501_light", "--plot-schedule", str(out)])
    assert result.exit_code == 0, result.output
    assert str(out) in result.output.replace("\n", "")
    with Image.open(out) as picture:
        assert min(picture.size) > 300
    for wrong in ([], ["safr/*"]):
        refused = CliRunner().invoke(app, [*wrong, "--plot-schedule", str(out)])
        assert refused.exit_code == 2
    for name in ("schedule.txt", "schedule"):
        refused = CliRunner().invoke(app, ["rmnet/market1501_light", "--plot-schedule", str(tmp_path / name)])
        assert refused.exit_code == 2
        assert "--plot-schedule" in refused.output
    assert list(tmp_path.iterdir()) == [out]


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
