"""``pyreid extract``: features of image files, streamed into a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pyreid.inference import FeatureExtractor


def extract(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|RUN|FILE",
            help="A model of 'pyreid models', the folder of a run, or an exported .onnx or .xml file.",
        ),
    ],
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGES...", help="Folders, glob patterns, .txt files with a path a line, or images."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File that gets the features, .npy or .safetensors (N, D) float32.")
    ],
    weights: Annotated[
        str | None,
        typer.Option(help="Weights file; 'timm' for ImageNet's. (Default: the best weights of a run.)"),
    ] = None,
    flip: Annotated[
        str | None, typer.Option(help="Mirror images: none, mean or concat. (Default: the run's, or none.)")
    ] = None,
    crops: Annotated[
        str | None, typer.Option(help="Crops of an image: none or ten. (Default: the run's, or none.)")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per forward pass.")] = 64,
    workers: Annotated[int, typer.Option(min=0, help="Processes that decode images; 0: none beside this one.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default cuda where there is one.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted extraction.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output.")] = False,
    skip_unreadable: Annotated[
        bool,
        typer.Option("--skip-unreadable", help="Leave out images that cannot be read, named in OUTPUT.skipped.txt."),
    ] = False,
) -> None:
    """Write the features of images to a file, and their paths in the order of the rows to OUTPUT.paths.txt.

    Images go through in batches, so their number does not matter to memory. The output appears when it is complete;
    after an interruption the same command with --resume continues, and does nothing if the output is complete.
    OUTPUT.settings.json says what it was made of.

    Example: pyreid extract runs/small photos/ --output photos.npy
    """
    if resume and overwrite:
        raise typer.BadParameter("--resume and --overwrite exclude each other")
    if output.suffix not in (".npy", ".safetensors"):
        raise typer.BadParameter(f"--output: expected a file that ends in .npy or .safetensors, got {output}")
    if flip not in (None, "none", "mean", "concat"):
        raise typer.BadParameter(f"--flip: expected none, mean or concat, got {flip}")
    if crops not in (None, "none", "ten"):
        raise typer.BadParameter(f"--crops: expected none or ten, got {crops}")
    if crops == "ten" and flip in ("mean", "concat"):
        raise typer.BadParameter(f"--flip: got {flip} with --crops ten, which has mirror images already")
    from pyreid.cli.features import check_device, time_left
    from pyreid.inference import extract_to_file, read_paths

    if device is not None:
        check_device(device)
    paths = read_paths(images, missing_ok=skip_unreadable)
    options: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "device": device}
    extractor = _open_model(model, weights, flip, crops, options)
    with time_left("Extracting features", len(paths)) as advance:
        done = extract_to_file(
            extractor,
            paths,
            output,
            resume=resume,
            overwrite=overwrite,
            skip_unreadable=skip_unreadable,
            on_batch=advance,
        )
    complete = "complete already, " if done.was_complete else ""
    print(f"{output}: {complete}{done.rows} x {done.columns} features; paths in {output.name}.paths.txt")
    if skip_unreadable:
        named = f", named in {output.name}.skipped.txt" if done.skipped else ""
        print(f"{output}: {len(done.skipped)} of {len(paths)} images cannot be read and are left out{named}")


def _open_model(
    name: str, weights: str | None, flip: str | None, crops: str | None, options: dict[str, Any]
) -> FeatureExtractor:
    from pyreid.errors import WeightsError
    from pyreid.inference import FeatureExtractor
    from pyreid.inference.exported import EXPORTED_SUFFIXES
    from pyreid.inference.opening import find_run

    if weights is None and Path(name).suffix not in EXPORTED_SUFFIXES and find_run(name) is None:
        raise WeightsError(f"weights: model {name} needs --weights FILE")
    return FeatureExtractor(name, weights=weights, flip=flip, crops=crops, **options)  # type: ignore[arg-type]
