"""``pyreid datasets``: which data sets can be read, and how each lies on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from pyreid.data.layouts import DatasetFacts, Layout


_WIDEST = 1000
_WRAPPED = ("title", "protocol")


def datasets(
    name: Annotated[str | None, typer.Argument(help="A data set, to see its folders, lists and protocol.")] = None,
) -> None:
    """List the data sets that can be read, checked and generated; or show one, with its folders and its protocol.

    Example: pyreid datasets msmt17
    """
    from rich.console import Console

    from pyreid.data.registry import get_layout, list_datasets, list_layouts

    console = Console()
    if name is None:
        _print_table(console, list_layouts())
        return
    if name not in list_datasets():
        raise typer.BadParameter(f"{name!r}, expected one of {', '.join(list_datasets())}", param_hint="NAME")
    _print_layout(console, get_layout(name))


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _print_table(console: Console, layouts: list[Layout]) -> None:
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

    # As for recipes: where that needs more than the terminal is wide, the terminal breaks the lines, and no count is
    # cut off.
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("name", "title", "train images", "ids", "query", "gallery", "cameras", "protocol"):
        numeric = heading in ("train images", "ids", "query", "gallery", "cameras")
        table.add_column(
            heading.replace(" ", "\n"),
            justify="right" if numeric else "left",
            no_wrap=heading not in _WRAPPED,
            overflow="fold",
        )
    for layout in layouts:
        facts = layout.facts
        counts = (
            ("-",) * 5
            if facts is None
            else (
                _number(facts.train_images),
                _number(facts.train_ids),
                _number(facts.query_images),
                _number(facts.gallery_images),
                _number(facts.cameras),
            )
        )
        names = [protocol.name for protocol in (layout.protocol, *layout.alternatives)]
        table.add_row(layout.name, layout.title, *counts, " or ".join(names))
    least = Measurement.get(console, console.options.update(max_width=_WIDEST), table).minimum
    Console(width=max(console.width, least)).print(table)
    console.print("\npublished counts; 'pyreid datasets NAME' shows the folders and the protocol of one")


def _print_layout(console: Console, layout: Layout) -> None:
    def line(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    line(f"{layout.name}: {layout.title}")
    line(f"source: {layout.source}")
    for protocol in (layout.protocol, *layout.alternatives):
        line(f"protocol: {protocol} (pyreid.evaluation.{protocol.function})")
    if layout.variants:
        line(f"same training images: {', '.join(layout.variants)}")
    if layout.facts is not None:
        line(f"published counts: {_counts(layout.facts)}")
    line("")
    line(layout.tree)


def _counts(facts: DatasetFacts) -> str:
    from dataclasses import asdict

    return ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in asdict(facts).items() if value)
