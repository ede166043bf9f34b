"""The demonstration behind ``pyreid demo``: make a data set, train on it, compare untrained with trained, report."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from pyreid._files import write_json
from pyreid.data.records import JUNK_PID
from pyreid.errors import require
from pyreid.report.curves import plot_training
from pyreid.report.rank_lists import draw_rank_lists, make_rank_lists

if TYPE_CHECKING:
    from pyreid.data import ImageRecord, ReIDDataset
    from pyreid.evaluation import EvaluationResult
    from pyreid.models.base import ReIDModel
    from pyreid.ops._checks import Metric
    from pyreid.training import Recipe
    from pyreid.training.features import TestFeatures

SHOWN_QUERIES = 8


def _scores(result: EvaluationResult) -> dict[str, float]:
    ranks = {f"rank{k}": result.rank(k) for k in (1, 5, 10)}
    return {"mAP": result.map, **ranks, "mINP": result.minp, "queries": result.num_queries}


def _comparison(before: EvaluationResult, after: EvaluationResult) -> Table:
    table = Table("", "mAP", "rank-1", "rank-5", "mINP")
    for name, result in (("untrained", before), ("trained", after)):
        values = (result.map, result.rank(1), result.rank(5), result.minp)
        table.add_row(name, *(f"{100 * value:.1f} %" for value in values))
    return table


def _evaluate(model: ReIDModel, dataset: ReIDDataset, recipe: Recipe) -> tuple[EvaluationResult, TestFeatures]:
    from pyreid.evaluation import EvaluationResult
    from pyreid.training.datamodule import image_input
    from pyreid.training.features import choose_protocol, evaluate_features, extract_test_features

    features = extract_test_features(
        model,
        dataset,
        images=image_input(model, recipe.data),
        flip=recipe.evaluation.flip,
        workers=recipe.data.workers,
        progress=True,
    )
    result = evaluate_features(features, recipe.evaluation, protocol=choose_protocol(dataset, recipe.evaluation))
    assert isinstance(result, EvaluationResult)  # Market-1501 is evaluated image by image
    return result, features


def _write_report(
    output: Path,
    dataset: ReIDDataset,
    history: Sequence[dict[str, Any]],
    before: tuple[EvaluationResult, TestFeatures],
    after: tuple[EvaluationResult, TestFeatures],
    metric: Metric,
    metrics: dict[str, Any],
) -> None:
    """Draw everything in a folder beside ``output`` first; other files in ``output`` stay."""
    output.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    plot_training(history, title="pyreid demo", untrained=(before[0].map, before[0].rank(1))).savefig(
        partial / "curves.png", dpi=120
    )
    # the same queries in both sheets, from the easiest to the hardest for the trained model
    order = np.argsort(-after[0].average_precision, kind="stable")
    order = order[after[0].first_match_rank[order] >= 0]
    chosen = order[np.linspace(0, len(order) - 1, min(SHOWN_QUERIES, len(order))).round().astype(int)].tolist()
    gallery: list[ImageRecord] = [record for record in dataset.gallery if record.pid != JUNK_PID]
    for name, (result, features) in (("untrained", before), ("trained", after)):
        titles = [
            f"identity {dataset.query[i].pid}, camera {dataset.query[i].camid + 1}: "
            f"AP {100 * result.average_precision[i]:.0f} %, first right one at rank {result.first_match_rank[i] + 1}"
            for i in chosen
        ]
        lists = make_rank_lists(
            dataset.query, gallery, features.query, features.gallery, chosen=chosen, titles=titles, metric=metric
        )
        draw_rank_lists(lists, title=f"{name} model").save(partial / f"ranks_{name}.png")
    write_json(partial / "metrics.json", metrics)
    for path in partial.iterdir():
        path.replace(output / path.name)
    partial.rmdir()


def run_demo(
    output: Path, work: Path, *, recipe: str, overrides: Sequence[str], train_ids: int, test_ids: int, seed: int
) -> dict[str, Any]:
    """See ``pyreid demo --help``.

    Returns:
        What ``metrics.json`` holds.
    """
    for package in ("lightning", "matplotlib", "tensorboard", "torchvision"):
        require(package, extra="train")
    import torch

    from pyreid.data import load_dataset, synthesize
    from pyreid.models import create_model
    from pyreid.training import load_recipe, train

    started = time.perf_counter()
    console = Console()
    data = work / "market1501"
    settings = load_recipe(recipe, [f"data.root={data}", *overrides])
    if settings.data.dataset != "market1501":
        raise ValueError(f"recipe {recipe}: the demo makes a market1501 data set, but it wants {settings.data.dataset}")

    console.rule("1. A synthetic data set in the layout of Market-1501")
    synthesize("market1501", data, num_train_ids=train_ids, num_test_ids=test_ids, seed=seed, overwrite=True)
    dataset = load_dataset("market1501", data)
    console.print(
        f"{len(dataset.train)} training images of {dataset.num_train_ids} identities, {len(dataset.query)} queries, "
        f"{len(dataset.gallery)} gallery images in {data}"
    )

    console.rule("2. The untrained model")
    torch.manual_seed(settings.seed)
    untrained = create_model(
        settings.model.name,
        num_classes=dataset.num_train_ids,
        weights=settings.model.weights,
        **settings.model.overrides,
    )
    before, before_features = _evaluate(untrained, dataset, settings)
    console.print(before.summary())

    console.rule("3. Training")
    run = train(settings, output_dir=work / "run", overwrite=True)

    console.rule("4. The trained model")
    trained = create_model(
        settings.model.name,
        num_classes=dataset.num_train_ids,
        weights=run.last_checkpoint,
        **settings.model.overrides,
    )
    after, after_features = _evaluate(trained, dataset, settings)
    console.print(after.summary())

    metrics = {
        "recipe": settings.name,
        "seconds": round(time.perf_counter() - started, 1),
        "data": {split: len(records) for split, records in dataset.splits.items()},
        "untrained": _scores(before),
        "trained": _scores(after),
    }
    _write_report(
        output,
        dataset,
        run.history,
        (before, before_features),
        (after, after_features),
        settings.evaluation.metric,
        metrics,
    )
    console.print(_comparison(before, after))
    console.print(f"The report is in {output}: metrics.json, curves.png, ranks_untrained.png, ranks_trained.png")
    return metrics
