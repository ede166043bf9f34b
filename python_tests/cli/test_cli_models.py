from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pyreid.cli.models import models
from pyreid.models import figures, list_models, paper

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
    assert "input 350x350" in output
    assert "11.18M parameters" in output
    costs = re.search(
        r'^(.*)G MACs, the "FLOPs" of SAFR, Compact-ReID and DaRe; (.*)G FLOPs, two for a MAC, as in RMNet$',
        output,
        re.M,
    )
    assert costs is not None
    # 1.83 G at 224 x 224
    assert float(costs[1]) == pytest.approx(1.83 * (350 / 224) ** 2, rel=0.03)
    assert float(costs[2]) == pytest.approx(2 * float(costs[1]), abs=0.02)
    assert "norms 12.22M and activations 11.08M operations besides\n" in output
    assert "SAFR, Table 2, safr_small: 12M, 1.8G at 224x224\n" in output
    assert "  VeRi-776: mAP 77.14, rank-1 93.14\n" in output
    table = rows(output)
    assert table["mask"] == ["mask", "'ste'", "ste,", "soft,", "static_ste,", "static_soft"]
    assert table["preset"] == ["preset", "'paper'", "paper,", "author"]


def test_a_card_has_ours_counted_as_the_paper_counts() -> None:
    output = run("safr_small")
    assert "input 350x350 (for training and retrieval; the paper counts costs at 224x224), embedding 512\n" in output
    assert ": 12M, 1.8G at 224x224\n  ours, counted so: 11.18M params, 1.83G MACs\n" in output
    output = run("shufflenet_v2_plus_small")
    assert "\n3.86M parameters without the identity classifier\n" in output
    assert ": 5.1M, 0.156G at 224x224, with classifier\n  ours, counted so: 5.14M params, 155.8M MACs (num_c" in output
    assert "input 160x64, embedding 256\n" in run("rmnet")
    assert "ours, counted" not in run("cw_mobilenet_v3_small"), "the sizes of the coursework are not printed in it"


def test_figures_that_several_rows_share_are_there_once() -> None:
    lines = [line.split() for line in run("compact_reid_1x*").splitlines() if "160x64" in line]
    assert [line[5:] for line in lines] == [["2.9M,", "0.72G", "at", "160x64"]]
    assert run("dare*").count("no sizes printed") == 2
    lines = [line.split() for line in run("dare*", "--paper").splitlines() if "256x128" in line]
    assert [line[0] for line in lines] == ["dare_d201", "dare_r50"]


def test_card_of_a_row_without_map_and_of_an_open_one() -> None:
    assert "SAFR, Tables 1 and 2, safr_large: 30M, 4.5G at 224x224\n" in (output := run("safr_large"))
    assert "  VRIC: rank-1 79.1\n  VeRi-Wild: mAP 77.9, rank-1 92.1\n  VehicleID: rank-1 75.4\n" in output
    assert "  open: Table 2 prints 0.13 G" in run("safr_micro")
    assert "no sizes printed" in run("dare_r50")


def test_card_names_the_recipes_that_train_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def recipes(name: str) -> list[str]:
        (line,) = (line for line in run(name).splitlines() if line.startswith("recipes: "))
        return line.removeprefix("recipes: ").split(", ")

    assert "safr/veri776_small" in recipes("safr_small")
    assert "safr/veri776_large" not in recipes("safr_small")
    assert {"rmnet/market1501_light", "rmnet/r1_am_softmax"} <= set(recipes("rmnet"))
    assert recipes("shufflenet_v2_plus_large") == ["none"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "cars.yaml").write_text("base: ../own.yaml\nmodel: {name: shufflenet_v2_plus_large}\n")
    (tmp_path / "mine" / "broken.yaml").write_text("no_such_key: 1\n")
    (tmp_path / "own.yaml").write_text((Path(__file__).parents[2] / "recipes/demo.yaml").read_text())
    monkeypatch.setenv("PYREID_RECIPES", str(tmp_path))
    assert recipes("shufflenet_v2_plus_large") == ["mine/cars"]
    assert "recipes that cannot be read: mine/broken\n" in run("shufflenet_v2_plus_large")


@pytest.mark.parametrize("name", ["compact_reid_2x", "cw_se_resnext50"])
def test_card_is_whole_on_a_narrow_terminal(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    narrow = run(name)
    assert "…" not in narrow
    monkeypatch.setenv("COLUMNS", "300")
    assert narrow == run(name)


def test_norms_and_activations_in_the_list() -> None:
    table = rows(run("compact_reid_1x*", "--elementwise"))
    assert table["model"] == ["model", "input", "params", "MACs", "norms", "activations", "dim", "paper"]
    assert table["compact_reid_1x"][1:6] == [
        "160x64", "2.91M", "682.7M", "18.53M", "6.41M"
    ]  # fmt: skip
    assert "norms" not in run("compact_reid_1x*")
    for others in (["rmnet"], ["rmnet*", "--paper"]):
        result = CliRunner().invoke(app, [*others, "--elementwise"])
        assert result.exit_code == 2
        assert "--elementwise goes with the list" in result.output


def test_paper_table() -> None:
    output = run("--paper")
    lines = [line.split() for line in output.splitlines()]
    assert ["safr_small", "224x224", "params", "12.00M", "11.18M", "-6.8%", "(10%)", "yes"] in lines
    assert ["MACs", "1.80G", "1.83G", "+1.8%", "(5%)"] in lines
    assert ["MACs", "130.0M", "162.3M", "+24.9%", "(130.0M", "to", "180.0M)"] in lines
    assert ["rmnet", "deployed", "160x64", "folded", "0.820M", "0.820M", "-0.0%", "(0.1%)", "yes"] in lines
    assert ["dare_r50", "256x128", "params", "27.98M*", "27.98M", "+0.0%", "(1%)", "yes"] in lines
    assert "MACs + norms" in output
    assert "* not printed in the paper" in output
    assert ["rmnet", "light", "160x64", "weights", "0.810M", "0.811M", "+0.1%", "(2%)", "yes"] in lines
    assert ["FLOPs", "120.0M", "115.8M", "-3.5%", "(5%)"] in lines
    assert verdicts(output) == {"yes", "open"}
    assert "safr" not in run("rmnet", "--paper")


def verdicts(output: str) -> set[str]:
    """The last words of the rows that name a row."""
    return {line.split()[-1] for line in output.splitlines() if line.split()[-1:] and line.split()[-1].isalpha()} & {
        "yes", "no", "open"
    }  # fmt: skip


@pytest.mark.parametrize("field", ["params", "cost"])
def test_a_wrong_number_says_no(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (figure,) = (figure for figure in figures.FIGURES if figure.row == "safr_small")
    wrong = dataclasses.replace(figure, **{field: 2 * getattr(figure, field)})
    monkeypatch.setattr(paper, "FIGURES", (wrong,))
    assert verdicts(run("safr_small", "--paper")) == {"no"}


def test_no_figures_to_compare_with() -> None:
    assert run("trinet_r18", "--paper") == "no figure of a paper to compare trinet_r18 with\n"
    assert run("trinet_r[15]*", "--paper") == "no figure of a paper to compare trinet_r18, trinet_r50 with\n"


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="model: unknown name 'safr_smal'; did you mean safr_small"):
        models("safr_smal")
    with pytest.raises(
        ValueError, match=r"pattern: 'zz\*' matches no model; expected any of compact_reid_1x, .*rmnet, "
    ):
        models("zz*")


def test_help_has_an_example() -> None:
    assert "Example: pyreid models safr_small" in run("--help")
