"""``pyreid models``: the model zoo, with the papers' figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from pyreid.models import PaperFigure, PaperRow

# Columns that are more than any table here needs.
NATURAL_WIDTH = 400


def models(
    pattern: Annotated[
        str, typer.Argument(help="A model's name for its card, or a pattern such as 'safr*' to list the models.")
    ] = "*",
    paper: Annotated[
        bool, typer.Option("--paper", help="Show the papers' sizes and costs next to ours, counted the same way.")
    ] = False,
) -> None:
    """List the models, show one model's card, or compare sizes and costs with the papers'.

    MACs are multiply-accumulates of convolutions and matrix products for one image; the identity classifier counts
    nowhere.

    Example: pyreid models safr_small
    """
    from pyreid.models import list_models, model_entry, paper_table

    names = list_models(pattern)
    if not names:
        if any(character in pattern for character in "*?["):
            raise ValueError(f"pattern: {pattern!r} matches no model; expected any of {', '.join(list_models())}")
        model_entry(pattern)  # raises, with close names
    console = Console()
    if paper:
        _print_whole(_paper_table([row for name in names for row in paper_table(name)]))
    elif names == [pattern]:
        _print_card(console, pattern)
    else:
        _print_whole(_list_table(names))


def _print_whole(table: Table) -> None:
    """Print a table as wide as it is: names and figures are to be read, also where the terminal is narrow."""
    Console(width=NATURAL_WIDTH).print(table)


def _list_table(names: list[str]) -> Table:
    from pyreid.models import paper_figures
    from pyreid.models.paper import measure_default

    table = Table(
        box=box.SIMPLE_HEAD, caption='paper: parameters and "FLOPs" as printed; SAFR prints MACs, RMNet twice the MACs'
    )
    for heading in ("model", "input", "params", "MACs", "dim", "paper"):
        table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=True)
    for name in names:
        card = measure_default(name)
        table.add_row(
            name,
            _size(card.input_size),
            _count(card.complexity.params),
            _count(card.complexity.macs),
            str(card.embedding_dim),
            "\n".join(_printed(figure) for figure in paper_figures(name)) or "-",
        )
    return table


def _paper_table(rows: list[PaperRow]) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        caption="difference = ours / paper - 1, the tolerance in brackets; open: see the model's card",
    )
    for heading in ("row", "input", "counts", "paper", "ours", "difference", "ok"):
        table.add_column(heading, justify="left" if heading in ("row", "counts") else "right", no_wrap=True)
    for row in rows:
        figure = row.figure
        verdict = "no" if not row.within_tolerance else "open" if figure.open_question else "yes"
        lines = [
            ("weights" if figure.params_unit == "weight_params" else "params", figure.params, row.params,
             row.params_difference, figure.params_tolerance),
            ("MACs" if figure.cost_unit == "macs" else "FLOPs", figure.cost, row.cost, row.cost_difference,
             figure.cost_tolerance),
        ]  # fmt: skip
        head = (figure.row, _size(figure.input_size), verdict)
        for unit, paper, ours, difference, tolerance in lines:
            if paper is None or difference is None:
                continue
            name, size, ok = head
            table.add_row(name, size, unit, _count(paper), _count(ours), f"{difference:+.1%} ({tolerance:.0%})", ok)
            head = ("", "", "")
    return table


def _print_card(console: Console, name: str) -> None:
    from pyreid.models import model_entry, paper_figures
    from pyreid.models.paper import measure_default

    card = measure_default(name)
    console.print(f"[bold]{name}[/bold]")
    console.print(escape(model_entry(name).summary), highlight=False, soft_wrap=True)
    console.print(f"input {_size(card.input_size)}, embedding {card.embedding_dim}", highlight=False)
    console.print(
        f"{_count(card.complexity.params)} parameters, {_count(card.complexity.macs)} MACs "
        f"({_count(card.complexity.flops)} FLOPs)",
        highlight=False,
        soft_wrap=True,
    )
    for figure in paper_figures(name):
        _print_figure(console, figure)
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("override", "default", "values"):
        table.add_column(heading)
    for option in model_entry(name).describe_options():
        table.add_row(option.name, escape(repr(option.default)), escape(option.values))
    console.print(table)
    console.print(escape(f'pyreid.create_model("{name}", num_classes=...)'), highlight=False, soft_wrap=True)


def _print_figure(console: Console, figure: PaperFigure) -> None:
    """What the paper says: sizes, accuracies, the recipe that trains the row and what stays open."""
    console.print(f"{figure.source}, {figure.row}: {_printed(figure)}", highlight=False, soft_wrap=True)
    for result in figure.results:
        scores = f"rank-1 {result.rank1}" if result.map is None else f"mAP {result.map}, rank-1 {result.rank1}"
        console.print(f"  {result.dataset}: {scores}", highlight=False, soft_wrap=True)
    if figure.recipe:
        console.print(f"  recipe {figure.recipe}", highlight=False, soft_wrap=True)
    if figure.open_question:
        console.print(f"  open: {figure.open_question}", highlight=False, soft_wrap=True)


def _printed(figure: PaperFigure) -> str:
    sizes = [
        f"{value / divisor:g}{unit}"
        for value, divisor, unit in ((figure.params, 1e6, "M"), (figure.cost, 1e9, "G"))
        if value is not None
    ]
    return f"{', '.join(sizes)} at {_size(figure.input_size)}" if sizes else "no sizes printed"


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _count(value: float) -> str:
    """Three significant digits or more, with the unit: 810736 -> '0.811M', 4087136256 -> '4.09G'."""
    divisor, unit = (1e9, "G") if value >= 1e9 else (1e6, "M")
    scaled = value / divisor
    return f"{scaled:.{3 if scaled < 1 else 2 if scaled < 100 else 1}f}{unit}"
