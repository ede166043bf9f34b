"""Which model a name or a path means, and with which weights; the same for the command line and FeatureExtractor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import pyreid
from pyreid.errors import RecipeError, WeightsError
from pyreid.inference import opening
from pyreid.inference.opening import find_run, open_model
from pyreid.models import create_model
from pyreid.training.run_folder import RunFolder
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
    recipe["evaluation"] = {"flip": "concat"}
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
    with pytest.raises(ValueError, match=r"unknown name 'rmnett', and no folder or file .*; did you mean rmnet"):
        find_run("rmnett")
    with pytest.raises(FileNotFoundError, match="model: runs/rmnet: no such folder or file"):
        find_run("runs/rmnet")
    with pytest.raises(ValueError, match=r"unknown name 'first', and no folder or file of that name; expected one of"):
        find_run("first")
    with pytest.raises(ValueError, match="unknown name ''"):
        find_run("")
    for gone in ("gone.onnx", Path("rmnet")):
        with pytest.raises(FileNotFoundError, match=f"model: {gone}: no such folder or file"):
            find_run(gone)


def test_files_that_are_no_checkpoint_of_a_run() -> None:
    Path("photo.jpg").touch()
    with pytest.raises(ValueError, match=r"photo\.jpg: expected a model's name, the folder of a run or a checkpoint"):
        open_model("photo.jpg", None)
    Path("w.pt").touch()
    with pytest.raises(FileNotFoundError, match=r"no .*recipe\.yaml; other weights go with a model's name, as weights"):
        open_model("w.pt", None)


@pytest.mark.parametrize("name", ["runs/one", "runs/one/checkpoints/best.ckpt"])
def test_a_run_brings_its_recipe(name: str) -> None:
    make_run(Path("runs/one"))
    opened = open_model(name, None)
    assert (opened.name, opened.label) == ("rmnet", "one")
    assert (opened.images.size, opened.images.std) == ((64, 32), (0.25,) * 3)
    assert opened.run == Path("runs/one").absolute()
    assert (opened.flip, opened.crops) == ("concat", "none")
    saved = torch.load("runs/one/checkpoints/best.ckpt")["state_dict"]
    for key, value in opened.network.state_dict().items():
        assert torch.equal(value, saved[f"model.{key}"]), key


def test_from_inside_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(Path("one"))
    monkeypatch.chdir("one/checkpoints")
    assert open_model("best.ckpt", None).label == "one"
    monkeypatch.chdir("..")
    assert open_model(".", None).label == "one"
    monkeypatch.setenv("HOME", str(Path("..").absolute()))
    assert open_model("~/one", None).label == "one"


def test_fresh_weights_and_overrides_are_for_models_by_name() -> None:
    plain = open_model("rmnet", "none", overrides={"calibration": "none"})
    assert plain.network.config.calibration == "none"
    assert (plain.run, plain.flip) == (None, "none")
    make_run(Path("one"))
    with pytest.raises(ValueError, match="weights: got 'none' for the run one"):
        open_model("one", "none")
    with pytest.raises(ValueError, match=r"overrides \(--set\): one is a run"):
        open_model("one", None, overrides={"activation": "relu"})
    with pytest.raises(ValueError, match="has its own"):
        open_model("one/checkpoints/best.ckpt", "w.pt")


def test_weights_of_a_backbone() -> None:
    torch.save(create_model("cw_mobilenet_v3_small").backbone.state_dict(), "imagenet.pth")
    with pytest.raises(WeightsError, match=r"imagenet\.pth holds a backbone"):
        open_model("cw_mobilenet_v3_small", "imagenet.pth")
    with pytest.warns(UserWarning, match=r"imagenet\.pth holds a backbone"):
        open_model("cw_mobilenet_v3_small", "imagenet.pth", partial="warn")


def test_an_extractor_of_a_run() -> None:
    make_run(Path("runs/one"))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 32, 3), dtype=np.uint8)
    model = create_model("rmnet", calibration="none", weights="runs/one/checkpoints/best.ckpt")
    by_hand = {"size": (64, 32), "mean": (0.5,) * 3, "std": (0.25,) * 3}
    expected = pyreid.FeatureExtractor(model, flip="concat", **by_hand)(pixels)
    averaged = {f"model.{key}": value + (value.dtype.is_floating_point) for key, value in model.state_dict().items()}
    torch.save({"state_dict": averaged}, "runs/one/checkpoints/swa.ckpt")
    for run in ("runs/one", Path("runs/one"), "runs/one/checkpoints/best.ckpt"):
        extract = pyreid.FeatureExtractor(run, device="cpu")
        np.testing.assert_array_equal(extract(pixels), expected)
    own = pyreid.FeatureExtractor("runs/one", device="cpu", flip="none", size=(32, 32), std=np.float32([1, 1, 1]))
    assert (own.flip, own.images.size, own.images.std) == ("none", (32, 32), (1.0,) * 3)
    assert own.images.mean == (0.5,) * 3
    for averages in (("runs/one", "runs/one/checkpoints/swa.ckpt"), ("runs/one/checkpoints/swa.ckpt", None)):
        other = pyreid.FeatureExtractor(averages[0], weights=averages[1], device="cpu")
        assert torch.equal(other.model.input_bn.running_mean, model.input_bn.running_mean + 1)


def test_the_names_in_a_run_are_those_that_training_gives_them() -> None:
    folder = RunFolder(Path("one"))
    assert folder.recipe == Path("one") / opening.RECIPE
    assert folder.best_checkpoint == Path("one") / opening.CHECKPOINTS / opening.BEST


def test_runs_that_are_not_whole() -> None:
    make_run(Path("one"))
    Path("one/checkpoints/best.ckpt").unlink()
    with pytest.raises(WeightsError, match=r"no .*one/checkpoints/best\.ckpt yet"):
        pyreid.FeatureExtractor("one")
    for text, message in (
        ("a: [", "cannot be read as YAML"),
        ("- 1", "'the whole' is"),
        ("model: 1", "'model' is 1"),
        ("model: {name: rmnet}\ndata: {size: [64]}", r"'data\.size\.1' is \[64\]: Field required"),
        ("model: {name: rmnet}\nevaluation: {flip: both}", r"'evaluation\.flip' is 'both'"),
    ):
        Path("one/recipe.yaml").write_text(text)
        with pytest.raises(RecipeError, match=f"recipe .*one/recipe.yaml: {message}"):
            pyreid.FeatureExtractor("one")
    Path("one/recipe.yaml").write_text("model: {name: rmnet}\nkey_of_the_future: 1\n")
    with pytest.raises(WeightsError, match="yet"):
        pyreid.FeatureExtractor("one")


def test_a_folder_of_repeated_runs_names_one_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("all/run-1").mkdir(parents=True)
    Path("all/run-1/recipe.yaml").write_text("model: {name: rmnet}\n")
    with pytest.raises(FileNotFoundError, match="model: all: holds repeated runs; give one of them, such as all/run-1"):
        open_model("all", None)
