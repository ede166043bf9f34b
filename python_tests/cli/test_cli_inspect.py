"""``pyreid inspect``: pictures, numbers, a table, and errors before anything is written."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
import yaml
from PIL import Image
from typer.testing import CliRunner

from pyreid.cli.inspect import inspect
from pyreid.models import create_model
from pyreid.report import activation_density, weight_ratio
from python_tests.training.tiny import RECIPE

app = typer.Typer()
app.command()(inspect)


@pytest.fixture(autouse=True)
def _fresh_weights() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="model: .* has fresh weights")
        yield


def run(*arguments: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return " ".join(result.output.replace("│", " ").split())


def fails(*arguments: str | Path) -> str:
    """The message of an error that the command line prints as one line."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 1
    assert isinstance(result.exception, ValueError | OSError)
    return str(result.exception)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def numbers(folder: Path) -> dict[str, dict]:
    return json.loads((folder / "inspection.json").read_text())


@pytest.mark.parametrize(
    ("model", "attention"), [("safr_small", True), ("safr_micro", True), ("rmnet", False), ("compact_reid_1x", False)]
)
def test_draws_all_that_a_model_has(model: str, attention: bool, tmp_path: Path) -> None:
    output = run(model, "--size", "64x32", "--out", tmp_path)
    kinds = {"density", "features", "weights"} | ({"attention"} if attention else set())
    assert names(tmp_path) == {"inspection.json", *(f"{kind}.png" for kind in kinds)}
    assert "activation density" in output
    assert "median of" in output
    found = numbers(tmp_path)
    assert kinds == set(found) - {"model", "against", "images", "size"}
    assert (found["model"], found["size"], found["images"]) == (model, [64, 32], "drawn")
    assert found["density"]["images"] == 4


def test_numbers_are_those_of_the_functions(tmp_path: Path) -> None:
    model = create_model("safr_small")
    torch.save(model.state_dict(), tmp_path / "w.pt")
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for index in range(5):
        pixels = rng.integers(0, 256, (64, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{index}.png")
    run("safr_small", "--weights", tmp_path / "w.pt", "--images", tmp_path / "images", "--size", "64x32", "--csv",
        "--tolerance", "0.1", "--out", tmp_path / "out")  # fmt: skip
    model.default_input_size = (64, 32)
    expected = activation_density(model, sorted((tmp_path / "images").iterdir()), tolerance=0.1)
    found = numbers(tmp_path / "out")
    assert found["density"] == expected.summary()
    assert found["weights"] == weight_ratio(model).summary()
    assert found["density"]["images"] == 5
    assert len(found["attention"]["maps"]) == 4  # the first four
    assert {"density.csv", "attention.csv", "features.csv", "weights.csv"} <= names(tmp_path / "out")


def test_one_thing_of_two_models(tmp_path: Path) -> None:
    output = run(
        "rmnet", "--what", "weights", "--set", "activation=relu", "--against", "rmnet", "--csv", "--out", tmp_path
    )
    assert names(tmp_path) == {"inspection.json", "weights.png", "weights.csv", "weights_against.csv"}
    assert "rmnet activation=relu" in output
    found = numbers(tmp_path)["weights"]
    assert len(found["layers"]) == len(found["against"]["layers"]) == 114


def test_densities_of_two_models(tmp_path: Path) -> None:
    output = run("safr_baseline", "--what", "density", "--against", "safr_large", "--size", "32x32", "--out", tmp_path)
    assert "safr_baseline safr_large" in output
    assert {"stages", "layers", "against"} <= set(numbers(tmp_path)["density"])


def test_channels_of_the_stages(tmp_path: Path) -> None:
    run("cw_resnet18", "--what", "features", "--channels", "3", "--size", "32x32", "--out", tmp_path)
    maps = numbers(tmp_path)["features"]["maps"]
    assert [row["channel"] for row in maps[:4]] == [0, 1, 2, 0]


def test_a_run_brings_its_weights_overrides_and_normalisation(tmp_path: Path) -> None:
    model = create_model("rmnet", num_classes=5, activation="relu")
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "run/checkpoints/best.ckpt")
    recipe = yaml.safe_load(RECIPE)
    recipe["data"] |= {"size": [64, 32], "mean": [0.5] * 3, "std": [0.25] * 3}
    recipe["model"]["overrides"] = {"activation": "relu"}
    (tmp_path / "run/recipe.yaml").write_text(yaml.safe_dump(recipe))
    pixels = np.random.default_rng(0).integers(0, 256, (64, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # weights are there
        run(tmp_path / "run", "--what", "density", "--images", tmp_path / "a.png", "--out", tmp_path / "out")
    image = (torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255 - 0.5) / 0.25
    expected = activation_density(model, image)
    found = numbers(tmp_path / "out")
    assert found["size"] == [64, 32]
    for stage, density in expected.stages.items():
        assert found["density"]["stages"][stage] == pytest.approx(density, abs=1e-4)
    assert expected.stages["stage2"] < 0.9
    message = fails(tmp_path / "run", "--set", "activation=elu", "--out", tmp_path / "x")
    assert "is a run, which has its own settings" in message


def test_errors_come_before_anything_is_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "unknown name 'rmnett', and no folder or file of that name; did you mean rmnet" in fails(
        "rmnett", "--out", out
    )
    assert "models that have: safr_large," in fails("rmnet", "--what", "density", "--what", "attention", "--out", out)
    assert "nowhere: no such file or folder" in fails("rmnet", "--images", "nowhere", "--out", out)
    assert "expected convolutions that the first network has too" in fails(
        "rmnet", "--against", "safr_small", "--out", out
    )
    assert "unknown override 'depth'" in fails("rmnet", "--set", "depth=3", "--out", out)
    assert "weights" in fails("rmnet", "--weights", tmp_path / "none.pt", "--out", out)
    assert "expected the folder of a run, but there is no" in fails(str(tmp_path), "--out", out)
    assert "--against goes with --what" in run(
        "rmnet", "--what", "features", "--against", "rmnet", "--out", out, code=2
    )
    assert "go with --against" in run("rmnet", "--against-set", "activation=relu", "--out", out, code=2)
    assert "expected HEIGHTxWIDTH" in run("rmnet", "--size", "64", "--out", out, code=2)
    assert "expected KEY=VALUE" in run("rmnet", "--set", "activation", "--out", out, code=2)
    assert "expected a finite number" in run("rmnet", "--tolerance", "inf", "--out", out, code=2)
    assert not out.exists()


def test_command_line_prints_one_line_for_an_error(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pyreid", "inspect", "rmnet", "--what", "attention", "--out", str(tmp_path / "x")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0].startswith("pyreid: warning: model: rmnet has fresh weights; pass --weights")
    assert lines[1].startswith("pyreid: error: model: RMNet has no global attention; models that have: safr_large")
    assert len(lines) == 2
