"""Runs beside their papers: what is read from run folders, and the tables of it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from pyreid._files import write_json, write_text
from pyreid.cli.results import results
from pyreid.report.results import RunReport, read_results
from pyreid.report.results_table import as_markdown, as_rows, as_text
from pyreid.training import Recipe, dump_recipe, load_recipe
from pyreid.training.callbacks import write_metrics
from pyreid.training.run_folder import RunFolder

app = typer.Typer()
app.command()(results)

PAPER = (
    "paper={source: 'Paper, Table 1', mAP: 70, rank1: 80, reranked: {mAP: 85, rank1: 90}, "
    "stages: [{rank1: 50}, {rank1: 60}, {mAP: 65, rank1: 70}], runs: 3, std: {mAP: 0.4}}"
)
LAST = {"mAP": 0.715, "rank1": 0.79, "rank5": 0.9, "mINP": 0.3}


def make_run(folder: Path, *overrides: str, epochs: int = 2, synthetic: bool = False, **last: float) -> Recipe:
    """The folder of a run of ``demo`` with two planned epochs, of which so many are done."""
    recipe = load_recipe("demo", ["trainer.epochs=2", "trainer.evaluate_every=1", *overrides])
    run = RunFolder(folder)
    write_text(run.recipe, dump_recipe(recipe))
    history: list[dict[str, Any]] = [{"epoch": number + 1, "mAP": 0.5, "rank1": 0.5} for number in range(epochs)]
    history[-1] |= LAST | last
    facts = {"name": recipe.data.dataset, "synthetic": synthetic}
    write_metrics(run, recipe, history, history[-1], dataset=facts)
    return recipe


def make_group(folder: Path) -> None:
    for number in (1, 2):
        make_run(folder / f"run-{number}", PAPER)
    last = {"mAP": {"mean": 0.72, "std": 0.01}, "reranked.mAP": {"mean": 0.8, "std": None}}
    runs = [{"folder": f"run-{number}", "seed": number} for number in (1, 2)]
    write_json(folder / "repeat.json", {"recipe": "demo", "runs": runs, "last": last, "best": {}})


def numbers(report: RunReport) -> dict[tuple[str, str], tuple[float | None, float | None]]:
    return {
        (entry.evaluation, entry.metric): (entry.paper, None if entry.ours is None else round(entry.ours, 6))
        for entry in report.entries
    }


def read_one(folder: Path) -> RunReport:
    (report,), broken = read_results([folder])
    assert not broken
    return report


def test_a_run_beside_its_paper(tmp_path: Path) -> None:
    further = {"reranked.mAP": 0.86, "reranked.rank1": 0.88, "swa_mAP": 0.73, "reranked.swa_mAP": 0.87}
    stages = {f"stages.{name}.rank1": value for name, value in (("stage1", 0.51), ("stage2", 0.62), ("stage3", 0.73))}
    make_run(tmp_path / "deep" / "run", PAPER, **further, **stages, **{"stages.embedding.rank1": 0.79})
    report = read_one(tmp_path)
    assert (report.recipe, report.dataset, report.synthetic) == ("demo", "market1501", False)
    assert (report.epochs, report.planned_epochs, report.finished, report.runs) == (2, 2, True, None)
    assert report.source == "Paper, Table 1"
    assert numbers(report) == (
        {
            ("last", "mAP"): (70, 71.5),
            ("last", "rank1"): (80, 79),
            ("last", "rank5"): (None, 90),
            ("swa", "mAP"): (70, 73),
            ("swa", "rank1"): (80, None),
            ("re-ranked", "mAP"): (85, 86),
            ("re-ranked", "rank1"): (90, 88),
            ("re-ranked swa", "mAP"): (85, 87),
            ("re-ranked swa", "rank1"): (90, None),
            ("stage 1", "rank1"): (50, 51),
            ("stage 2", "rank1"): (60, 62),
            ("stage 3", "mAP"): (65, None),
            ("stage 3", "rank1"): (70, 73),
        }
    )
    differences = {(entry.evaluation, entry.metric): entry.difference for entry in report.entries}
    assert differences["last", "mAP"] == pytest.approx(1.5)
    assert differences["last", "rank5"] is None
    assert report.entries[0].paper_std == 0.4


def test_stages_of_the_paper_alone_and_of_the_run_alone(tmp_path: Path) -> None:
    make_run(tmp_path / "paper", PAPER)
    found = numbers(read_one(tmp_path / "paper"))
    assert (found["stage 2", "rank1"], found["re-ranked", "mAP"]) == ((60, None), (85, None))
    make_run(tmp_path / "ours", **{"stages.a.mAP": 0.4, "stages.b.mAP": 0.715})
    found = numbers(read_one(tmp_path / "ours"))
    assert found["stage 1", "mAP"] == (None, 40)
    assert ("stage 2", "mAP") not in found, "the last exit is the fused embedding, which is the main number"


def test_a_stage_of_the_paper_that_is_no_exit(tmp_path: Path) -> None:
    """The paper has a number for the last stage by itself; the last exit is the fused embedding."""
    exits = {"stages.stage1.rank1": 0.5, "stages.embedding.rank1": 0.79}
    make_run(tmp_path / "run", PAPER, "paper.stages=[{rank1: 45}, {rank1: 60}]", **exits)
    found = numbers(read_one(tmp_path / "run"))
    assert (found["stage 1", "rank1"], found["stage 2", "rank1"]) == ((45, 50), (60, None))


def test_a_group_has_means_and_deviations(tmp_path: Path) -> None:
    make_group(tmp_path / "group")
    make_run(tmp_path / "group" / "run-2", PAPER, epochs=1)
    report = read_one(tmp_path)
    assert (report.folder, report.runs, report.epochs, report.finished) == (tmp_path / "group", 2, 1, False)
    first, *_ = report.entries
    assert (first.paper, first.paper_std, first.ours, first.ours_std) == pytest.approx((70, 0.4, 72, 1))
    assert [entry.ours_std for entry in report.entries if entry.evaluation == "re-ranked"] == [None, None]


def test_a_run_that_is_not_finished_is_marked(tmp_path: Path) -> None:
    make_run(tmp_path / "half", PAPER, epochs=1, synthetic=True)
    text = as_text([read_one(tmp_path)])
    assert "demo: market1501 (synthetic), 1 of 2 epochs, NOT FINISHED" in text
    write_text(tmp_path / "begun" / "recipe.yaml", dump_recipe(load_recipe("demo")))
    report = read_one(tmp_path / "begun")
    assert (report.epochs, report.finished, report.entries) == (0, False, ())
    assert "| - |" in as_markdown([report])
    # Nobody wrote down which data that was, and they are not there.
    assert "(perhaps synthetic" in as_text([report])
    # A run that stopped early is finished.
    early = ["trainer.epochs=9", "trainer.early_stopping={patience: 1, min_delta: 0.9}"]
    make_run(tmp_path / "early", *early)
    assert "2 of 9 epochs\n" in as_text([read_one(tmp_path / "early")])


def test_text_fits_80_columns_and_is_aligned(tmp_path: Path) -> None:
    make_group(tmp_path / "group")
    text = as_text([read_one(tmp_path)])
    lines = text.replace(str(tmp_path), "").splitlines()
    assert max(map(len, lines)) <= 80
    row = next(line for line in lines if line.startswith("  last"))
    assert row.split() == ["last", "70.00", "72.00", "+2.00", "80.00", "-", "-", "-", "-", "-"]
    below = lines[lines.index(row) + 1]
    assert below.split() == ["+-", "0.40", "1.00", *["-"] * 7]
    assert row.index("72.00") + 5 == lines[1].index("ours") + 4 == below.index("1.00") + 4


def test_markdown_and_rows(tmp_path: Path) -> None:
    make_group(tmp_path / "group")
    report = read_one(tmp_path)
    assert "| 70.00 ± 0.40 / 72.00 ± 1.00 (+2.00) | 80.00 / - | - |" in as_markdown([report])
    widths = {line.count("|") for line in as_markdown([report]).splitlines()}
    assert len(widths) == 1
    rows = list(as_rows([report]))
    assert (rows[0]["evaluation"], rows[0]["ours"], rows[0]["runs"]) == ("last", pytest.approx(72), 2)
    assert rows[1]["ours"] == ""


def test_the_command_writes_files_and_names_broken_runs(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "good", PAPER)
    out = [tmp_path / "out.csv", tmp_path / "out.json"]
    command = [str(tmp_path / "runs"), "--csv", str(out[0]), "--json", str(out[1])]
    found = CliRunner().invoke(app, command)
    assert found.exit_code == 0, found.output
    assert "71.50" in found.stdout
    (row, *_) = csv.DictReader(io.StringIO(out[0].read_text()))
    assert (row["recipe"], row["metric"], row["difference"]) == ("demo", "mAP", "1.5")
    saved = json.loads(out[1].read_text())
    assert saved[0]["entries"][0]["difference"] == pytest.approx(1.5)

    cut = tmp_path / "runs" / "cut"
    make_run(cut)
    (cut / "metrics.json").write_text('{"recipe": ')
    (tmp_path / "runs" / "bare").mkdir()
    (tmp_path / "runs" / "bare" / "metrics.json").write_text("{}")
    make_run(tmp_path / "runs" / "old")
    (tmp_path / "runs" / "old" / "recipe.yaml").write_text("name: old\n")
    make_run(tmp_path / "runs" / "odd")
    (tmp_path / "runs" / "odd" / "metrics.json").write_text('{"epochs": "two", "last": {"mAP": 1}}')
    found = CliRunner().invoke(app, [*command, "--markdown"])
    assert found.exit_code == 1
    lines = found.stderr.splitlines()
    assert [line.split(": ")[2].rsplit("/", 1)[1] for line in lines] == ["bare", "cut", "odd", "old"]
    assert "no recipe.yaml" in lines[0]
    assert "metrics.json: cannot be read" in lines[1]
    assert "'epochs' is 'two', expected int" in lines[2]
    assert found.stdout.count("| demo |") == 5, "last, re-ranked and three stages; the good run alone"


def test_where_nothing_is(tmp_path: Path) -> None:
    assert "no run found below" in str(CliRunner().invoke(app, [str(tmp_path)]).exception)
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        read_results([tmp_path / "nowhere"])
