"""The table of evidence: its runs, what is kept after an interruption, its statistics and its recipes."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from pyreid.cli.main import app
from pyreid.errors import TrainingError
from pyreid.report import evidence
from pyreid.report.evidence import Sizes, run_evidence
from pyreid.report.evidence_run import Job
from pyreid.report.evidence_table import ROWS, change, collect, draw, mean_and_deviation, read_record, tables
from pyreid.training import load_recipe
from pyreid.training.resume import changed_keys
from python_tests.training.test_resume import interrupt

pytestmark = pytest.mark.filterwarnings("ignore::pyreid.data.DatasetWarning")

SIZES = Sizes(train_ids=4, test_ids=3, images_per_id=4)
TINY = (
    "trainer.epochs=2",
    "trainer.evaluate_every=2",
    "sampler.num_ids=3",
    "sampler.num_instances=2",
    "schedule.warmup=null",
)


def record(subset: str, row: str, seed: int, value: float, **others: float) -> dict[str, Any]:
    """The record of a run whose scores are ``value``, re-ranked 0.1 more."""

    def scores(number: float) -> dict[str, float]:
        return {"mAP": number, "rank1": number / 2, "mINP": number / 4}

    settings = load_recipe(f"evidence/{row}").model_dump(mode="json")
    return {
        "subset": subset,
        "row": row,
        "seed": seed,
        "untrained": scores(0.05),
        "scores": scores(value),
        "reranked": scores(value + 0.1),
        "steps": 8,
        "parameters": 5_000_000,
        "resumed": False,
        "seconds": 3.0,
        "cpu_seconds": 2.0,
        "torch": "2.11.0",
        "recipe": settings,
        **others,
    }


def results(runs: list[dict[str, Any]], *rows: str) -> dict[str, Any]:
    facts = {"layout": "veri776", "size": [64, 48], "train_ids": 4, "test_ids": 3, "cameras": 2}
    counts = {"train": 16, "query": 5, "gallery": 12}
    return {"sets": {"vehicle": facts | counts}, "rows": list(rows), "planned_seeds": 3, "runs": runs}


def test_mean_and_deviation() -> None:
    assert mean_and_deviation([0.1, 0.2, 0.6]) == pytest.approx((0.3, math.sqrt((0.04 + 0.01 + 0.09) / 2)))
    mean, deviation = mean_and_deviation([0.25])
    assert mean == 0.25
    assert math.isnan(deviation)
    assert all(math.isnan(value) for value in mean_and_deviation([]))


def test_a_change_is_taken_seed_by_seed() -> None:
    before = {0: {"mAP": 0.1}, 1: {"mAP": 0.5}, 2: {"mAP": 0.9}}
    runs = {1: {"mAP": 0.4}, 0: {"mAP": 0.3}, 7: {"mAP": 1.0}}
    assert change(runs, before) == pytest.approx((0.05, math.sqrt(0.045)))  # of +0.2 and -0.1
    assert all(math.isnan(value) for value in change({3: {"mAP": 1.0}}, before))


def test_table_of_numbers_made_by_hand() -> None:
    runs = [
        record("vehicle", "baseline", 0, 0.2),
        record("vehicle", "baseline", 1, 0.4, cpu_seconds=4.0),
        record("vehicle", "dbam", 0, 0.5, resumed=True, cpu_seconds=900.0),
        record("person", "baseline", 0, 0.99, cpu_seconds=6.0),
    ]
    text = tables(results(runs, "baseline", "dbam"))
    assert "| baseline, untrained | 2 | 5.0 ± 0.0 | 2.5 ± 0.0 | 1.2 ± 0.0 |  |" in text
    assert "| baseline | 2 | 30.0 ± 14.1 | 15.0 ± 7.1 | 7.5 ± 3.5 | +25.0 ± 14.1 |" in text
    assert "| + DBAM | 1 | 50.0 | 25.0 | 12.5 | +30.0 |" in text  # against 20.0, the seed that both have
    assert "| + re-ranking | 1 | 60.0 | 30.0 | 15.0 | +10.0 |" in text
    assert "| baseline, re-ranked | 2 | 40.0 ± 14.1 | 20.0 ± 7.1 | 10.0 ± 3.5 | +10.0 ± 0.0 |" in text
    assert "99" not in text  # the person set is not asked for
    assert "4 of 6 runs are finished. Each has 20 epochs with batches of 64 (8 steps), a median of 4 s" in text


def test_a_row_without_runs_has_no_numbers() -> None:
    text = tables(results([], "baseline", "gem"))
    assert "| + GeM | 0 | - | - | - | - |" in text
    assert text.endswith("0 of 6 runs are finished.\n")


def test_picture_has_a_dot_for_every_seed() -> None:
    found = results([record("vehicle", "baseline", seed, 0.1 * seed) for seed in (1, 2, 3)], "baseline", "gem")
    axes = draw(found).axes[0]
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [list(line.get_xdata()) for line in dots][1] == pytest.approx([10, 20, 30])
    assert [label.get_text() for label in axes.get_yticklabels()] == [row[0] for row in collect(found, "vehicle")]


def test_each_recipe_changes_one_thing() -> None:
    """The rows of the table are what their titles say."""
    recipes = [load_recipe(f"evidence/{row}").model_dump(mode="json") for row in ROWS]
    added = [
        sorted({key.split(" ")[0] for key in changed_keys(before, after)})
        for before, after in itertools.pairwise(recipes)
    ]
    assert added == [
        ["model.overrides.neck"],
        ["model.overrides.global_attention"],
        ["model.overrides.where"],
        ["losses.1.margin", "losses.1.type"],
        ["model.overrides.pooling"],
    ]
    assert recipes[-1]["losses"][1] == {
        "type": "batch_soft_triplet",
        "embedding": "features",
        "margin": None,
        "reduction": "mean",
        "weight": 1.0,
    }


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rows with one seed, by the command."""
    folder = tmp_path_factory.mktemp("evidence") / "out"
    sizes = ("--train-ids", "4", "--test-ids", "3", "--images-per-id", "4", "--repeat", "1")
    rows = ("--row", "norm_neck", "--row", "baseline")
    done = CliRunner().invoke(app, ["evidence", "--output", str(folder), *TINY, *rows, *sizes])
    assert done.exit_code == 0, done.output
    assert "person norm_neck seed 0: mAP" in done.output
    assert "**Person set**" in done.output
    return folder


