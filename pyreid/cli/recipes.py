"""``pyreid recipes``: what can be trained by name, with the papers' numbers."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from pyreid.training import Recipe

_WILD = "*?["
_WIDEST = 1000


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A recipe, to print it with all its settings; or a pattern such as 'safr/*', to list some."
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings that differ, as for 'pyreid train'.")
    ] = None,
    plot_schedule: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="Draw learning rate and whatever else changes over the epochs (.png, .svg)."),
    ] = None,
) -> None:
    """List the recipes with the numbers of their papers, print one with every setting, or draw its schedule.

    Example: pyreid recipes safr/veri776_small --plot-schedule schedule.png
    """
    pattern = name if name is not None and any(sign in name for sign in _WILD) else None
    if plot_schedule is not None:
        if name is None or pattern is not None:
            raise typer.BadParameter("--plot-schedule needs the name of one recipe")
        _plot(name, overrides or [], plot_schedule)
    elif name is None or pattern is not None:
        if overrides:
            raise typer.BadParameter("KEY=VALUE goes with the name of one recipe")
        _list(pattern)
    else:
        from pyreid.training.recipe_files import dump_recipe, load_recipe

        # Plain print: this is YAML, and must come out of a pipe as it is.
        print(dump_recipe(load_recipe(name, overrides or [])), end="")


def _plot(name: str, overrides: list[str], path: Path) -> None:
    from pyreid._files import write_atomically
    from pyreid.report.schedule_curves import plot_schedule, schedule_curves
    from pyreid.training.recipe_files import load_recipe

    recipe = load_recipe(name, overrides)
    figure = plot_schedule(schedule_curves(recipe), title=recipe.name)
    known = sorted(figure.canvas.get_supported_filetypes())
    if path.suffix[1:].lower() not in known:
        raise typer.BadParameter(f"{path} ends in none of {', '.join(known)}", param_hint="--plot-schedule")
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=120))
    print(f"schedule of {recipe.name}: {path}")


def _list(pattern: str | None) -> None:
    from fnmatch import fnmatchcase

    from rich.console import Console
    from rich.measure import Measurement

    from pyreid.training.recipe_files import list_recipes, load_recipe, recipe_dirs

    known = list_recipes()
    if not known:
        folders = ", ".join(map(str, recipe_dirs())) or "none; set PYREID_RECIPES"
        raise ValueError(f"no recipe found (folders searched: {folders})")
    names = [item for item in known if pattern is None or fnmatchcase(item, pattern)]
    if not names:
        raise ValueError(f"no recipe matches {pattern!r}; 'pyreid recipes' lists all {len(known)}")
    console = Console()
    for folder, group in groupby((load_recipe(item) for item in names), key=lambda item: item.name.rpartition("/")[0]):
        members = list(group)
        paper = _common_paper(members)
        console.print()
        if folder:
            console.print(f"{folder}/" + (f": {paper}" if paper else ""), style="bold", highlight=False, markup=False)
        table = _table(members, paper)
        # Where names need more than the terminal is wide, the terminal breaks the line; rich would cut them off.
        least = Measurement.get(console, console.options.update(max_width=_WIDEST), table).minimum
        Console(width=max(console.width, least)).print(table)
    count = "1 recipe" if len(names) == 1 else f"{len(names)} recipes"
    console.print(f"\n{count}; mAP and rank-1 in percent, as the paper reports them", highlight=False)


def _common_paper(recipes: list[Recipe]) -> str:
    """What the sources of all numbers begin with, before a comma; empty if that differs."""
    begins = {recipe.paper.source.partition(", ")[0] for recipe in recipes if recipe.paper is not None}
    return begins.pop() if len(begins) == 1 else ""


def _table(recipes: list[Recipe], paper: str) -> Table:
    """A line for each recipe; where the last column is too long, it goes on below, and nothing is cut off."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("recipe", "model", "data set", "mAP", "rank-1", "source"):
        number = heading in ("mAP", "rank-1")
        table.add_column(
            heading,
            justify="right" if number else "left",
            no_wrap=heading != "source",
            overflow="fold",
            min_width=8 if heading == "source" else None,
        )
    for recipe in recipes:
        numbers = recipe.paper
        table.add_row(
            recipe.name,
            recipe.model.name,
            recipe.data.dataset,
            _percent(numbers.mAP if numbers else None),
            _percent(numbers.rank1 if numbers else None),
            escape(numbers.source.removeprefix(f"{paper}, ")) if numbers else "-",
        )
    return table


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
