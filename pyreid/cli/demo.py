"""``pyreid demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    output: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("report"),
    work: Annotated[Path, typer.Option(help="Folder of the data set and the run, made anew.")] = Path("runs/demo"),
    recipe: Annotated[str, typer.Option(help="Recipe to train; its data set must be market1501.")] = "demo",
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings of the recipe to change, as key=value.", metavar="[KEY=VALUE]..."),
    ] = None,
    train_ids: Annotated[int, typer.Option(min=2, help="Identities to train on.")] = 100,
    test_ids: Annotated[int, typer.Option(min=2, help="Other identities to test on.")] = 50,
    seed: Annotated[int, typer.Option(help="Seed of the data set.")] = 0,
) -> None:
    """Run the whole loop on a small synthetic data set on the CPU.

    Makes a data set in the layout of Market-1501, evaluates an untrained model, trains it, evaluates it again, and
    writes a report: metrics.json, curves.png, and rank lists before and after training with right images framed green
    and wrong ones red.

    Example: pyreid demo --output report
    """
    from pyreid.report.demo import run_demo

    run_demo(output, work, recipe=recipe, overrides=overrides or [], train_ids=train_ids, test_ids=test_ids, seed=seed)
