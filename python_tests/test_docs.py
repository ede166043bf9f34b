"""The documents say what is measured and what exists."""

from __future__ import annotations

import json
import re
from importlib import import_module
from pathlib import Path

import pytest

from pyreid import ops

tables = import_module("pyreid.benchmarks.tables")
evidence = import_module("pyreid.benchmarks.evidence")


@pytest.mark.parametrize("document", [tables.DOCUMENT, tables.DEPLOYMENT], ids=lambda path: path.stem)
def test_measured_tables_are_those_of_the_results_files(document: Path) -> None:
    text = document.read_text()
    assert "<!-- measured:" in text
    assert tables.filled(text, tables.load_results()) == text, "run python -m benchmarks.tables"


def test_a_changed_result_changes_the_table() -> None:
    rows = tables.load_results()
    text = tables.filled(tables.DOCUMENT.read_text(), rows)
    changed = [{**row, "ratio": row["ratio"] + 1} for row in rows]
    assert tables.filled(text, changed) != text


def test_the_table_of_models_has_a_line_for_each_form_and_marks_what_export_refuses() -> None:
    row = {
        "op": "model", "device": "A CPU", "torch": "2.0", "model": "small", "params": 1_500_000, "macs": 2_000_000,
        "size_bytes": 3_000_000, "similarity": None,
    }  # fmt: skip
    rows = [
        {**row, "form": form, "dtype": dtype, "batch": batch, "images_per_second": speed, "similarity": similarity}
        for form, dtype, speed, similarity in (
            ("OpenVINO", "int8", 90.4, 0.97999),
            ("OpenVINO", "float32", 50, None),
            ("ONNX Runtime", "int8", 70, 0.98),
            ("torch eager", "float32", 10, None),
        )
        for batch in (1, 32)
    ]
    assert tables.table(rows, "model").splitlines()[2:6] == [
        "| small | 1.50 M | 0.002 G | torch eager | 3.00 | 10 | 10 |  |",
        "| small | 1.50 M | 0.002 G | ONNX Runtime int8 | 3.00 | 70 | 70 | 0.9800 |",
        "| small | 1.50 M | 0.002 G | OpenVINO | 3.00 | 50 | 50 |  |",
        "| small | 1.50 M | 0.002 G | OpenVINO int8 | 3.00 | 90 | 90 | 0.9799 * |",
    ]


def test_every_operator_has_a_section_with_a_measured_table() -> None:
    text = tables.DOCUMENT.read_text()
    for name in ops.__all__:
        if name == "reference":
            continue
        section = re.search(rf"^## `{name}`$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
        assert section is not None, name
        assert f"<!-- measured: {name} -->" in section[1], name


def test_tables_of_evidence_are_those_of_the_results_file() -> None:
    text, results = evidence.DOCUMENT.read_text(), evidence.load_results()
    assert evidence.filled(text, results) == text, "run python -m benchmarks.evidence"
    assert evidence.filled(text, {**results, "planned_seeds": 99}) != text
    assert (evidence.FOLDER / "evidence.png").is_file()


def test_results_of_the_command_come_into_the_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They hold all that the table needs, though not the whole recipes."""
    results = evidence.load_results()
    monkeypatch.setattr(evidence, "FOLDER", tmp_path / "docs")
    for run in results["runs"]:
        run["recipe"] = {**run["recipe"], "name": "evidence/x", "data": {"root": "somewhere"}}
    (tmp_path / "results.json").write_text(json.dumps(results))
    (tmp_path / "results.png").write_bytes(b"picture")
    evidence.take(tmp_path)
    assert evidence.load_results() == json.loads((evidence.DOCUMENT.parent / "results/evidence.json").read_text())
    assert (tmp_path / "docs/evidence.png").read_bytes() == b"picture"
