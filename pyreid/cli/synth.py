"""``pyreid synth``: write a synthetic data set."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def synth(
    layout: Annotated[str, typer.Argument(metavar="LAYOUT", help="A data set of 'pyreid datasets'.")],
    root: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make.")],
    images: Annotated[
        int | None, typer.Option(help="About so many images in all, instead of the three options below.")
    ] = None,
    train_ids: Annotated[int | None, typer.Option(help="Identities to train on. (Default: 100.)")] = None,
    test_ids: Annotated[int | None, typer.Option(help="Identities to test on. (Default: 100.)")] = None,
    images_per_id: Annotated[
        int | None, typer.Option(help="Images per identity in the training set and in the gallery. (Default: 20.)")
    ] = None,
    cameras: Annotated[int, typer.Option(help="Number of cameras.")] = 6,
    height: Annotated[int | None, typer.Option(help="Height of the images. (Default: 128.)")] = None,
    width: Annotated[
        int | None, typer.Option(help="Width of the images. (Default: 64 for pedestrians, 128 for vehicles.)")
    ] = None,
    distractors: Annotated[
        int | None,
        typer.Option(help="Gallery images of nobody, market1501 and mars only. (Default: 15 % of the gallery.)"),
    ] = None,
    junk: Annotated[
        int | None, typer.Option(help="Junk gallery images, market1501 and mars only. (Default: 10 % of the gallery.)")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same files.")] = 0,
    workers: Annotated[int | None, typer.Option(help="Processes. (Default: one per core.)")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace DIR if it is a synthetic data set.")] = False,
) -> None:
    """Write a synthetic data set in a real set's on-disk layout.

    Pedestrians or vehicles are drawn with parts, seen by cameras of different view, light and quality, some of them in
    families that differ in one small part.

    Example: pyreid synth market1501 data/synthetic --train-ids 60 --test-ids 40
    """
    from pyreid.data.synthetic.generator import synthesize
    from pyreid.data.synthetic.registry import get_synthetic, list_synthetic, sizes_for

    if layout not in list_synthetic():
        raise typer.BadParameter(f"{layout!r}, expected one of {', '.join(list_synthetic())}", param_hint="LAYOUT")
    if images is not None:
        if (train_ids, test_ids, images_per_id) != (None, None, None):
            raise typer.BadParameter("excludes --train-ids, --test-ids and --images-per-id", param_hint="--images")
        train_ids, test_ids, images_per_id = sizes_for(images, layout=layout, num_cameras=cameras)
    size = get_synthetic(layout).size
    console = Console()
    start = time.perf_counter()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("drawing images", total=None)
        dataset = synthesize(
            layout,
            root,
            num_train_ids=100 if train_ids is None else train_ids,
            num_test_ids=100 if test_ids is None else test_ids,
            images_per_id=20 if images_per_id is None else images_per_id,
            num_cameras=cameras,
            size=(size[0] if height is None else height, size[1] if width is None else width),
            num_distractors=distractors,
            num_junk=junk,
            seed=seed,
            workers=workers,
            overwrite=overwrite,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    seconds = time.perf_counter() - start
    counts = ", ".join(f"{len(records)} {split}" for split, records in dataset.splits.items())
    console.print(f"{root}: {counts} images of {layout}'s layout in {seconds:.1f} s", soft_wrap=True, highlight=False)
