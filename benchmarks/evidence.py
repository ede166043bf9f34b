"""Puts results of `pyreid evidence` into docs/results.md: `python -m benchmarks.evidence [OUTPUT]`.

With the folder of the command, its results.json and results.png come to docs/results/ first. The tables stand between
``<!-- evidence -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from pyreid._files import write_atomically, write_text
from pyreid.report.evidence_table import tables

DOCUMENT = Path(__file__).parents[1] / "docs" / "results.md"
FOLDER = DOCUMENT.parent / "results"
_PLACE = re.compile(r"(<!-- evidence -->\n).*?(<!-- end -->)", re.DOTALL)


def load_results() -> dict[str, Any]:
    """The committed results."""
    results: dict[str, Any] = json.loads((FOLDER / "evidence.json").read_text(encoding="utf-8"))
    return results


def take(output: Path) -> None:
    """Bring the results of a run of the command here; of the recipes only the common part stays."""
    results = json.loads((output / "results.json").read_text(encoding="utf-8"))
    for run in results["runs"]:
        run["recipe"] = {"trainer": {"epochs": run["recipe"]["trainer"]["epochs"]}, "sampler": run["recipe"]["sampler"]}
    write_text(FOLDER / "evidence.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    write_atomically(FOLDER / "evidence.png", lambda path: shutil.copyfile(output / "results.png", path))


def filled(text: str, results: dict[str, Any]) -> str:
    """The document's text with the tables made anew."""
    return _PLACE.sub(lambda place: f"{place[1]}\n{tables(results)}\n{place[2]}", text)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        take(Path(sys.argv[1]))
    write_text(DOCUMENT, filled(DOCUMENT.read_text(encoding="utf-8"), load_results()))
