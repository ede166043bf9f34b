"""``pyreid evaluate``: metrics of a model on a data set, or of features in a file."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pyreid.cli.features import COMPAT, METRICS, check_device, check_options, re_ranker

if TYPE_CHECKING:
    from pyreid.evaluation import EvaluationResult, RepeatedResult
    from pyreid.retrieval import KReciprocal
    from pyreid.training.features import TestFeatures
    from pyreid.training.last_evaluation import FurtherResults

REQUIRED = ("query", "gallery", "query_ids", "gallery_ids")
CAMERAS = ("query_cams", "gallery_cams")


def evaluate(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe file or name, or the folder of a run (then with its best weights).")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings that differ, such as data.root=DIR.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option("--weights", "--checkpoint", help="Weights file or checkpoint of the model.")
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            help="Instead of a recipe: .npz or .safetensors with query, gallery, query_ids, gallery_ids, query_cams, "
            "gallery_cams, or a folder with a .npy file of each name."
        ),
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Settings of a named protocol, such as market1501-official or torchreid.")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="euclidean, sqeuclidean or cosine.")] = None,
    ap: Annotated[
        str | None, typer.Option(help="Average precision: step, or trapezoid (official Market-1501).")
    ] = None,
    no_match: Annotated[str | None, typer.Option(help="Queries without a right answer: skip or zero.")] = None,
    max_rank: Annotated[int | None, typer.Option(min=1, help="Length of the CMC curve.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="With --features, of products on CUDA: exact, fp32 or fast. (Default: exact.)")
    ] = None,
    rerank: Annotated[bool, typer.Option("--rerank", help="Rank by k-reciprocal re-ranked distances.")] = False,
    k1: Annotated[int | None, typer.Option(help="With --rerank, as for 'pyreid rerank'. (Default: 20.)")] = None,
    k2: Annotated[int | None, typer.Option(help="With --rerank. (Default: 6.)")] = None,
    lambda_value: Annotated[float | None, typer.Option(help="With --rerank. (Default: 0.3.)")] = None,
    compat: Annotated[str | None, typer.Option(help="With --rerank: official, torchreid or fastreid.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="OUT", help="Write the result as JSON.")] = None,
    save_features: Annotated[
        Path | None, typer.Option(metavar="OUT", help="Write the features as .npz, for --features.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default cuda where there is one.")] = None,
) -> None:
    """Evaluate a model on the data set of its recipe, or features from a file: mAP, CMC, mINP.

    A data set is evaluated by its own protocol, unless the recipe or an option says otherwise. With evaluation.rerank
    in the recipe the metrics of re-ranked distances follow, and with evaluation.stages those of every exit of the
    model; --rerank gives the re-ranked ones alone. --json writes those that come first.

    Example: pyreid evaluate runs/small data.root=~/data/VeRi --json small.json --save-features small.npz
    """
    if (recipe is None) == (features is None):
        raise typer.BadParameter("give either a RECIPE or --features FILE")
    if features is not None and (weights is not None or save_features is not None or overrides):
        raise typer.BadParameter("--features goes with neither --weights, --save-features nor KEY=VALUE")
    if precision is not None and features is None:
        raise typer.BadParameter("--precision goes with --features only")
    if save_features is not None and save_features.suffix != ".npz":
        raise typer.BadParameter(f"--save-features: {save_features} does not end in .npz")
    check_options(
        metric=(metric, METRICS),
        ap=(ap, ("step", "trapezoid")),
        no_match=(no_match, ("skip", "zero")),
        precision=(precision, ("exact", "fp32", "fast")),
        compat=(compat, COMPAT),
    )
    chosen = {"metric": metric, "ap": ap, "no_match": no_match, "max_rank": max_rank, "precision": precision}
    options = _preset(protocol) | {key: value for key, value in chosen.items() if value is not None}
    parameters = {"k1": k1, "k2": k2, "lambda_value": lambda_value, "compat": compat}
    given = {key: value for key, value in parameters.items() if value is not None}
    if given and not rerank:
        raise typer.BadParameter(f"--{next(iter(given)).replace('_', '-')} goes with --rerank only")
    if device is not None:
        check_device(device)
    method = re_ranker(**given) if rerank else None
    further = None
    if recipe is not None:
        result, further = _evaluate_recipe(recipe, overrides or [], weights, options, device, save_features, method)
    else:
        assert features is not None
        result = _evaluate_file(features, options, device, method)
    print(result.summary())
    if further is not None and further.reranked is not None:
        print(f"\n{further.reranked.summary()}")
    for name, found in further.stages.items() if further is not None else ():
        print(f"\nexit {name}\n{found.summary()}")
    if json is not None:
        result.save(json)


def _preset(name: str | None) -> dict[str, Any]:
    from pyreid.evaluation import list_presets, preset

    if name is None:
        return {}
    if name not in list_presets():
        raise typer.BadParameter(f"--protocol: expected one of {', '.join(list_presets())}, got {name}")
    return preset(name)


def _evaluate_recipe(
    name: str,
    overrides: list[str],
    weights: Path | None,
    options: dict[str, Any],
    device: str | None,
    save_features: Path | None,
    rerank: KReciprocal | None,
) -> tuple[EvaluationResult | RepeatedResult, FurtherResults | None]:
    """The evaluation, and what the recipe asks for besides, unless it is that of re-ranked distances."""
    import torch

    from pyreid.errors import WeightsError
    from pyreid.models import create_model, load_weights
    from pyreid.training import load_recipe
    from pyreid.training.datamodule import image_input
    from pyreid.training.engine import open_dataset
    from pyreid.training.features import choose_protocol, evaluate_features, extract_test_features
    from pyreid.training.last_evaluation import check_further, evaluate_further
    from pyreid.training.preflight import check_matches
    from pyreid.training.run_folder import RunFolder

    run = RunFolder(Path(name))
    if run.root.is_dir() and run.recipe.is_file():
        name = str(run.recipe)
        weights = weights if weights is not None else run.best_checkpoint
    loaded = load_recipe(name, [*overrides, *(f"evaluation.{key}={value}" for key, value in options.items())])
    if weights is None:
        raise WeightsError(f"weights: recipe {loaded.name} needs --weights FILE (a run's checkpoints/best.ckpt)")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dataset = open_dataset(loaded)
    protocol = choose_protocol(dataset, loaded.evaluation)
    check_matches(dataset)
    model = create_model(loaded.model.name, **loaded.model.overrides)
    load_weights(model, weights)
    if rerank is None:
        check_further(loaded.evaluation, dataset, model)
    images = image_input(model, loaded.data)
    features = extract_test_features(
        model,
        dataset,
        images=images,
        flip=loaded.evaluation.flip,
        crops=loaded.evaluation.crops,
        batch_size=loaded.evaluation.batch_size,
        workers=loaded.data.workers,
        device=device,
        progress=True,
    )
    if save_features is not None:
        _save(features, save_features)
    result = evaluate_features(
        features, loaded.evaluation, protocol=protocol, device=device, rerank=rerank, progress=True
    )
    if rerank is not None:
        return result, None
    further = evaluate_further(
        model.to(device),
        features,
        dataset,
        loaded.evaluation,
        images=images,
        workers=loaded.data.workers,
        device=torch.device(device),
    )
    return result, further


def _save(features: TestFeatures, path: Path) -> None:
    import numpy as np

    from pyreid._files import write_atomically

    arrays = {key: getattr(features, key) for key in REQUIRED}
    if features.query_cams is not None:
        arrays |= {key: getattr(features, key) for key in CAMERAS}
    write_atomically(path, lambda temporary: np.savez(temporary, **arrays))


def _evaluate_file(
    path: Path, options: dict[str, Any], device: str | None, rerank: KReciprocal | None
) -> EvaluationResult | RepeatedResult:
    from pyreid.evaluation import evaluate

    if not path.exists():
        raise FileNotFoundError(f"--features {path}: no such file")
    expected = (
        f"expected a .npz or .safetensors file or a folder of .npy files with {', '.join(REQUIRED)} and, to filter by "
        f"camera, {', '.join(CAMERAS)}"
    )
    try:
        arrays = _read(path)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise ValueError(f"--features {path}: cannot be read ({error}); {expected}") from error
    missing = [key for key in REQUIRED if key not in arrays]
    cameras = [key for key in CAMERAS if key in arrays]
    if missing or len(cameras) == 1:
        lacking = missing or [key for key in CAMERAS if key not in arrays]
        held = ", ".join(sorted(arrays)) or "nothing"
        raise ValueError(f"--features {path}: no {', '.join(lacking)} among {held}; {expected}")
    given = (arrays[key] for key in (*REQUIRED, *cameras))
    try:
        return evaluate(*given, device=device, rerank=rerank, progress=True, **options)
    except (TypeError, ValueError) as error:
        name, colon, wrong = str(error).partition(": ")
        if not colon or name not in arrays:
            raise
        source = f"{path / name}.npy" if path.is_dir() else f"{path}: {name}"
        raise type(error)(f"--features {source}: {wrong}") from error


def _read(path: Path) -> dict[str, Any]:
    """The arrays of a file or folder by name; those of a folder and of .safetensors stay on the disk until used."""
    import numpy as np

    from pyreid.ops.feature_files import open_features, tensor_names

    names = (*REQUIRED, *CAMERAS)
    if path.is_dir():
        return {file.stem: open_features(file) for file in sorted(path.glob("*.npy")) if file.stem in names}
    if path.suffix == ".safetensors":
        return {name: open_features(path, name) for name in tensor_names(path)}
    if path.suffix != ".npz":
        raise ValueError(f"it ends in {path.suffix!r}")
    with np.load(path, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}
