"""``pyreid train``: trains what a recipe describes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or a name that 'pyreid recipes' lists.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings that differ, such as data.root=DIR."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the run.", show_default="runs/RECIPE")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run after its last finished epoch.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that the folder holds.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars, no line per epoch.")] = False,
) -> None:
    """Train a model and evaluate it on the way.

    Data set, model and losses are checked before the first step. The folder of the run gets recipe.yaml, metrics.csv,
    metrics.json, tensorboard/ and checkpoints/best.ckpt and last.ckpt. After an interruption the same command with
    --resume continues after the last finished epoch.

    Example: pyreid train safr/veri776_small data.root=~/data/VeRi trainer.precision=bf16-mixed --output runs/small
    """
    if resume and overwrite:
        raise typer.BadParameter("--resume and --overwrite exclude each other")
    from rich.console import Console

    from pyreid import training

    loaded = training.load_recipe(recipe, overrides or [])
    folder = output if output is not None else Path("runs") / loaded.name
    result = training.train(loaded, output_dir=folder, resume=resume, overwrite=overwrite, progress=not quiet)
    if not quiet:
        Console(highlight=False, soft_wrap=True).print(
            f"best mAP {100 * result.best_map:.2f}% at epoch {result.best_epoch}, last {100 * result.last_map:.2f}%; "
            f"weights in {result.best_checkpoint}"
        )
