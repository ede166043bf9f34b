"""``pyreid export`` and ``pyreid bench --models``: files that embed as the model does, and errors of one line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
import yaml
from PIL import Image
from typer.testing import CliRunner

import pyreid
from pyreid.cli.bench import BenchCommand, bench
from pyreid.cli.export import export
from pyreid.cli.extract import extract
from pyreid.errors import ExportError, PyreidError, WeightsError
from pyreid.inference import open_exported
from pyreid.inference.sample_images import sample_images
from python_tests.inference.networks import shorten_rmnet, warmed_up
from python_tests.training.tiny import RECIPE

for package in ("onnx", "onnxruntime", "openvino"):
    pytest.importorskip(package)

SIZE = (64, 32)

app = typer.Typer()
app.command()(export)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    shorten_rmnet(monkeypatch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a short RMNet without calibration layer, its weights beside it, and photographs."""
    root = tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as patch:
        shorten_rmnet(patch)
        model = warmed_up("rmnet", num_classes=5, calibration="none")
    (root / "run/checkpoints").mkdir(parents=True)
    torch.save({"state_dict": {f"model.{key}": value for key, value in model.state_dict().items()}}, root / "w.ckpt")
    (root / "w.ckpt").rename(root / "run/checkpoints/best.ckpt")
    recipe = yaml.safe_load(RECIPE)
    recipe["data"] |= {"size": list(SIZE), "mean": [0.5] * 3, "std": [0.25] * 3}
    recipe["model"]["overrides"] = {"calibration": "none"}
    (root / "run/recipe.yaml").write_text(yaml.safe_dump(recipe))
    (root / "photos").mkdir()
    for index, photo in enumerate(sample_images(6, (40, 30), seed=9)):
        Image.fromarray(photo).save(root / f"photos/{index}.png")
    return root


def invoke(*arguments: object) -> Any:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def expected_of(folder: Path) -> np.ndarray:
    model = pyreid.create_model(
        "rmnet", calibration="none", num_classes=5, weights=folder / "run/checkpoints/best.ckpt"
    )
    extract = pyreid.FeatureExtractor(model, size=SIZE, mean=(0.5,) * 3, std=(0.25,) * 3)
    return extract(sorted((folder / "photos").iterdir()))


@pytest.mark.parametrize(
    ("source", "arguments", "name"),
    [
        ("run", ("--images", "photos"), "m.onnx"),
        ("run/checkpoints/best.ckpt", ("--preprocessing", "--fold", "--format", "openvino"), "m.xml"),
    ],
)
def test_a_run_and_its_checkpoint(
    source: str, arguments: tuple[str, ...], name: str, folder: Path, tmp_path: Path
) -> None:
    options = [str(folder / "photos") if argument == "photos" else argument for argument in arguments]
    result = invoke(folder / source, *options, "--out", tmp_path / name)
    assert result.exit_code == 0, result.output
    line = " ".join(result.output.split())
    assert "rmnet, 64x32, embedding 256" in line
    assert line.endswith("on 6 given and 8 drawn images" if "photos" in arguments else "on 8 drawn images")
    found = pyreid.FeatureExtractor(tmp_path / name)(sorted((folder / "photos").iterdir()))
    np.testing.assert_allclose(found, expected_of(folder), atol=1e-4)
    extractor = typer.Typer()
    extractor.command()(extract)
    photos, output = str(folder / "photos"), str(tmp_path / "f.npy")
    assert CliRunner().invoke(extractor, [str(tmp_path / name), photos, "--output", output]).exit_code == 0
    np.testing.assert_array_equal(np.load(output), found)
    info = open_exported(tmp_path / name).info
    assert info.preprocessing is ("--preprocessing" in arguments)
    assert info.pixel_std == (0.25,) * 3


