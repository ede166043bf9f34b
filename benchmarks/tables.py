"""Puts the committed results into docs/operators.md: `python -m benchmarks.tables`.

A table stands between ``<!-- measured: OP -->`` and ``<!-- end -->``; OP is the operator's name in the results.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from ._timing import RESULTS, Row

DOCUMENT = Path(__file__).parents[1] / "docs" / "operators.md"
_PLACE = re.compile(r"(<!-- measured: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def load_results(folder: Path = RESULTS) -> list[Row]:
    """The rows of all results files, in a fixed order."""
    return [row for path in sorted(folder.glob("*.json")) for row in json.loads(path.read_text())]


def table(rows: list[Row], op: str) -> str:
    """The rows of one operator as a Markdown table."""
    chosen = [row for row in rows if row["op"] == op]
    if not chosen:
        raise SystemExit(f"benchmarks/results holds no results of {op}: run pyreid bench --out benchmarks/results")
    lines = ["| device | case | dtype | ours | peer | its time | ratio |", "|---|---|---|---|---|---|---|"]
    lines += [
        f"| {r['device']} | {r['case']} | {r['dtype']} | {_time(r['ours_ms'])} | {r['peer']} | {_time(r['peer_ms'])} "
        f"| {r['ratio']:.2f} |"
        for r in chosen
    ]
    return "\n".join(lines) + "\n"


def _time(milliseconds: float) -> str:
    return f"{milliseconds:.3g} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.3g} s"


def filled(text: str, rows: list[Row]) -> str:
    """The document's text with every table made anew."""
    return _PLACE.sub(lambda place: place[1] + "\n" + table(rows, place[2]) + "\n" + place[3], text)


if __name__ == "__main__":
    DOCUMENT.write_text(filled(DOCUMENT.read_text(), load_results()))
