"""What the benchmarks compute beside times: floors, the picture of them, agreement with what they are compared with."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyreid import ops
from pyreid.ops import reference


def module(name: str) -> Any:
    return import_module(f"pyreid.benchmarks.{name}")


def row(op: str, case: str, peer: str, ours_ms: float, peer_ms: float, floor_ms: float | None) -> dict[str, Any]:
    return {
        "op": op,
        "case": case,
        "dtype": "float32",
        "device": "Some GPU",
        "torch": "2.11.0",
        "peer": peer,
        "ours_ms": ours_ms,
        "peer_ms": peer_ms,
        "floor_ms": floor_ms,
    }


ROWS = [
    row("gem_pool", "1x2x3x4", "torch eager", 2.0, 8.0, 1.0),
    row("gem_pool", "1x2x3x4", "torch.compile", 1.25, 2.5, 1.0),
    row("search", "3x4x5", "bare torch.mm", 4.0, 3.0, 3.0),
    row("gem_pool", "9x9x9x9", "torch eager", 2.0, 8.0, None),
    row("copy", "1 GiB", "-", 1.0, 1.0, 1.0),
]


def test_the_floor_is_the_slower_of_memory_and_products() -> None:
    ceilings = module("_ceilings")
    made = ceilings.Ceilings(copy=1e12, product=5e13)
    assert made.floor_ms(ceilings.Work(bytes=2 * 10**9)) == pytest.approx(2.0)
    assert made.floor_ms(ceilings.Work(bytes=2 * 10**9, flops=10**11)) == pytest.approx(2.0)
    assert made.floor_ms(ceilings.Work(bytes=2 * 10**9, flops=10**12)) == pytest.approx(20.0)


def test_parts_of_the_floor() -> None:
    found = module("roofline").fractions(ROWS)
    assert list(found) == [("gem_pool", "1x2x3x4, float32"), ("search", "3x4x5, float32")]
    assert found["gem_pool", "1x2x3x4, float32"] == {"ours": 0.8, "torch eager": 0.125, "torch.compile": 0.4}
    assert found["search", "3x4x5, float32"] == {"ours": 0.75}


def test_the_picture_of_floors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="the extra train is not installed")
    (tmp_path / "some-gpu.json").write_text(json.dumps(ROWS))
    monkeypatch.setattr("sys.argv", ["roofline", str(tmp_path / "some-gpu.json"), "--out", str(tmp_path)])
    module("roofline").main()
    picture = (tmp_path / "floors-some-gpu.svg").read_text()
    assert picture.startswith("<?xml")
    module("roofline").main()
    assert (tmp_path / "floors-some-gpu.svg").read_text() == picture


def test_ceilings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    ceilings = module("_ceilings")
    monkeypatch.setitem(ceilings.COPIED_BYTES, "cpu", 2**20)
    monkeypatch.setitem(ceilings.MATRIX, "cpu", 64)
    rows = module("bench_ceilings").measure("cpu", 3)
    assert [(r["op"], r["dtype"]) for r in rows] == [("copy", "float32"), ("matrix product", "float32")]
    assert rows[0]["rate"] == pytest.approx(2 * 2**20 / rows[0]["ours_ms"] * 1e3, rel=0.2)
    assert all(r["rate"] > 1e6 for r in rows)


def test_plain_operators_are_put_back_and_give_the_same_step() -> None:
    bench = module("bench_training_step")
    case = bench.Case("compact_reid_1x", 2, 2, (160, 64))
    ours = [float(step()) for step in [bench.training_step(case, "cpu", torch.float32, compiled=False)] for _ in "ab"]
    before = ops.gem_pool
    with bench.plain_operators():
        assert ops.gem_pool is reference.gem_pool
        step = bench.training_step(case, "cpu", torch.float32, compiled=False)
        plain = [float(step()) for _ in "ab"]
    assert ops.gem_pool is before
    assert ours == pytest.approx(plain, rel=1e-4)
    assert ours[0] != ours[1]


def test_streaming_agrees_with_float64(capsys: pytest.CaptureFixture[str]) -> None:
    bench = module("bench_streaming")
    (found,) = bench.measure("cpu", 1, size=(30, 700, 16))
    assert found["case"] == "30x700x16 fp32"
    assert "differs by" in capsys.readouterr().out


def test_streaming_sees_other_results(tmp_path: Path) -> None:
    bench = module("bench_streaming")
    problem = bench.make_problem(tmp_path, 30, 700, 16)
    from pyreid.evaluation import evaluate

    wrong = evaluate(-problem.query, problem.gallery, *problem.labels)
    with pytest.raises(RuntimeError, match="average precision differs"):
        bench.check(wrong, problem, "turned round", exact=False)


def test_re_ranking_from_a_graph(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("faiss", reason="the extra faiss is not installed")
    bench = module("bench_graph")
    rows = bench.measure("cpu", 1, size=(20, 400, 16), memory=False)
    assert [r["peer"] for r in rows] == ["faiss PQ alone", "exact lists"]
    assert "of the best 50 are those of the exact lists" in capsys.readouterr().out
    assert bench._shared(np.array([[1, 2], [3, 4]]), np.array([[2, 5], [3, 4]])) == 0.75