@pytest.mark.parametrize("name", ["m.onnx", "m.xml"])
def test_int8(name: str, folder: Path, tmp_path: Path) -> None:
    form = "onnx" if name == "m.onnx" else "openvino"
    result = invoke(
        folder / "run", "--int8", "--format", form, "--out", tmp_path / name, "--images", folder / "photos",
        "--min-similarity", "0.9",
    )  # fmt: skip
    assert re.search(
        r": int8 in (10|9) of 10 layers, 0\.\d\d MB instead of 1\.\d\d MB; cosine similarity to float32: "
        r"lowest 0\.\d{4} and mean 0\.\d{4} on 4 given images that calibrated it, "
        r"lowest 0\.\d{4} and mean 0\.\d{4} on 2 given images that did not$",
        " ".join(result.output.split()),
    )
    assert open_exported(tmp_path / name).info.precision == "int8"
    found = pyreid.FeatureExtractor(tmp_path / name)(sorted((folder / "photos").iterdir()))
    assert (found * expected_of(folder)).sum(axis=1).min() > 0.9


def test_int8_below_the_bound(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"expected at least 1\.0"):
        invoke(folder / "run", "--int8", "--out", tmp_path / "m.onnx", "--min-similarity", "1")
    assert not list(tmp_path.iterdir())


def test_a_name_with_weights_and_another_size(folder: Path, tmp_path: Path) -> None:
    torch.save(pyreid.create_model("rmnet").state_dict(), tmp_path / "w.pt")
    out = tmp_path / "m.onnx"
    invoke("rmnet", "--weights", tmp_path / "w.pt", "--size", "48x16", "--single", "--out", out)
    info = open_exported(out).info
    assert (info.model, info.input_size, info.dynamic_batch) == ("rmnet", (48, 16), False)


