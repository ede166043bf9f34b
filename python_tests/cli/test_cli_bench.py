from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from pyreid.cli.bench import bench
from pyreid.errors import PyreidError


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.command()(bench)
    return app


@pytest.fixture
def small_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("pyreid.benchmarks.bench_pairwise_distance"), "CASES", [(5, 4, 3)])


@pytest.mark.usefixtures("small_case")
def test_prints_a_table_and_writes_json(tmp_path: Path, app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["pairwise_distance", "--repeats", "2", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "torch.cdist" in result.output
    (written,) = tmp_path.iterdir()
    assert f"written: {written}" in result.output
    rows = json.loads(written.read_text())
    assert {row["peer"] for row in rows} == {"torch.cdist", "torch eager"}
    for row in rows:
        assert row["ours_ms"] > 0
        assert row["peer_ms"] > 0
        assert (row["op"], row["case"], row["torch"]) == ("pairwise_distance", "5x4x3", torch.__version__)


@pytest.mark.usefixtures("small_case")
def test_rows_of_other_cases_are_kept(tmp_path: Path, app: typer.Typer) -> None:
    other = {"op": "other", "case": "1", "dtype": "float32", "device": "d", "peer": "p", "ours_ms": 1}
    out = tmp_path / "results.json"
    out.write_text(json.dumps([other]))
    for _ in range(2):
        result = CliRunner().invoke(app, ["pairwise_distance", "--repeats", "1", "--out", str(out)])
        assert result.exit_code == 0, result.output
    rows = json.loads(out.read_text())
    assert other in rows
    assert len(rows) == 3


@pytest.mark.usefixtures("small_case")
def test_a_peer_with_other_results_ends_the_run(
    tmp_path: Path, app: typer.Typer, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = import_module("pyreid.benchmarks.bench_pairwise_distance")
    monkeypatch.setattr(module, "plain", lambda x, y: x @ y.T)
    result = CliRunner().invoke(app, ["pairwise_distance", "--repeats", "1", "--out", str(tmp_path)])
    assert isinstance(result.exception, PyreidError)
    assert "disagree" in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_every_benchmark_is_found() -> None:
    package = import_module("pyreid.benchmarks")
    folder = Path(__file__).parents[2] / "benchmarks"
    assert set(package.NAMES) == {path.stem.removeprefix("bench_") for path in folder.glob("bench_*.py")}
    for name in package.NAMES:
        module = import_module(f"pyreid.benchmarks.bench_{name}")
        assert module.REPEATS >= 1
        assert callable(module.measure)


def test_unknown_name_exits_with_2(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["gem"])
    assert result.exit_code == 2
    assert "gem_pool" in result.output


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_device_is_one_line() -> None:
    command = [sys.executable, "-m", "pyreid", "bench", "gem_pool", "--device", "cuda"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "pyreid: error: --device: torch sees no CUDA device\n"
