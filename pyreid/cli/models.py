"""``pyreid models``: the model zoo, with the papers' figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyreid.models import Complexity, PaperFigure, PaperRow

# Columns that are more than any table here needs.
NATURAL_WIDTH = 400
_UNITS = {
    "params": "params",
    "weight_params": "weights",
    "folded_params": "folded",
    "macs": "MACs",
    "flops": "FLOPs",
    "macs_and_norms": "MACs + norms",
}


def models(
    pattern: Annotated[
        str, typer.Argument(help="A model's name for its card, or a pattern such as 'safr*' to list the models.")
    ] = "*",
    paper: Annotated[
        bool, typer.Option("--paper", help="Show the papers' sizes and costs next to ours, counted the same way.")
    ] = False,
    elementwise: Annotated[
        bool,
        typer.Option("--elementwise", help="In the list, the operations of norms and activations too, as on a card."),
    ] = False,
) -> None:
    """List the models, show one model's card, or compare sizes and costs with the papers'.

    MACs are multiply-accumulates of convolutions and matrix products for one image; FLOPs are twice that. The identity
    classifier counts nowhere, except in a row of --paper whose figures include it.

    Example: pyreid models safr_small
    """
    from pyreid.models import list_models, model_entry, paper_table

    names = list_models(pattern)
    if not names:
        if any(character in pattern for character in "*?["):
            raise ValueError(f"pattern: {pattern!r} matches no model; expected any of {', '.join(list_models())}")
        model_entry(pattern)  # raises, with close names
    if elementwise and (paper or names == [pattern]):
        raise typer.BadParameter("--elementwise goes with the list of models; a card has these operations anyway")
    console = Console()
    if paper:
        rows = [row for name in names for row in paper_table(name)]
        compared = _without_repeats(rows)
        if compared:
            _print_whole(_paper_table(compared))
        else:
            console.print(f"no figure of a paper to compare {', '.join(names)} with", highlight=False, soft_wrap=True)
    elif names == [pattern]:
        _print_card(console, pattern)
    else:
        _print_whole(_list_table(names, elementwise=elementwise))


def _print_whole(table: Table) -> None:
    """Print a table as wide as it is: names and figures are to be read, also where the terminal is narrow."""
    Console(width=NATURAL_WIDTH).print(table)


def _list_table(names: list[str], *, elementwise: bool) -> Table:
    from pyreid.models import paper_figures
    from pyreid.models.paper import measure_default

    table = Table(
        box=box.SIMPLE_HEAD, caption='paper: parameters and "FLOPs" as printed; SAFR prints MACs, RMNet twice the MACs'
    )
    further = ("norms", "activations") if elementwise else ()
    for heading in ("model", "input", "params", "MACs", *further, "dim", "paper"):
        table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=True)
    for name in names:
        card = measure_default(name)
        table.add_row(
            name,
            _size(card.input_size),
            _count(card.complexity.params),
            _count(card.complexity.macs),
            *([_count(card.complexity.norm_ops), _count(card.complexity.activation_ops)] if elementwise else []),
            str(card.embedding_dim),
            "\n".join(_cells(paper_figures(name))) or "-",
        )
    return table


def _cells(figures: Iterable[PaperFigure]) -> list[str]:
    """What the figures print, without what stands in another cell already."""
    cells = list(dict.fromkeys(_printed(figure) for figure in figures))
    return [cell for cell in cells if not any(other.endswith(f", {cell}") for other in cells)]


def _without_repeats(rows: list[PaperRow]) -> list[PaperRow]:
    """The rows that have a figure to compare, each figure of a network once: papers repeat it at other scores."""
    seen: dict[object, PaperRow] = {}
    for row in rows:
        figure = row.figure
        if figure.params is not None or figure.cost is not None:
            same = (figure.model, figure.overrides, figure.input_size, figure.params, figure.cost, figure.params_unit,
                    figure.cost_unit)  # fmt: skip
            seen.setdefault(same, row)
    return list(seen.values())


def _paper_table(rows: list[PaperRow]) -> Table:
    caption = "difference = ours / paper - 1, what is accepted in brackets; open: see the model's card"
    if not all(row.figure.printed for row in rows):
        caption += "\n* not printed in the paper: counted on another network, written from its text"
    table = Table(box=box.SIMPLE_HEAD, caption=caption)
    for heading in ("row", "input", "counts", "paper", "ours", "difference", "ok"):
        table.add_column(heading, justify="left" if heading in ("row", "counts") else "right", no_wrap=True)
    for row in rows:
        figure = row.figure
        verdict = "no" if not row.within_tolerance else "open" if figure.open_question else "yes"
        tolerance = _percent(figure.params_tolerance)
        lines = [
            (_UNITS[figure.params_unit], figure.params, row.params, row.params_difference, tolerance),
            (_UNITS[figure.cost_unit], figure.cost, row.cost, row.cost_difference, _accepted(figure)),
        ]
        head = (figure.row, _size(figure.input_size), verdict)
        for unit, paper, ours, difference, accepts in lines:
            if paper is None or difference is None:
                continue
            name, size, ok = head
            printed = _count(paper) + ("" if figure.printed else "*")
            table.add_row(name, size, unit, printed, _count(ours), f"{difference:+.1%} ({accepts})", ok)
            head = ("", "", "")
    return table


def _accepted(figure: PaperFigure) -> str:
    """The costs that are accepted: a tolerance, or a range."""
    if figure.cost_range is None:
        return _percent(figure.cost_tolerance)
    return " to ".join(map(_count, figure.cost_range))


def _percent(fraction: float) -> str:
    return f"{100 * fraction:g}%"


def _print_card(console: Console, name: str) -> None:
    from pyreid.models import model_entry, paper_figures, paper_table
    from pyreid.models.paper import measure_default

    card = measure_default(name)
    console.print(f"[bold]{name}[/bold]")
    console.print(escape(model_entry(name).summary), highlight=False, soft_wrap=True)
    elsewhere = [figure.input_size for figure in paper_figures(name) if figure.cost is not None]
    note = ""
    if elsewhere and card.input_size not in elsewhere:
        note = f" (for training and retrieval; the paper counts costs at {_size(elsewhere[0])})"
    console.print(
        f"input {_size(card.input_size)}{note}, embedding {card.embedding_dim}", highlight=False, soft_wrap=True
    )
    for line in _describe(card.complexity):
        console.print(line, highlight=False, soft_wrap=True)
    for row in paper_table(name):
        _print_figure(console, row)
    trained_by, unreadable = _recipes_of(name)
    console.print(escape(f"recipes: {', '.join(trained_by) or 'none'}"), highlight=False, soft_wrap=True)
    if unreadable:
        console.print(escape(f"recipes that cannot be read: {', '.join(unreadable)}"), highlight=False, soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("override", "default", "values"):
        table.add_column(heading)
    for option in model_entry(name).describe_options():
        table.add_row(option.name, escape(repr(option.default)), escape(option.values))
    _print_whole(table)
    console.print(escape(f'pyreid.create_model("{name}", num_classes=...)'), highlight=False, soft_wrap=True)


def _describe(cost: Complexity) -> tuple[str, ...]:
    return (
        f"{_count(cost.params)} parameters without the identity classifier",
        f'{_count(cost.macs)} MACs, the "FLOPs" of SAFR, Compact-ReID and DaRe; {_count(cost.flops)} FLOPs, two for a '
        "MAC, as in RMNet",
        f"norms {_count(cost.norm_ops)} and activations {_count(cost.activation_ops)} operations besides",
    )


def _recipes_of(model: str) -> tuple[list[str], list[str]]:
    """Names of the recipes that train this model, with whatever settings, and of those that cannot be read."""
    from pyreid.errors import RecipeError
    from pyreid.training.recipe_files import list_recipes, load_recipe

    trained_by, unreadable = [], []
    for name in list_recipes():
        try:
            if load_recipe(name).model.name == model:
                trained_by.append(name)
        except RecipeError:
            unreadable.append(name)
    return trained_by, unreadable


def _print_figure(console: Console, row: PaperRow) -> None:
    """What the paper says: sizes, ours beside them, accuracies and what stays open."""
    figure = row.figure
    console.print(f"{figure.source}, {figure.row}: {_printed(figure)}", highlight=False, soft_wrap=True)
    ours = [
        f"{_count(count)} {_UNITS[unit]}"
        for unit, printed, count in (
            (figure.params_unit, figure.params, row.params),
            (figure.cost_unit, figure.cost, row.cost),
        )
        if printed is not None and figure.printed
    ]
    if ours:
        settings = ", ".join(f"{key}={value}" for key, value in figure.overrides)
        console.print(
            f"  ours, counted so: {', '.join(ours)}" + (f" ({settings})" if settings else ""),
            highlight=False,
            soft_wrap=True,
        )
    for result in figure.results:
        scores = f"rank-1 {result.rank1}" if result.map is None else f"mAP {result.map}, rank-1 {result.rank1}"
        console.print(f"  {result.dataset}: {scores}", highlight=False, soft_wrap=True)
    if figure.open_question:
        console.print(f"  open: {figure.open_question}", highlight=False, soft_wrap=True)


def _printed(figure: PaperFigure) -> str:
    if not figure.printed:
        return "no sizes printed"
    sizes = [
        f"{value / divisor:g}{unit}"
        for value, divisor, unit in ((figure.params, 1e6, "M"), (figure.cost, 1e9, "G"))
        if value is not None
    ]
    if not sizes:
        return "no sizes printed"
    return f"{', '.join(sizes)} at {_size(figure.input_size)}" + (", with classifier" if figure.classifier else "")


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _count(value: float) -> str:
    """Three significant digits or more, with the unit: 810736 -> '0.811M', 4087136256 -> '4.09G'."""
    divisor, unit = (1e9, "G") if value >= 1e9 else (1e6, "M")
    scaled = value / divisor
    return f"{scaled:.{3 if scaled < 1 else 2 if scaled < 100 else 1}f}{unit}"
