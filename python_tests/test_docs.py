"""The documents say what is measured and what exists."""

from __future__ import annotations

import re
from importlib import import_module

from pyreid import ops

tables = import_module("pyreid.benchmarks.tables")


def test_measured_tables_are_those_of_the_results_files() -> None:
    text = tables.DOCUMENT.read_text()
    assert "<!-- measured:" in text
    assert tables.filled(text, tables.load_results()) == text, "run python -m benchmarks.tables"


def test_a_changed_result_changes_the_table() -> None:
    rows = tables.load_results()
    text = tables.filled(tables.DOCUMENT.read_text(), rows)
    changed = [{**row, "ratio": row["ratio"] + 1} for row in rows]
    assert tables.filled(text, changed) != text


def test_every_operator_has_a_section_with_a_measured_table() -> None:
    text = tables.DOCUMENT.read_text()
    for name in ops.__all__:
        if name == "reference":
            continue
        section = re.search(rf"^## `{name}`$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
        assert section is not None, name
        assert f"<!-- measured: {name} -->" in section[1], name
