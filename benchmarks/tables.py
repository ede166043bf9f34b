"""Puts the committed results into docs/operators.md and docs/deployment.md: `python -m benchmarks.tables`.

A table stands between ``<!-- measured: OP -->`` and ``<!-- end -->``; OP is the operator's name in the results, or
``model`` for whole networks in their deployed forms.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from pyreid.inference.parity import round_down

from ._timing import EAGER, RESULTS, Row
from .bench_models import is_refused

DOCUMENT = Path(__file__).parents[1] / "docs" / "operators.md"
DEPLOYMENT = DOCUMENT.with_name("deployment.md")
_PLACE = re.compile(r"(<!-- measured: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def load_results(folder: Path = RESULTS) -> list[Row]:
    """The rows of all results files, in a fixed order."""
    return [row for path in sorted(folder.glob("*.json")) for row in json.loads(path.read_text())]


def table(rows: list[Row], op: str) -> str:
    """The rows of one operator as a Markdown table."""
    chosen = [row for row in rows if row["op"] == op]
    if not chosen:
        raise SystemExit(f"benchmarks/results holds no results of {op}: run pyreid bench --out benchmarks/results")
    if op == "model":
        return model_table(chosen)
    lines = ["| device | case | dtype | ours | peer | its time | ratio |", "|---|---|---|---|---|---|---|"]
    lines += [
        f"| {r['device']} | {r['case']} | {r['dtype']} | {_time(r['ours_ms'])} | {r['peer']} | {_time(r['peer_ms'])} "
        f"| {r['ratio']:.2f} |"
        for r in chosen
    ]
    return "\n".join(lines) + "\n"


def model_table(rows: list[Row]) -> str:
    """Whole networks on the CPU: images per second of each form, alone and in the largest batch, and bytes on disk."""
    models: dict[tuple[str, str], dict[tuple[str, str], dict[int, Row]]] = {}
    for r in rows:
        if not r["device"].startswith("NVIDIA"):
            found = models.setdefault((r["device"], r["model"]), {})
            found.setdefault((r["form"], r["dtype"]), {})[r["batch"]] = r
    batches = sorted({r["batch"] for r in rows})
    lines = [
        "| model | parameters | MACs | form | MB | "
        + " | ".join(f"images/s, batch {batch}" for batch in batches)
        + " | int8 cosine |",
        "|---" * (6 + len(batches)) + "|",
    ]
    for (_, model), forms in sorted(models.items()):
        for form, dtype in sorted(forms, key=_place_of_form):
            found = forms[form, dtype]
            one = next(iter(found.values()))
            speeds = (f"{found[batch]['images_per_second']:.0f}" if batch in found else "-" for batch in batches)
            similarity = one.get("similarity")
            cosine = "" if similarity is None else round_down(similarity, 4) + (" *" if is_refused(one) else "")
            lines.append(
                f"| {model} | {one['params'] / 1e6:.2f} M | {one['macs'] / 1e9:.3f} G | {form}"
                f"{' int8' if dtype == 'int8' else ''} | {one['size_bytes'] / 1e6:.2f} | {' | '.join(speeds)} "
                f"| {cosine} |"
            )
    devices = ", ".join(sorted({f"{r['device']}, torch {r['torch']}" for r in rows}))
    return "\n".join(lines) + f"\n\nMeasured on {devices}.\n"


def _place_of_form(form: tuple[str, str]) -> tuple[int, str, str]:
    name, dtype = form
    return 0 if name == EAGER else 1 if "torch" in name else 2, name, dtype


def _time(milliseconds: float) -> str:
    return f"{milliseconds:.3g} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.3g} s"


def filled(text: str, rows: list[Row]) -> str:
    """The document's text with every table made anew."""
    return _PLACE.sub(lambda place: place[1] + "\n" + table(rows, place[2]) + "\n" + place[3], text)


if __name__ == "__main__":
    for document in (DOCUMENT, DEPLOYMENT):
        document.write_text(filled(document.read_text(), load_results()))
