"""``pyreid check``: look at a data set before hours of training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table


def check(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A data set of 'pyreid datasets'.")],
    root: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the unpacked data set, or its parent.")],
    workers: Annotated[int | None, typer.Option(help="Threads that decode images. (Default: one per core.)")] = None,
    show: Annotated[int, typer.Option(help="How many errors and warnings to print.", min=1)] = 20,
) -> None:
    """Check a data set on disk: folders, names, every image, identities, cameras, queries without a match.

    Exits with 1 when there are errors, with 0 when there are only warnings.

    Example: pyreid check market1501 data/Market-1501-v15.09.15
    """
    from pyreid.data.check import check_dataset
    from pyreid.data.registry import list_datasets

    if dataset not in list_datasets():
        raise typer.BadParameter(f"{dataset!r}, expected one of {', '.join(list_datasets())}", param_hint="DATASET")
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("decoding images", total=None)
        report = check_dataset(
            dataset,
            root,
            workers=workers,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    headings = ("split", "images", "tracks", "identities", "cameras", "junk", "distractors")
    table = Table(*headings, title=escape(str(report.root)))
    for count in report.counts:
        numbers = (count.images, count.tracks, count.ids, count.cameras, count.junk, count.distractors)
        table.add_row(count.split, *(f"{number:,}" for number in numbers))
    if report.counts:
        console.print(table)
    for line in report.summary[:1] + report.summary[1 + len(report.counts) :]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    for kind, style, lines in (("error", "red", report.errors), ("warning", "yellow", report.warnings)):
        for line in lines[:show]:
            console.print(f"[{style}]{kind}:[/{style}] {escape(line)}", highlight=False, soft_wrap=True)
        if len(lines) > show:
            console.print(f"[{style}]{len(lines) - show} more {kind}s[/{style}], see --show", highlight=False)
    verdict = f"{len(report.errors)} errors, {len(report.warnings)} warnings"
    console.print(verdict, style="red" if report.errors else "green", highlight=False)
    if report.errors:
        raise typer.Exit(1)
