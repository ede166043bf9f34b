from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
import typer
from typer.testing import CliRunner

import pyreid
from pyreid.cli.evaluate import evaluate
from pyreid.data import synthesize
from pyreid.errors import WeightsError
from pyreid.training import load_recipe, train

app = typer.Typer()
app.command()(evaluate)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one epoch."""
    folder = tmp_path_factory.mktemp("cli_evaluate")
    synthesize(
        "market1501", folder / "market", num_train_ids=4, num_test_ids=4, images_per_id=4, size=(32, 16), workers=1
    )
    recipe = load_recipe(
        "demo",
        [
            f"data.root={folder / 'market'}",
            "data.size=[32, 16]",
            "data.workers=0",
            "sampler.num_ids=3",
            "sampler.num_instances=2",
            "schedule.warmup=null",
            "trainer.epochs=1",
        ],
    )
    train(recipe, output_dir=folder / "run", progress=False)
    return folder / "run"


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "query": rng.normal(size=(6, 8)).astype(np.float32),
        "gallery": rng.normal(size=(20, 8)).astype(np.float32),
        "query_ids": np.arange(6) % 3,
        "gallery_ids": np.arange(20) % 4,
        "query_cams": np.zeros(6, dtype=np.int64),
        "gallery_cams": np.arange(20) % 2,
    }


def save(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez(path, **arrays)
    return path


# -------------------------------------------------------------------------------------------------------- a recipe


def test_a_runs_folder_evaluates_its_best_weights(run: Path, tmp_path: Path) -> None:
    out, features = tmp_path / "result.json", tmp_path / "features.npz"
    result = CliRunner().invoke(app, [str(run), "--json", str(out), "--save-features", str(features)])
    assert result.exit_code == 0, result.output
    assert "mAP" in result.output
    best = json.loads((run / "metrics.json").read_text())["best"]["mAP"]
    saved = json.loads(out.read_text())
    assert _map_of(saved) == pytest.approx(best, abs=1e-12)

    again = CliRunner().invoke(app, ["--features", str(features), "--ap", "trapezoid", "--json", str(out)])
    assert again.exit_code == 0, again.output
    assert _map_of(json.loads(out.read_text())) == pytest.approx(best, abs=1e-12)


def test_a_recipe_that_re_ranks_prints_both(run: Path, tmp_path: Path) -> None:
    settings = ["evaluation.rerank={k1: 4, k2: 2}"]
    out = tmp_path / "out.json"
    plain = CliRunner().invoke(app, [str(run)])
    result = CliRunner().invoke(app, [str(run), *settings, "--json", str(out)])
    assert result.exit_code == 0, result.output
    tables = result.stdout.split("\n\n")
    assert len(tables) == 2
    assert tables[0] in plain.stdout
    assert ("re-ranked" in tables[0], "re-ranked" in tables[1]) == (False, True)
    assert "rerank" not in json.loads(out.read_text())["settings"]
    # The option asks for the re-ranked alone, by its own parameters.
    alone = CliRunner().invoke(app, [str(run), *settings, "--rerank", "--k1", "3", "--json", str(out)])
    assert alone.exit_code == 0, alone.output
    assert alone.stdout.count("mAP") == 1
    assert json.loads(out.read_text())["settings"]["rerank"]["k1"] == 3


def test_a_recipe_with_exits_prints_each(run: Path, tmp_path: Path) -> None:
    from pyreid.models import create_model

    model = "{name: dare_r50, overrides: {backbone: resnet10t, fc_dim: 16, embedding_dim: 8}}"
    network = create_model("dare_r50", backbone="resnet10t", fc_dim=16, embedding_dim=8)
    weights = tmp_path / "dare.pt"
    torch.save(network.state_dict(), weights)
    data = load_recipe(run / "recipe.yaml").data.root
    settings = [f"data.root={data}", "data.size=[32, 32]", f"model={model}", "losses=[{type: batch_soft_triplet}]"]
    result = CliRunner().invoke(app, ["demo", *settings, "evaluation.stages=true", "--weights", str(weights)])
    assert result.exit_code == 0, result.output
    first, *exits = result.stdout.split("\n\n")
    assert [text.splitlines()[0] for text in exits] == [f"exit {name}" for name in network.exit_names]
    assert exits[-1].splitlines()[1:] == first.splitlines()
    refused = CliRunner().invoke(app, [str(run), "evaluation.stages=true"])
    assert "has no exits" in str(refused.exception)


def test_options_change_the_recipes_evaluation(run: Path, tmp_path: Path) -> None:
    features = tmp_path / "features.npz"
    command = [str(run), "--metric", "cosine", "--ap", "step", "--max-rank", "7", "--json", str(tmp_path / "out.json")]
    result = CliRunner().invoke(app, [*command, "--save-features", str(features)])
    assert result.exit_code == 0, result.output
    with np.load(features) as archive:
        expected = pyreid.evaluate(
            *(archive[key] for key in ("query", "gallery", "query_ids", "gallery_ids", "query_cams", "gallery_cams")),
            metric="cosine",
            ap="step",
            max_rank=7,
        )
    assert _map_of(json.loads((tmp_path / "out.json").read_text())) == pytest.approx(expected.map, abs=1e-12)


def test_a_recipe_needs_weights_that_are_there(run: Path, tmp_path: Path) -> None:
    recipe = str(run / "recipe.yaml")
    assert isinstance(CliRunner().invoke(app, [recipe]).exception, WeightsError)
    missing = CliRunner().invoke(app, [recipe, "--weights", str(tmp_path / "no.ckpt")]).exception
    assert isinstance(missing, WeightsError)
    assert "no.ckpt" in str(missing)
    last = str(run / "checkpoints/last.ckpt")
    assert CliRunner().invoke(app, [recipe, "data.workers=0", "--checkpoint", last]).exit_code == 0


# ------------------------------------------------------------------------------------------------------- features


def test_features_are_evaluated_as_by_the_function(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    path = save(tmp_path / "f.npz", arrays)
    for options in ({}, {"metric": "cosine", "ap": "trapezoid", "no_match": "zero"}):
        flags = [part for key, value in options.items() for part in (f"--{key.replace('_', '-')}", value)]
        result = CliRunner().invoke(app, ["--features", str(path), *flags, "--json", str(tmp_path / "out.json")])
        assert result.exit_code == 0, result.output
        expected = pyreid.evaluate(*arrays.values(), **options)
        assert _map_of(json.loads((tmp_path / "out.json").read_text())) == pytest.approx(expected.map, abs=1e-12)


def test_other_files_of_features(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    expected = pyreid.evaluate(*arrays.values())
    folder = tmp_path / "features"
    folder.mkdir()
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    (folder / "notes.txt").write_text("not an array")
    np.save(folder / "paths.npy", np.array(["a.jpg"]))
    safetensors.numpy.save_file(arrays, tmp_path / "f.safetensors")
    for path in (folder, tmp_path / "f.safetensors"):
        result = CliRunner().invoke(app, ["--features", str(path), "--json", str(tmp_path / "out.json")])
        assert result.exit_code == 0, result.output
        assert _map_of(json.loads((tmp_path / "out.json").read_text())) == expected.map
    (folder / "gallery_ids.npy").unlink()
    (tmp_path / "f.safetensors").write_bytes((tmp_path / "f.safetensors").read_bytes()[:-1])
    for path, message in ((folder, "no gallery_ids among"), (tmp_path / "f.safetensors", "cut short")):
        error = CliRunner().invoke(app, ["--features", str(path)]).exception
        assert isinstance(error, ValueError)
        assert message in str(error)


def test_a_protocol_sets_what_options_do_not(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    arrays["query_ids"] = np.arange(6)  # two queries have no match
    flags = ["--features", str(save(tmp_path / "f.npz", arrays)), "--json", str(tmp_path / "out.json")]
    for more, options in (
        ([], {"ap": "trapezoid", "no_match": "zero"}),
        (["--ap", "step"], {"ap": "step", "no_match": "zero"}),
    ):
        result = CliRunner().invoke(app, [*flags, "--protocol", "market1501-official", *more])
        assert result.exit_code == 0, result.output
        expected = pyreid.evaluate(*arrays.values(), **options)
        assert _map_of(json.loads((tmp_path / "out.json").read_text())) == pytest.approx(expected.map, abs=1e-12)
    wrong = CliRunner().invoke(app, [*flags, "--protocol", "market"])
    assert wrong.exit_code == 2
    assert "market1501-official" in wrong.output


def test_features_without_cameras_are_not_filtered(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    del arrays["query_cams"], arrays["gallery_cams"]
    path = save(tmp_path / "f.npz", arrays)
    result = CliRunner().invoke(app, ["--features", str(path), "--json", str(tmp_path / "out.json")])
    assert result.exit_code == 0, result.output
    expected = pyreid.evaluate(*arrays.values())
    assert _map_of(json.loads((tmp_path / "out.json").read_text())) == pytest.approx(expected.map, abs=1e-12)


def test_what_is_wrong_with_features_names_file_and_row(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    arrays["gallery"][2, 1] = np.nan
    folder = tmp_path / "features"
    folder.mkdir()
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    path = save(tmp_path / "f.npz", arrays)
    wrong = "1 NaN or infinite values, the first is nan at row 2, column 1"
    for given, source in ((path, f"{path}: gallery"), (folder, folder / "gallery.npy")):
        for more in ([], ["--rerank", "--k1", "3"]):
            result = CliRunner().invoke(app, ["--features", str(given), *more])
            assert result.exit_code == 1
            assert str(result.exception) == f"--features {source}: {wrong}"
    np.save(folder / "query_ids.npy", arrays["query_ids"].astype(float))
    error = CliRunner().invoke(app, ["--features", str(folder)]).exception
    assert isinstance(error, TypeError)
    assert str(error) == f"--features {folder / 'query_ids.npy'}: expected integers, got float64"


@pytest.mark.parametrize("missing", ["query", "gallery_ids", "query_cams"])
def test_missing_arrays_are_listed(arrays: dict[str, np.ndarray], tmp_path: Path, missing: str) -> None:
    del arrays[missing]
    result = CliRunner().invoke(app, ["--features", str(save(tmp_path / "f.npz", arrays))])
    assert isinstance(result.exception, ValueError)
    assert f"f.npz: no {missing} among" in str(result.exception)


def test_files_that_are_not_npz_are_named(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("hello")
    np.save(tmp_path / "single.npy", arrays["query"])
    np.savez(tmp_path / "objects.npz", query=np.array([{}], dtype=object))
    for name in ("text.npz", "single.npy", "objects.npz"):
        result = CliRunner().invoke(app, ["--features", str(tmp_path / name)])
        assert isinstance(result.exception, ValueError)
        assert name in str(result.exception)
        assert "expected a .npz or .safetensors file or a folder of .npy files with query" in str(result.exception)
    assert isinstance(CliRunner().invoke(app, ["--features", str(tmp_path / "no.npz")]).exception, FileNotFoundError)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["demo", "--features", "f.npz"],
        ["--features", "f.npz", "--weights", "w.pt"],
        ["demo", "--save-features", "f.txt"],
        ["demo", "--precision", "fp32"],
        *(
            [*source, *option]
            for source in (["demo"], ["--features", "f.npz"])
            for option in (
                ["--metric", "manhattan"],
                ["--ap", "area"],
                ["--no-match", "drop"],
                ["--max-rank", "0"],
                ["--rerank", "--compat", "mine"],
                ["--rerank", "--lambda-value", "2"],
            )
        ),
        ["--features", "f.npz", "--precision", "low"],
    ],
)
def test_wrong_combinations_are_usage_errors(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2


def _map_of(saved: dict[str, float]) -> float:
    return saved["map"]
