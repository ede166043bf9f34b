"""The ``pyreid`` command line: collects the commands and turns errors into one readable line.

A command's module imports only Typer, Rich and the standard library at its top, so that ``pyreid --help`` is quick;
everything else is imported inside the command's function.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from typing import Annotated

import typer

import pyreid
from pyreid.cli import (
    bench,
    check,
    datasets,
    demo,
    evaluate,
    evidence,
    export,
    extract,
    info,
    inspect,
    models,
    recipes,
    rerank,
    results,
    search,
    synth,
    train,
)
from pyreid.errors import PyreidError

app = typer.Typer(
    name="pyreid",
    help="Person and vehicle re-identification: fused operators, exact evaluation, models and training.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},  # of all commands
)
app.command("demo")(demo.demo)
app.command("evidence")(evidence.evidence)
app.command("synth")(synth.synth)
app.command("check")(check.check)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("extract")(extract.extract)
app.command("export")(export.export)
app.command("inspect")(inspect.inspect)
app.command("search")(search.search)
app.command("rerank")(rerank.rerank)
app.command("datasets")(datasets.datasets)
app.command("models")(models.models)
app.command("recipes")(recipes.recipes)
app.command("results")(results.results)
app.command("bench", cls=bench.BenchCommand)(bench.bench)
app.command("info")(info.info)


INTERRUPTED, TERMINATED = 130, 143
RESUMABLE = ("train", "extract")


def _version(wanted: bool) -> None:
    if wanted:
        print(pyreid.__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


def _one_line(message: Warning | str, *_: object, **__: object) -> str:
    return f"pyreid: warning: {' '.join(str(message).split())}\n"


def main() -> None:
    """Entry point. Exit codes: 0 success, 1 the work failed, 2 the command line is wrong."""
    warnings.formatwarning = _one_line
    # What a scheduler sends: as an exception it lets every command remove its temporary files.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(TERMINATED))
    try:
        app()
    except SystemExit as done:
        if done.code == INTERRUPTED:  # Typer turns Ctrl-C into an exit
            resumable = len(sys.argv) > 1 and sys.argv[1] in RESUMABLE
            print("pyreid: interrupted" + ("; continue with --resume" if resumable else ""), file=sys.stderr)
        raise
    except (PyreidError, ValueError, TypeError, OSError) as error:
        if os.environ.get("PYREID_TRACEBACK"):
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"pyreid: error: {message}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
