"""``pyreid evidence``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evidence(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of data, runs and table.")] = Path(
        "runs/evidence"
    ),
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings of all recipes to change, as key=value.", metavar="[KEY=VALUE]..."),
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, help="Seeds of each row.")] = 3,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time, of one thread each.")] = 2,
    row: Annotated[
        list[str] | None, typer.Option(help="Only this row; may be given several times. (Default: all.)")
    ] = None,
    train_ids: Annotated[int, typer.Option(min=2, help="Identities to train on, in each set.")] = 100,
    test_ids: Annotated[int, typer.Option(min=2, help="Other identities to test on.")] = 100,
    images_per_id: Annotated[int, typer.Option(min=2, help="Images per identity.")] = 12,
) -> None:
    """Train the rows of a table on a synthetic vehicle and a synthetic person set.

    The rows add up: baseline, norm neck, global attention, DBAM, soft triplet loss, GeM, re-ranking. OUTPUT gets
    results.json, table.md and results.png, anew after each run. After an interruption the same command keeps finished
    runs and continues the others.

    Example: pyreid evidence --output runs/evidence --jobs 2
    """
    from rich.console import Console

    from pyreid.report.evidence import Sizes, run_evidence
    from pyreid.report.evidence_table import ROWS

    unknown = [name for name in row or () if name not in ROWS]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r}, expected one of {', '.join(ROWS)}", param_hint="--row")
    console = Console(highlight=False, soft_wrap=True)
    run_evidence(
        output,
        repeat=repeat,
        jobs=jobs,
        rows=row or ROWS,
        sizes=Sizes(train_ids=train_ids, test_ids=test_ids, images_per_id=images_per_id),
        overrides=overrides or [],
        say=lambda line: console.print(line, markup=False),
    )
    console.print((output / "table.md").read_text(encoding="utf-8"), markup=False)
