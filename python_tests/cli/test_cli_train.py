from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from pyreid.cli.evaluate import evaluate
from pyreid.cli.train import train
from pyreid.data import synthesize
from pyreid.errors import DatasetError, RecipeError, TrainingError

app = typer.Typer()
app.command()(train)

QUICK = [
    "data.size=[32, 16]",
    "data.workers=0",
    "sampler.num_ids=3",
    "sampler.num_instances=2",
    "schedule.warmup=null",
    "trainer.epochs=1",
]


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cli_train") / "market"
    synthesize("market1501", root, num_train_ids=4, num_test_ids=3, images_per_id=4, size=(32, 16), workers=1)
    return root


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_train_then_resume(market: Path, tmp_path: Path) -> None:
    command = [
        "demo",
        f"data.root={market}",
        *QUICK,
        "schedule.decay={type: constant}",
        "--output",
        str(tmp_path / "run"),
    ]
    first = CliRunner().invoke(app, command)
    assert first.exit_code == 0, first.output
    lines = first.output.splitlines()
    assert lines[0].startswith("epoch 1/1  loss ")
    assert lines[1].startswith("best mAP ")
    assert (tmp_path / "run/checkpoints/best.ckpt").is_file()

    again = CliRunner().invoke(app, command)
    assert isinstance(again.exception, TrainingError)
    assert "--resume" in str(again.exception)

    longer = CliRunner().invoke(app, [*command, "trainer.epochs=2", "--resume", "--quiet"])
    assert longer.exit_code == 0, longer.output
    assert longer.output == ""
    assert len((tmp_path / "run/metrics.csv").read_text().splitlines()) == 3


def test_the_default_folder_has_the_recipes_name(market: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["demo", f"data.root={market}", *QUICK])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "runs/demo/metrics.csv").is_file()


def test_wrong_settings_are_errors(market: Path, tmp_path: Path) -> None:
    wrong = CliRunner().invoke(app, ["demo", "optimizer.lrr=1", "-o", str(tmp_path / "run")])
    assert isinstance(wrong.exception, RecipeError)
    unset = CliRunner().invoke(app, ["demo", "-o", str(tmp_path / "run")])
    assert re.match(r"recipe \S*/demo\.yaml: 'data\.root' is not set; .*data\.root=FOLDER", str(unset.exception))
    both = CliRunner().invoke(app, ["demo", f"data.root={market}", "--resume", "--overwrite"])
    assert both.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_half_a_data_set_names_the_keys_that_say_where_and_what_it_is(market: Path, tmp_path: Path) -> None:
    root = tmp_path / "half"
    shutil.copytree(market, root, ignore=shutil.ignore_patterns("query"))
    done = CliRunner().invoke(app, ["demo", f"data.root={root}", *QUICK[:-2], "--output", str(tmp_path / "run")])
    assert isinstance(done.exception, DatasetError)
    assert re.match(r"recipe \S+/demo\.yaml", str(done.exception))
    assert str(done.exception).endswith(
        f"'data.root' is '{root}', read as 'data.dataset' market1501: {root / 'query'}: folder not found"
    )


def test_repeated_runs_end_with_a_table(market: Path, tmp_path: Path) -> None:
    command = ["demo", f"data.root={market}", *QUICK, "--repeat", "2", "--output", str(tmp_path / "runs")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "2 runs, mean (standard deviation) in per cent" in result.output
    assert re.search(r"mAP\s+│\s+\d+\.\d\d \(\d+\.\d\d\)", result.output)
    assert (tmp_path / "runs/run-2/checkpoints/last.ckpt").is_file()
    assert (tmp_path / "runs/repeat.json").is_file()
    again = CliRunner().invoke(app, [*command, "--resume", "--quiet"])
    assert (again.exit_code, again.output) == (0, "")


@pytest.mark.slow
def test_torchrun_starts_the_processes(market: Path, tmp_path: Path) -> None:
    command = ["demo", f"data.root={market}", *QUICK, "trainer.accelerator=cpu", "sampler.num_ids=2"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "pyreid"]
    done = subprocess.run(
        [*launcher, "train", *command, "--output", str(tmp_path / "run")], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert [line.split("  ")[0].split(" at ")[0].split(" ")[0] for line in done.stdout.splitlines()] == [
        "epoch",
        "best",
    ]
    saved = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert saved["pyreid"]["world"] == 2


def test_vehicleid_is_evaluated_by_its_repeated_splits(tmp_path: Path) -> None:
    root = tmp_path / "vehicleid"
    sizes = {"num_train_ids": 4, "num_test_ids": 4, "images_per_id": 4, "size": (32, 32)}
    synthesize("vehicleid_800", root, **sizes, workers=1)  # type: ignore[arg-type]
    command = ["demo", "data.dataset=vehicleid_800", f"data.root={root}", *QUICK, "--output", str(tmp_path / "run")]
    trained = CliRunner().invoke(app, command)
    assert trained.exit_code == 0, trained.output
    with (tmp_path / "run/metrics.csv").open(newline="") as file:
        row = list(csv.DictReader(file))[-1]
    assert float(row["mAP_std"]) >= 0
    assert row["mINP"] == ""

    evaluation = typer.Typer()
    evaluation.command()(evaluate)
    out = tmp_path / "out.json"
    result = CliRunner().invoke(evaluation, [str(tmp_path / "run"), "--json", str(out), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    found = json.loads(out.read_text())
    assert len(found["maps"]) == 10
    assert found["map"] == pytest.approx(float(row["mAP"]), abs=1e-12)
    assert found["map_std"] == pytest.approx(float(row["mAP_std"]), abs=1e-12)