def test_errors(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    with pytest.raises(WeightsError, match="model rmnet needs --weights FILE; 'none' exports it untrained"):
        invoke("rmnet", "--out", out)
    with pytest.raises(ValueError, match=r"unknown name 'rmnett'.*; did you mean rmnet"):
        invoke("rmnett", "--out", out)
    with pytest.raises(FileNotFoundError, match=r"expected the folder of a run, but there is no .*recipe\.yaml"):
        invoke(folder / "photos", "--out", out)
    with pytest.raises(ValueError, match="expected a model's name, the folder of a run or a checkpoint in it"):
        invoke(folder / "photos/0.png", "--out", out)
    with pytest.raises(ValueError, match="has its own"):
        invoke(folder / "run/checkpoints/best.ckpt", "--weights", "w.pt", "--out", out)
    assert not out.exists()
    for arguments, message in (
        (("rmnet", "--out", "m.xml"), "expected a file that ends in .onnx"),
        (("rmnet", "--out", "m.onnx", "--format", "openvino"), "ends in .xml"),
        (("rmnet", "--out", "m.onnx", "--size", "128"), "expected HEIGHTxWIDTH"),
        (("rmnet", "--out", "m.onnx", "--format", "tflite"), "tflite"),
    ):
        result = invoke(*arguments)
        assert result.exit_code == 2, result.output
        assert message in " ".join(result.output.replace("│", " ").split())


def test_weights_of_a_backbone(tmp_path: Path) -> None:
    model = pyreid.create_model("cw_mobilenet_v3_small")
    torch.save(model.backbone.state_dict(), tmp_path / "imagenet.pth")
    with pytest.raises(WeightsError, match=r"imagenet\.pth holds a backbone, and nothing for head\.fc\.weight"):
        invoke("cw_mobilenet_v3_small", "--weights", tmp_path / "imagenet.pth", "--out", tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_one_line_on_the_terminal() -> None:
    command = [sys.executable, "-m", "pyreid", "export", "rmnet", "--out", "m.onnx"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr == "pyreid: error: weights: model rmnet needs --weights FILE; 'none' exports it untrained\n"
    run = subprocess.run([*command[:3], "export", "--help"], capture_output=True, text=True, check=True)
    assert "Example: pyreid export" in " ".join(run.stdout.split())


def test_bench_times_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = import_module("pyreid.benchmarks.bench_models")
    monkeypatch.setattr(module, "BATCHES", (1, 2))
    monkeypatch.setattr(module, "WARMUP", 0)
    monkeypatch.setattr(module, "CALIBRATION", 5)
    monkeypatch.setattr(module, "PAUSE_S", 0)
    monkeypatch.setattr(module, "MIN_SIMILARITY", 1)
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)  # takes a minute
    bench_app = typer.Typer()
    bench_app.command()(bench)
    result = CliRunner().invoke(bench_app, ["--models", "rmne?", "--repeats", "1", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    (written,) = tmp_path.iterdir()
    rows = json.loads(written.read_text())
    found = {(row["form"], row["dtype"], row["batch"]) for row in rows}
    float_forms = ["torch eager", "torch eager, folded", "torch.compile", "ONNX Runtime", "OpenVINO"]
    forms = [(form, "float32") for form in float_forms] + [("ONNX Runtime", "int8"), ("OpenVINO", "int8")]
    assert found == {(form, dtype, batch) for form, dtype in forms for batch in (1, 2)}
    for row in rows:
        assert row["model"] == "rmnet"
        assert row["images_per_second"] == pytest.approx(1e3 * row["batch"] / row["ours_ms"], rel=0.01, abs=0.1)
        assert row["macs"] > 1e6
        assert (row["similarity"] is not None) is (row["dtype"] == "int8")
        (eager,) = [r for r in rows if (r["form"], r["batch"]) == ("torch eager", row["batch"])]
        assert row["ratio"] == pytest.approx(row["images_per_second"] / eager["images_per_second"], rel=0.05, abs=0.01)
    sizes = {(row["form"], row["dtype"]): row["size_bytes"] for row in rows}
    assert sizes["ONNX Runtime", "int8"] < sizes["ONNX Runtime", "float32"] < 5 * rows[0]["params"]
    marked = [line for line in result.output.splitlines() if re.search(r" 0\.\d{4}\*$", line)]
    assert len(marked) == 4
    assert all(" int8 " in line for line in marked)
    assert "*: below 1 with these fresh weights; pyreid export would not write the file" in result.output
    assert "rmnet: exporting and compiling, 1 of 1\nrmnet: timing, 1 of 1\n" in result.stderr

    result = CliRunner().invoke(bench_app, ["--models", "nothing", "--out", str(tmp_path)])
    assert isinstance(result.exception, PyreidError)
    assert "matches no model" in str(result.exception)
    assert CliRunner().invoke(bench_app, ["gem_pool", "--models", "rmnet"]).exit_code == 2


def test_bench_without_a_pattern_times_the_edge_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = import_module("pyreid.benchmarks.bench_models")
    prepared: list[str] = []

    def prepare(name: str, *_: object) -> Any:
        prepared.append(name)
        return module.Prepared(name, {}, 0, 0)

    monkeypatch.setattr(module, "prepare", prepare)
    monkeypatch.setattr(module, "time_forms", lambda *_: [])
    bench_app = typer.Typer()
    bench_app.command(cls=BenchCommand)(bench)
    for arguments in (("--models",), ("--models", "--repeats", "1"), ("models",)):
        result = CliRunner().invoke(bench_app, [*arguments, "--out", str(tmp_path)])
        assert result.exit_code == 0, result.output
        assert tuple(prepared) == module.EDGE
        prepared.clear()
    CliRunner().invoke(bench_app, ["--models", "trinet_r18", "--out", str(tmp_path)])
    assert prepared == ["trinet_r18"]


def test_bench_refuses_another_embedding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = import_module("pyreid.benchmarks.bench_models")
    model = pyreid.create_model("rmnet").eval()
    made = [
        module.Form("torch eager", "float32", model, 1),
        module.Form("other", "float32", lambda images: model(images.flip(2)), 1),
    ]
    monkeypatch.setattr(module, "forms", lambda *_: made)
    with pytest.raises(RuntimeError, match=r"rmnet 160x64 batch 1, other: the embeddings differ by"):
        module.measure("cpu", 1, "rmnet")
