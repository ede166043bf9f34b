"""Which model an argument of the command line means, and with which weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from pyreid.cli.opening import find_run, open_model
from pyreid.errors import WeightsError
from pyreid.models import create_model
from python_tests.inference.networks import shorten_rmnet
from python_tests.training.tiny import RECIPE


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shorten_rmnet(monkeypatch)


def make_run(folder: Path) -> None:
    """A run of an RMNet without calibration layer."""
    (folder / "checkpoints").mkdir(parents=True)
    model = create_model("rmnet", num_classes=5, calibration="none")
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state}, folder / "checkpoints/best.ckpt")
    recipe = yaml.safe_load(RECIPE)
    recipe["data"] |= {"size": [64, 32], "mean": [0.5] * 3, "std": [0.25] * 3}
    recipe["model"]["overrides"] = {"calibration": "none"}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))


def test_a_models_name_wins_unless_the_folder_is_a_run() -> None:
    Path("rmnet").mkdir()
    assert find_run("rmnet") is None
    assert find_run("./rmnet") == find_run("rmnet/") == Path("rmnet")
    Path("hacnn").touch()
    assert find_run("hacnn") is None
    make_run(Path("rmnet/."))
    assert find_run("rmnet") == Path("rmnet")


def test_names_and_paths_that_are_not_there() -> None:
    with pytest.raises(ValueError, match="unknown name 'rmnett'; did you mean rmnet"):
        find_run("rmnett")
    with pytest.raises(FileNotFoundError, match="model: runs/rmnet: no such folder or file"):
        find_run("runs/rmnet")


@pytest.mark.parametrize("name", ["runs/one", "runs/one/checkpoints/best.ckpt"])
def test_a_run_brings_its_recipe(name: str) -> None:
    make_run(Path("runs/one"))
    opened = open_model(name, None)
    assert (opened.name, opened.label) == ("rmnet", "one")
    assert (opened.images.size, opened.images.std) == ((64, 32), (0.25,) * 3)
    assert opened.recipe is not None
    saved = torch.load("runs/one/checkpoints/best.ckpt")["state_dict"]
    for key, value in opened.network.state_dict().items():
        assert torch.equal(value, saved[f"model.{key}"]), key


def test_from_inside_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(Path("one"))
    monkeypatch.chdir("one/checkpoints")
    assert open_model("best.ckpt", None).label == "one"
    monkeypatch.chdir("..")
    assert open_model(".", None).label == "one"


def test_fresh_weights_and_overrides_are_for_models_by_name() -> None:
    plain = open_model("rmnet", "none", overrides={"calibration": "none"})
    assert plain.network.config.calibration == "none"
    assert plain.recipe is None
    make_run(Path("one"))
    with pytest.raises(ValueError, match="weights: got 'none' for the run one"):
        open_model("one", "none")
    with pytest.raises(ValueError, match="--set: one is a run"):
        open_model("one", None, overrides={"activation": "relu"})
    with pytest.raises(ValueError, match="has its own"):
        open_model("one/checkpoints/best.ckpt", "w.pt")


def test_weights_of_a_backbone() -> None:
    torch.save(create_model("cw_mobilenet_v3_small").backbone.state_dict(), "imagenet.pth")
    with pytest.raises(WeightsError, match=r"imagenet\.pth holds a backbone"):
        open_model("cw_mobilenet_v3_small", "imagenet.pth")
    with pytest.warns(UserWarning, match=r"imagenet\.pth holds a backbone"):
        open_model("cw_mobilenet_v3_small", "imagenet.pth", partial="warn")
