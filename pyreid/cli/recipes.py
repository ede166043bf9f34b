"""``pyreid recipes``: what can be trained by name, with the papers' numbers."""

from __future__ import annotations

from typing import Annotated

import typer


def recipes(
    name: Annotated[str | None, typer.Argument(help="A recipe, to print it with all its settings.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings that differ, as for 'pyreid train'.")
    ] = None,
) -> None:
    """List the recipes with the numbers of their papers, or print one with every setting.

    Example: pyreid recipes safr/veri776_small
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from pyreid.training.recipe_files import dump_recipe, list_recipes, load_recipe, recipe_dirs

    if name is not None:
        # Plain print: this is YAML, and must come out of a pipe as it is.
        print(dump_recipe(load_recipe(name, overrides or [])), end="")
        return
    console = Console()
    names = list_recipes()
    if not names:
        folders = ", ".join(map(str, recipe_dirs())) or "none; set PYREID_RECIPES"
        raise ValueError(f"no recipe found (folders searched: {folders})")
    table = Table(caption="mAP and rank-1 in percent, as the paper reports them")
    for heading in ("recipe", "model", "data set", "mAP", "rank-1", "paper"):
        table.add_column(
            heading, justify="right" if heading in ("mAP", "rank-1") else "left", no_wrap=heading == "recipe"
        )
    for item in names:
        recipe = load_recipe(item)
        paper = recipe.paper
        table.add_row(
            item,
            recipe.model.name,
            recipe.data.dataset,
            _percent(paper.mAP if paper else None),
            _percent(paper.rank1 if paper else None),
            escape(paper.source) if paper else "-",
        )
    console.print(table)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