def options(**others: Any) -> dict[str, Any]:
    return {"repeat": 1, "rows": ["baseline", "norm_neck"], "sizes": SIZES, "overrides": TINY} | others


def test_command_trains_rows_on_both_sets(output: Path) -> None:
    found = json.loads((output / "results.json").read_text())
    runs = [(run["subset"], run["row"], run["seed"]) for run in found["runs"]]
    expected = [(subset, row, 0) for subset in ("vehicle", "person") for row in ("baseline", "norm_neck")]
    assert runs == expected
    assert (
        found["sets"]["person"] | {"layout": "market1501", "train": 16, "train_ids": 4, "test_ids": 3}
        == (found["sets"]["person"])
    )
    for run in found["runs"]:
        folder = output / "runs" / run["subset"] / run["row"] / "seed-0"
        last = json.loads((folder / "metrics.json").read_text())["last"]
        assert run["scores"] == pytest.approx({name: last[name] for name in ("mAP", "rank1", "mINP")})
        assert run == read_record(folder / "run.json")
        assert not run["resumed"]
    first, second = found["runs"][:2]
    assert first["recipe"]["data"]["dataset"] == "veri776"
    assert first["recipe"]["model"]["overrides"]["neck"] == "none"
    assert second["recipe"]["model"]["overrides"]["neck"] == "ln"
    assert second["parameters"] - first["parameters"] == 1024
    assert first["untrained"] != first["scores"]
    assert (output / "table.md").read_text() == tables(found)
    assert (output / "results.png").read_bytes().startswith(b"\x89PNG")
    assert not [path for path in output.iterdir() if path.name.startswith(".")]


