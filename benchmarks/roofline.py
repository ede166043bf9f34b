"""Draws how near to its floor every operator comes: `python -m benchmarks.roofline`.

One picture for each results file, ``docs/floors-<device>.svg``: a bar for each measurement that has a floor, ours and
the peers' side by side, as the part of the time that the device needs for the bytes or the operations alone.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

from pyreid._files import write_text

from ._timing import RESULTS, Row

DOCS = Path(__file__).parents[1] / "docs"
OPERATORS = ("batch_hard_triplet", "batch_soft_triplet", "gate_and_pool", "gem_pool", "masked_mix", "nearest_neighbors",
             "pairwise_distance", "spatial_gate", "search", "evaluate", "k_reciprocal")  # fmt: skip


def fractions(rows: list[Row]) -> dict[tuple[str, str], dict[str, float]]:
    """For each measurement, named by operator and by case and type, floor / time by contender; "ours" is the best of
    the timings beside each peer."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for op in OPERATORS:
        for row in rows:
            if row["op"] != op or not row["floor_ms"]:
                continue
            bars = found.setdefault((op, f"{row['case']}, {row['dtype']}"), {"ours": 0.0})
            bars["ours"] = max(bars["ours"], row["floor_ms"] / row["ours_ms"])
            if "bare" not in row["peer"]:  # that is the floor
                bars[row["peer"]] = row["floor_ms"] / row["peer_ms"]
    return found


def draw(rows: list[Row], title: str) -> str:
    """The picture as SVG, the same for the same rows."""
    import matplotlib

    matplotlib.rcParams["svg.hashsalt"] = "pyreid"
    from matplotlib.figure import Figure

    measured = fractions(rows)
    names = sorted({name for bars in measured.values() for name in bars} - {"ours"})
    height = sum(len(bars) for bars in measured.values()) * 0.14 + len(measured) * 0.12 + 1
    figure = Figure(figsize=(10, height), layout="constrained")
    axes = figure.add_subplot()
    colours = {"ours": "tab:red"} | {name: f"C{index if index < 3 else index + 1}" for index, name in enumerate(names)}
    y, ticks, labels = 0.0, [], []
    for (op, case), bars in measured.items():
        first = y
        for name, part in bars.items():
            axes.barh(y, part, 0.9, color=colours[name])
            y += 1
        ticks.append((first + y - 1) / 2)
        labels.append(f"{op} {case}")
        y += 0.8
    for name, colour in colours.items():
        axes.barh(0, 0, color=colour, label=name)
    axes.set_yticks(ticks, labels, fontsize=6)
    axes.set_ylim(y, -1)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("floor / time (1: as fast as the device copies or multiplies)")
    axes.set_title(title)
    axes.legend(fontsize=7, loc="lower right")
    picture = io.StringIO()
    figure.savefig(picture, format="svg", metadata={"Date": None})
    return picture.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="*", type=Path, help="results files; default: those committed")
    parser.add_argument("--out", type=Path, default=DOCS, help="folder of the pictures; default: docs")
    args = parser.parse_args()
    for path in args.results or sorted(RESULTS.glob("*.json")):
        rows = json.loads(path.read_text())
        if not fractions(rows):
            print(f"{path}: no measurement has a floor")
            continue
        picture = args.out / f"floors-{path.stem}.svg"
        write_text(picture, draw(rows, f"{rows[0]['device']}, torch {rows[0]['torch']}"))
        print(f"written: {picture}")


if __name__ == "__main__":
    main()
