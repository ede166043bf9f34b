"""``pyreid results``: what runs gave, beside the numbers of the papers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def results(
    folders: Annotated[
        list[Path] | None, typer.Argument(metavar="[FOLDER]...", help="Where runs are. (Default: runs.)")
    ] = None,
    csv: Annotated[Path | None, typer.Option(metavar="OUT", help="Write a row for each number as CSV.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="OUT", help="Write the runs as JSON.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
) -> None:
    """Compare runs with the papers: mAP, rank-1, rank-5, re-ranked and at the exits of a model.

    The numbers are those of the last evaluation, in percent; differences are ours minus the paper's. Runs of
    'pyreid train --repeat' are one group, with means and sample standard deviations. A run that cannot be read is named
    and left out, and the exit code is then 1.

    Example: pyreid results runs --csv results.csv
    """
    from pyreid._files import write_json
    from pyreid.report.results import read_results
    from pyreid.report.results_table import COLUMNS, as_markdown, as_rows, as_text
    from pyreid.training.run_folder import write_csv

    chosen = folders or [Path("runs")]
    reports, broken = read_results(chosen)
    if not reports and not broken:
        raise ValueError(f"no run found below {', '.join(map(str, chosen))}")
    if reports:
        print(as_markdown(reports) if markdown else as_text(reports))
    if csv is not None:
        write_csv(csv, list(as_rows(reports)), COLUMNS)
    if json is not None:
        write_json(json, [report.to_dict() for report in reports])
    for line in broken:
        typer.echo(f"pyreid: warning: {line}", err=True)
    if broken:
        raise typer.Exit(1)
