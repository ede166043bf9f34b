from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from pyreid.cli.models import models
from pyreid.models import list_models

app = typer.Typer()
app.command()(models)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return result.output


def rows(output: str) -> dict[str, list[str]]:
    """First word of every line -> its words."""
    return {words[0]: words for line in output.splitlines() if (words := line.split())}


def test_lists_every_model_with_its_figures() -> None:
    output = run()
    table = rows(output)
    assert set(list_models()) <= set(table)
    assert " ".join(table["safr_baseline"]) == "safr_baseline 350x350 23.51M 10.09G 2048 26M, 4G at 224x224"
    assert " ".join(table["rmnet"]) == "rmnet 160x64 0.894M 57.97M 256 0.81M, 0.12G at 160x64"
    assert "0.81M, 0.58G at 384x128" in output
    assert "…" not in output


def test_a_pattern_selects() -> None:
    table = rows(run("safr_[sm]*"))
    assert {name for name in list_models() if name in table} == {"safr_medium", "safr_micro", "safr_small"}


def test_card_of_one_model() -> None:
    output = run("safr_small")
    assert "embedding 512" in output
    assert "11.18M parameters" in output
    assert "SAFR, Table 2, safr_small: 12M, 1.8G at 224x224\n  VeRi-776: mAP 77.14, rank-1 93.14\n" in output
    table = rows(output)
    assert table["mask"] == ["mask", "'ste'", "ste,", "soft,", "static_ste,", "static_soft"]
    assert table["preset"] == ["preset", "'paper'", "paper,", "author"]


def test_card_of_a_row_without_map_and_of_an_open_one() -> None:
    assert "SAFR, Tables 1 and 2, safr_large: 30M, 4.5G at 224x224\n" in (output := run("safr_large"))
    assert "  VRIC: rank-1 79.1\n  VeRi-Wild: mAP 77.9, rank-1 92.1\n  VehicleID: rank-1 75.4\n" in output
    assert "  open: Table 2 prints 0.13 G" in run("safr_micro")
    assert "  recipe safr/veri776_small\n" in run("safr_small")


def test_paper_table() -> None:
    output = run("--paper")
    lines = [line.split() for line in output.splitlines()]
    assert ["safr_small", "224x224", "params", "12.00M", "11.18M", "-6.8%", "(10%)", "yes"] in lines
    assert ["MACs", "1.80G", "1.83G", "+1.8%", "(5%)"] in lines
    assert ["rmnet", "light", "160x64", "weights", "0.810M", "0.811M", "+0.1%", "(2%)", "yes"] in lines
    assert ["FLOPs", "120.0M", "115.8M", "-3.5%", "(5%)"] in lines
    assert " no" not in output
    assert "safr" not in run("rmnet", "--paper")


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="model: unknown name 'safr_smal'; did you mean safr_small"):
        models("safr_smal")
    with pytest.raises(
        ValueError, match=r"pattern: 'zz\*' matches no model; expected any of compact_reid_1x, .*rmnet, "
    ):
        models("zz*")


def test_help_has_an_example() -> None:
    assert "Example: pyreid models safr_small" in run("--help")
