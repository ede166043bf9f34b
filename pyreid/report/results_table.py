"""Runs beside their papers as text for a terminal, as Markdown and as rows of CSV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pyreid.report.results import METRICS, Entry, RunReport

_TITLES = {"mAP": "mAP", "rank1": "rank-1", "rank5": "rank-5"}
_LABEL = 17  # characters of the first column
_CELL = 7

COLUMNS = (
    "recipe",
    "folder",
    "dataset",
    "synthetic",
    "epochs",
    "planned_epochs",
    "finished",
    "runs",
    "source",
    "evaluation",
    "metric",
    "paper",
    "paper_std",
    "ours",
    "ours_std",
    "difference",
)


def describe(report: RunReport) -> str:
    """Data set, epochs and runs in a line."""
    origin = {True: " (synthetic)", False: "", None: " (perhaps synthetic: the data are gone)"}[report.synthetic]
    epochs = f"{report.epochs} of {report.planned_epochs} epochs"
    if not report.finished:
        epochs += ", NOT FINISHED"
    runs = f", mean of {report.runs} runs" if report.runs is not None else ""
    return f"{report.dataset}{origin}, {epochs}{runs}"


def as_text(reports: Sequence[RunReport]) -> str:
    """A block of lines for each run, at most 80 characters wide apart from names; percent and percentage points."""
    metrics = [_TITLES[metric] for metric in METRICS]
    lines = [
        " " * _LABEL + "".join(title.center(3 * _CELL) for title in metrics).rstrip(),
        " " * _LABEL + f"{'paper':>{_CELL}}{'ours':>{_CELL}}{'diff':>{_CELL}}" * len(metrics),
    ]
    for report in reports:
        lines += ["", f"{report.recipe}: {describe(report)}"]
        lines.append(f"  {report.folder}" + (f"; paper: {report.source}" if report.source is not None else ""))
        for title, found in _grouped(report.entries):
            cells = [(entry.paper, entry.ours, entry.difference) if entry else (None,) * 3 for entry in found]
            lines.append(f"  {title:<{_LABEL - 2}}" + "".join(_triple(*cell) for cell in cells).rstrip())
            deviations = [(entry.paper_std, entry.ours_std) if entry else (None, None) for entry in found]
            if any(value is not None for pair in deviations for value in pair):
                cells = [(*pair, None) for pair in deviations]
                lines.append(f"  {'  +-':<{_LABEL - 2}}" + "".join(_triple(*cell) for cell in cells).rstrip())
    return "\n".join(lines)


def as_markdown(reports: Sequence[RunReport]) -> str:
    """One table with a row for each run and kind of evaluation; cells are ``paper / ours (difference)``."""
    head = ["recipe", "data set, epochs", "evaluation", *(_TITLES[metric] for metric in METRICS), "paper"]
    lines = [_markdown_row(head), _markdown_row(["---"] * 3 + ["---:"] * len(METRICS) + ["---"])]
    for report in reports:
        for title, found in _grouped(report.entries) or [("-", [None] * len(METRICS))]:
            cells = [_markdown_cell(entry) for entry in found]
            lines.append(_markdown_row([report.recipe, describe(report), title, *cells, report.source or "-"]))
    return "\n".join(lines)


def as_rows(reports: Sequence[RunReport]) -> Iterator[dict[str, Any]]:
    """A row of :data:`COLUMNS` for each number."""
    for report in reports:
        plain = report.to_dict()
        entries = plain.pop("entries") or [{}]
        for entry in entries:
            row = plain | entry
            yield {name: "" if row.get(name) is None else row[name] for name in COLUMNS}


def _grouped(entries: Sequence[Entry]) -> list[tuple[str, list[Entry | None]]]:
    """By kind of evaluation, in their order, with an entry or None for each metric."""
    titles = dict.fromkeys(entry.evaluation for entry in entries)
    by_name = {(entry.evaluation, entry.metric): entry for entry in entries}
    return [(title, [by_name.get((title, metric)) for metric in METRICS]) for title in titles]


def _triple(paper: float | None, ours: float | None, difference: float | None) -> str:
    return _number(paper) + _number(ours) + _number(difference, sign="+")


def _number(value: float | None, sign: str = "") -> str:
    return " " * (_CELL - 1) + "-" if value is None else f"{value:>{sign}{_CELL}.2f}"


def _markdown_cell(entry: Entry | None) -> str:
    if entry is None:
        return "-"
    paper, ours = (
        "-" if value is None else f"{value:.2f}" + (f" ± {std:.2f}" if std is not None else "")
        for value, std in ((entry.paper, entry.paper_std), (entry.ours, entry.ours_std))
    )
    return f"{paper} / {ours}" + ("" if entry.difference is None else f" ({entry.difference:+.2f})")


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
