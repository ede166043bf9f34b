"""``pyreid train``: trains what a recipe describes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pyreid.training import Recipe, TrainingResult


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
    repeat: Annotated[
        int | None,
        typer.Option(min=1, help="Train so often, with the seeds seed, seed+1, ..., into run-1, run-2, ..."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars, no line per epoch.")] = False,
) -> None:
    """Train a model and evaluate it on the way.

    Data set, model and losses are checked before the first step. The folder of the run gets recipe.yaml, metrics.csv,
    metrics.json, tensorboard/ and checkpoints/best.ckpt and last.ckpt. After an interruption the same command with
    --resume continues after the last finished epoch. With --repeat, repeat.json gets the mean and the sample standard
    deviation of the scores. trainer.devices=2 trains with two processes; torchrun -m pyreid train ... works, too.

    Example: pyreid train safr/veri776_small data.root=~/data/VeRi trainer.precision=bf16-mixed --output runs/small
    """
    if resume and overwrite:
        raise typer.BadParameter("--resume and --overwrite exclude each other")
    from rich.console import Console

    from pyreid import training
    from pyreid.errors import DatasetError, RecipeError, WeightsError

    loaded = training.load_recipe(recipe, overrides or [])
    folder = output if output is not None else Path("runs") / loaded.name
    options: dict[str, Any] = {"output_dir": folder, "resume": resume, "overwrite": overwrite, "progress": not quiet}
    try:
        if repeat is not None:
            _repeat(loaded, repeat, options, quiet=quiet)
            return
        result = training.train(loaded, **options)
    except (DatasetError, RecipeError, WeightsError) as error:  # of what only data set, model and machine can tell
        raise type(error)(f"recipe {training.find_recipe(recipe)}: {error}") from error
    if not quiet and _is_first():
        Console(highlight=False, soft_wrap=True).print(
            f"best mAP {100 * result.best_map:.2f}% at epoch {result.best_epoch}, last {100 * result.last_map:.2f}%"
            f"{_reranked(result)}; "
            f"weights in {result.best_checkpoint}"
        )


def _repeat(recipe: Recipe, repeat: int, options: dict[str, Any], *, quiet: bool) -> None:
    """Train several times and print a table of the scores."""
    from rich.console import Console
    from rich.table import Table

    from pyreid import training

    result = training.train_repeatedly(recipe, repeat=repeat, **options)
    if quiet or not _is_first():
        return
    table = Table(title=f"{recipe.name}: {repeat} runs, mean (standard deviation) in per cent")
    for heading in ("score", "last", "best"):
        table.add_column(heading, justify="left" if heading == "score" else "right")
    for name in result.last:
        cells = [
            f"{100 * found[name][0]:.2f} ({100 * found[name][1]:.2f})" if name in found else "-"
            for found in (result.last, result.best)
        ]
        table.add_row(re.sub(r"rank(\d)", r"rank-\1", name), *cells)
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    console.print(f"all runs in {result.file}")


def _reranked(result: TrainingResult) -> str:
    return "" if result.reranked is None else f" (re-ranked {100 * result.reranked.map:.2f}%)"


def _is_first() -> bool:
    """Whether this process speaks for those that torchrun has started."""
    from pyreid.training.processes import current_ranks

    return current_ranks().rank == 0