def test_finished_runs_are_kept_and_an_interrupted_one_is_resumed(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is cut off in its second epoch goes on there and ends with the scores of the whole one."""
    cut = output / "runs/vehicle/norm_neck/seed-0"
    whole = read_record(cut / "run.json")
    shutil.rmtree(cut)
    job = next(job for job in evidence._plan(output, rows=["norm_neck"], repeat=1, overrides=TINY))
    torch.set_num_threads(1)
    interrupt(monkeypatch, load_recipe(job.recipe, job.overrides), cut, epoch=1, batch=1)
    others = [path for path in sorted(output.rglob("run.json")) if path.parent != cut]
    written = [path.stat().st_mtime_ns for path in others]
    started: list[str] = []
    start = evidence._start
    monkeypatch.setattr(evidence, "_start", lambda job: (started.append(job.title), start(job))[1])
    found = run_evidence(output, **options(), say=lambda _: None)
    assert started == ["vehicle norm_neck seed 0"]
    assert [path.stat().st_mtime_ns for path in others] == written
    again = read_record(cut / "run.json")
    assert again["resumed"]
    assert again["scores"] == whole["scores"]
    assert len(found["runs"]) == 4


def test_runs_of_other_settings_are_refused(output: Path) -> None:
    before = (output / "results.json").read_bytes()
    with pytest.raises(TrainingError, match=r"norm_neck|baseline.*trainer\.epochs \(was 2, is 3\)"):
        run_evidence(output, **options(overrides=(*TINY, "trainer.epochs=3", "trainer.evaluate_every=3")))
    with pytest.raises(TrainingError, match=r"optimizer\.lr \(was 0\.002, is 0\.1\); choose another --output"):
        run_evidence(output, **options(overrides=(*TINY, "optimizer.lr=0.1")))
    with pytest.raises(TrainingError, match=r"holds another data set: num_test_ids \(was 3, is 5\)"):
        run_evidence(output, **options(sizes=Sizes(train_ids=4, test_ids=5, images_per_id=4)))
    assert (output / "results.json").read_bytes() == before


def test_a_run_that_fails_is_named_and_others_go_on(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of two new runs finds its folder taken by a file."""
    taken = output / "runs/vehicle/dbam/seed-0/checkpoints/last.ckpt"
    taken.parent.mkdir(parents=True)
    taken.write_text("no checkpoint")
    monkeypatch.setattr(evidence, "SUBSETS", evidence.SUBSETS[:1])
    lines: list[str] = []
    with pytest.raises(TrainingError, match=r"1 of 4 runs failed, first vehicle dbam seed 0: see .*log\.txt"):
        run_evidence(output, **options(rows=["baseline", "norm_neck", "dbam", "gem"], jobs=1), say=lines.append)
    assert "pyreid: error: checkpoint" in (output / "runs/vehicle/dbam/seed-0/log.txt").read_text()
    found = json.loads((output / "results.json").read_text())
    assert [run["row"] for run in found["runs"]] == ["baseline", "norm_neck", "gem"]
    assert lines[-1].startswith("vehicle gem seed 0: mAP")


def test_seeds_come_one_after_the_other(tmp_path: Path) -> None:
    plan = list(evidence._plan(tmp_path, rows=["baseline", "gem"], repeat=2, overrides=()))
    assert [job.title for job in plan][:5] == [
        "vehicle baseline seed 0",
        "vehicle gem seed 0",
        "person baseline seed 0",
        "person gem seed 0",
        "vehicle baseline seed 1",
    ]
    assert Job.from_json(plan[3].to_json()) == plan[3]
    assert load_recipe(plan[4].recipe, plan[4].overrides).seed == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"repeat": 0}, "repeat: got 0, expected at least 1"),
        ({"jobs": 0}, "jobs: got 0, expected at least 1"),
        ({"rows": ["gem", "gam"]}, "rows: got gam, expected some of baseline, norm_neck"),
        ({"rows": []}, "rows: got none"),
    ],
)
def test_wrong_arguments_are_named(tmp_path: Path, changed: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_evidence(tmp_path, **options(**changed))


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    for text in ("{", "[]", "{}"):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(TrainingError, match=r"run\.json: (cannot be read|is not the record)"):
            read_record(tmp_path / "run.json")
