"""What only the last evaluation reports: re-ranked metrics, and those of every exit."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyreid.data import ImageRecord, load_dataset, synthesize
from pyreid.errors import RecipeError
from pyreid.inference.embedding import Flip, embed
from pyreid.inference.images import ImageInput
from pyreid.models import create_model, load_weights
from pyreid.retrieval import KReciprocal
from pyreid.training import Recipe, train, train_repeatedly
from pyreid.training.datamodule import image_input
from pyreid.training.features import TestFeatures, choose_protocol, evaluate_features, extract_test_features
from pyreid.training.last_evaluation import ExitEmbeddings, split_exits
from pyreid.training.scores import is_score, part_of_row, plain_part, scores

MakeRecipe = Callable[..., Recipe]
RERANK = ("evaluation.rerank={k1: 4, k2: 2, lambda_value: 0.2}",)
DARE = (
    "data.size=[32, 32]",
    "data.pad=0",
    "model={name: dare_r50, overrides: {backbone: resnet10t, fc_dim: 16, embedding_dim: 8}}",
    "losses=[{type: batch_soft_triplet, embedding: embedding}, {type: batch_soft_triplet, embedding: stage1}]",
    "evaluation.stages=true",
)


def metrics_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return found


def features_of(folder: Path, recipe: Recipe) -> tuple[TestFeatures, Any, Any]:
    """Those of the last checkpoint, with the data set and the model."""
    dataset = load_dataset(recipe.data.dataset, Path(str(recipe.data.root)))
    model = create_model(recipe.model.name, **recipe.model.overrides)
    load_weights(model, folder / "checkpoints" / "last.ckpt")
    images = image_input(model, recipe.data)
    return extract_test_features(model, dataset, images=images, batch_size=64), dataset, model


def test_the_last_evaluation_is_re_ranked_and_no_other(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(*RERANK)
    result = train(recipe, output_dir=tmp_path / "run", progress=False)
    features, dataset, _ = features_of(tmp_path / "run", recipe)
    expected = evaluate_features(
        features,
        recipe.evaluation,
        protocol=choose_protocol(dataset, recipe.evaluation),
        rerank=KReciprocal(k1=4, k2=2, lambda_value=0.2),
    )
    metrics = metrics_of(tmp_path / "run")
    assert metrics["reranked"] == scores(expected)
    assert metrics["reranked"]["mAP"] != metrics["last"]["mAP"]
    assert metrics["stages"] is None
    assert not [name for name in metrics["last"] if "." in name]
    assert result.reranked is not None
    assert result.reranked.map == expected.map
    assert ["reranked.mAP" in row for row in result.history] == [False, True]
    with (tmp_path / "run" / "metrics.csv").open() as file:
        assert [row["reranked.mAP"] for row in csv.DictReader(file)] == ["", repr(expected.map)]
    # A finished run that is resumed keeps them, as it keeps its history.
    train(recipe, output_dir=tmp_path / "run", resume=True, progress=False)
    assert metrics_of(tmp_path / "run") == metrics


def test_an_early_end_is_a_last_evaluation(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(*RERANK, "trainer.epochs=4", "trainer.early_stopping={patience: 1, min_delta: 0.9}")
    result = train(recipe, output_dir=tmp_path / "run", progress=False)
    assert ["reranked.mAP" in row for row in result.history] == [False, True]
    assert metrics_of(tmp_path / "run")["finished"] is True


def test_every_exit_is_evaluated(make_recipe: MakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = make_recipe(*DARE, *RERANK, "trainer.epochs=1")
    result = train(recipe, output_dir=tmp_path / "run")
    features, dataset, model = features_of(tmp_path / "run", recipe)
    metrics = metrics_of(tmp_path / "run")
    assert list(metrics["stages"]) == ["stage1", "stage2", "stage3", "embedding"] == list(result.stages)
    assert metrics["stages"]["embedding"]["mAP"] == pytest.approx(metrics["last"]["mAP"], abs=1e-12)
    plain = {name: value for name, value in metrics["last"].items() if name in ("rank1", "mINP")}
    assert {name: metrics["stages"]["embedding"][name] for name in plain} == pytest.approx(plain)
    images = image_input(model, recipe.data)
    joint = extract_test_features(ExitEmbeddings(model), dataset, images=images, batch_size=64)  # type: ignore[arg-type]
    for name, part in split_exits(joint, model.exit_names).items():
        alone = _at_exit(model, name, dataset.query, images)
        np.testing.assert_allclose(part.query, alone, rtol=1e-5, atol=1e-6)
        found = evaluate_features(part, recipe.evaluation, protocol=choose_protocol(dataset, recipe.evaluation))
        assert metrics["stages"][name]["mAP"] == pytest.approx(found.map, abs=1e-9)
    np.testing.assert_array_equal(split_exits(joint, model.exit_names)["embedding"].gallery, features.gallery)
    lines = capsys.readouterr().out
    stage = metrics["stages"]["stage2"]
    assert f"stage2  mAP {100 * stage['mAP']:.2f}%  rank-1 {100 * stage['rank1']:.2f}%" in lines
    assert f"re-ranked  mAP {100 * metrics['reranked']['mAP']:.2f}%" in lines


def _at_exit(model: Any, name: str, records: tuple[ImageRecord, ...], images: ImageInput) -> np.ndarray:
    from pyreid.data import ImageDataset, eval_transform

    items = ImageDataset(records, eval_transform(images.size, mean=images.mean, std=images.std))
    batch = torch.stack([items[index].image for index in range(len(records))])
    with torch.no_grad():
        embedding: torch.Tensor = model.eval()._run_to_exit(batch, name)
    return embedding.numpy()


@pytest.mark.parametrize("flip", ["none", "mean", "concat"])
def test_mirror_images_are_joined_exit_by_exit(flip: Flip) -> None:
    torch.manual_seed(0)
    model = create_model("dare_r50", backbone="resnet10t", fc_dim=16, embedding_dim=8).eval()
    batch = torch.randn(3, 3, 32, 32)

    class Alone(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return model._run_to_exit(images, "stage2")

    with torch.no_grad():
        both = ExitEmbeddings(model, flip)(batch)
        alone = embed(Alone(), batch, flip)
    width = alone.shape[1]
    assert both.shape == (3, 4 * width)
    torch.testing.assert_close(both[:, width : 2 * width], alone)


def test_what_cannot_be_reported_is_said_before_the_first_step(
    make_recipe: MakeRecipe, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.raises(RecipeError, match=r"'evaluation\.stages' is true, but RMNet has no exits"):
        train(make_recipe("evaluation.stages=true"), output_dir=tmp_path / "run", progress=False)
    root = tmp_path_factory.mktemp("vehicleid") / "set"
    sizes = {"num_train_ids": 3, "num_test_ids": 8, "images_per_id": 4, "num_cameras": 2, "size": (32, 16)}
    synthesize("vehicleid_800", root, **sizes, workers=1)  # type: ignore[arg-type]
    recipe = make_recipe(*RERANK, "data.dataset=vehicleid_800", f"data.root={root}")
    with pytest.raises(RecipeError, match="the protocol 'random gallery' of vehicleid_800 has no re-ranking"):
        train(recipe, output_dir=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_averaged_models_are_re_ranked_too(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(
        *RERANK,
        "schedule={decay: {type: constant}, cycles: {begin: 0, count: 2, length: 1, lr: 0.001}}",
        "swag={samples: 1}",
    )
    result = train(recipe, output_dir=tmp_path / "run", progress=False)
    row = result.history[-1]
    assert {"mAP", "swa_mAP", "bma_mAP"} <= set(metrics_of(tmp_path / "run")["reranked"])
    assert row["reranked.swa_mAP"] != row["swa_mAP"]
    assert row["reranked.swa_mAP"] != row["reranked.mAP"]


def test_repeated_runs_have_means_of_them(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(*RERANK, "trainer.epochs=1")
    result = train_repeatedly(recipe, output_dir=tmp_path, repeat=2, progress=False)
    values = [run.history[-1]["reranked.mAP"] for run in result.runs]
    assert result.last["reranked.mAP"] == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    saved = json.loads((tmp_path / "repeat.json").read_text())
    assert saved["last"]["reranked.mAP"]["mean"] == pytest.approx(np.mean(values))
    assert [run["last"]["reranked.mAP"] for run in saved["runs"]] == values


def test_metrics_say_which_data_set_it_was(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    train(make_recipe("trainer.epochs=1"), output_dir=tmp_path / "own", progress=False)
    assert metrics_of(tmp_path / "own")["dataset"] == {
        "name": "market1501",
        "synthetic": False,
        "protocol": "image to image",
        "ap": "trapezoid",
        "no_match": "zero",
    }
    made = tmp_path / "set"
    sizes = {"num_train_ids": 3, "num_test_ids": 3, "images_per_id": 3, "num_cameras": 2, "size": (32, 16)}
    synthesize("market1501", made, **sizes, workers=1)  # type: ignore[arg-type]
    recipe = make_recipe("trainer.epochs=1", f"data.root={made}", "evaluation.ap=step")
    train(recipe, output_dir=tmp_path / "made", progress=False)
    found = metrics_of(tmp_path / "made")
    assert (found["dataset"]["synthetic"], found["dataset"]["ap"], found["finished"]) == (True, "step", True)


def test_names_of_scores() -> None:
    assert all(map(is_score, ("mAP", "rank5", "reranked.mAP", "stages.stage1.rank1", "swa_mAP", "reranked.bma_rank1")))
    assert not any(map(is_score, ("loss", "epoch", "mAP_std", "grad_norm", "cross_entropy_id")))
    row = {"mAP": 1, "stages.a.mAP": 2, "stages.a.rank1": 3, "stages.b.mAP": 4, "reranked.mAP": 5}
    assert part_of_row(row, "stages") == {"a": {"mAP": 2, "rank1": 3}, "b": {"mAP": 4}}
    assert part_of_row(row, "other") is None
    assert plain_part(row) == {"mAP": 1}
