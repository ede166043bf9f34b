from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pyreid.ops.rank_positives import rank_positives
from python_tests.ops.checks import DEVICES

DTYPES = [torch.float32, torch.float64]


def make_task(
    q_ids: np.ndarray, g_ids: np.ndarray, q_cams: np.ndarray | None, g_cams: np.ndarray | None, device: str
) -> dict[str, Any]:
    order = np.argsort(g_ids, kind="stable")
    begin = np.searchsorted(g_ids[order], q_ids, "left")
    end = np.searchsorted(g_ids[order], q_ids, "right")
    starts = np.concatenate([[0], np.cumsum(end - begin)])
    arrays = {"order": order, "begin": begin, "starts": starts, "query_cams": q_cams, "gallery_cams": g_cams}
    tensors = {name: None if a is None else torch.from_numpy(a).to(device) for name, a in arrays.items()}
    return tensors | {"slots": int(starts[-1])}


def naive(
    values: Tensor, q_ids: np.ndarray, g_ids: np.ndarray, q_cams: np.ndarray | None, g_cams: np.ndarray | None
) -> list[int]:
    """Ranks by a stable sort of each row, NaN and junk left out; then -1 for the other slots of the identity."""
    ranks = []
    for q, row in enumerate(values.double().cpu().tolist()):
        same_id = g_ids == q_ids[q]
        junk = same_id & (g_cams == q_cams[q]) if q_cams is not None else np.zeros_like(same_id)
        kept = [g for g in range(len(row)) if not junk[g] and row[g] == row[g]]
        kept.sort(key=lambda g: row[g])
        found = [rank for rank, g in enumerate(kept) if same_id[g]]
        ranks += found + [-1] * (int(same_id.sum()) - len(found))
    return ranks


def random_task(
    rows: int, columns: int, num_ids: int, num_cams: int, levels: int, dtype: torch.dtype, seed: int = 0
) -> tuple[Tensor, tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]]:
    """Values on a few levels, so that many tie, and labels."""
    rng = np.random.default_rng(seed)
    values = torch.from_numpy(rng.integers(0, levels, (rows, columns))).to(dtype)
    cams = (rng.integers(0, num_cams, rows), rng.integers(0, num_cams, columns)) if num_cams else (None, None)
    return values, (rng.integers(0, num_ids, rows), rng.integers(0, num_ids, columns), *cams)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("levels", [1, 7, 10**6])
@pytest.mark.parametrize(
    ("rows", "columns", "num_ids", "num_cams"),
    [
        (1, 1, 1, 0),
        (5, 15, 3, 2),
        (7, 33, 4, 0),
        (4, 2047, 50, 3),
        (3, 2048, 40, 3),
        (4, 2049, 30, 2),
        (3, 5000, 60, 4),
    ],
)
def test_equals_stable_sort(
    rows: int, columns: int, num_ids: int, num_cams: int, levels: int, dtype: torch.dtype, device: str
) -> None:
    values, labels = random_task(rows, columns, num_ids, num_cams, levels, dtype)
    ranks, nans = rank_positives(values.to(device), **make_task(*labels, device))
    assert ranks.tolist() == naive(values, *labels)
    assert nans.tolist() == [0] * rows


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("levels", [1, 50, 10**6])
@pytest.mark.parametrize("columns", [256, 257, 300, 600, 2600, 5300])
def test_many_positives(columns: int, levels: int, device: str) -> None:
    # 128 to 5300 positives: both sides of the CPU's change to a search, and several chunks of the CUDA kernel
    values, labels = random_task(3, columns, 2, 5, levels, torch.float32)
    ranks, _ = rank_positives(values.to(device), **make_task(*labels, device))
    assert ranks.tolist() == naive(values, *labels)
    everything = (np.zeros(3, dtype=int), np.zeros(columns, dtype=int), None, None)
    ranks, _ = rank_positives(values.to(device), **make_task(*everything, device))
    assert ranks.tolist() == 3 * list(range(columns))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("num_ids", [2, 60])
@pytest.mark.parametrize("kind", ["offset", "scale"])
def test_values_from_products(kind: str, num_ids: int, device: str) -> None:
    products, labels = random_task(4, 3000, num_ids, 3, 9, torch.float32)
    column = torch.arange(3000, dtype=torch.float32) % 13 / 4
    column[::7] = torch.nan
    values = column - products if kind == "offset" else -(products * column)
    ranks, nans = rank_positives(products.to(device), **(make_task(*labels, device) | {kind: column.to(device)}))
    assert ranks.tolist() == naive(values, *labels)
    assert nans.tolist() == [len(column[::7])] * 4


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("num_ids", [1, 40])
def test_infinity_is_a_value_and_nan_is_none(num_ids: int, device: str) -> None:
    values, labels = random_task(4, 2500, num_ids, 2, 5, torch.float32)
    values[values == 4] = torch.inf
    values[values == 0] = -torch.inf
    values[1, ::3] = torch.nan
    values[2] = torch.inf
    values[3, 1::2] = torch.nan
    ranks, nans = rank_positives(values.to(device), **make_task(*labels, device))
    assert ranks.tolist() == naive(values, *labels)
    assert nans.tolist() == values.isnan().sum(1).tolist()


@pytest.mark.parametrize("device", DEVICES)
def test_negative_zero_equals_zero(device: str) -> None:
    values = torch.tensor([[0.0, -0.0, 0.0, -0.0]], device=device)
    labels = (np.array([1]), np.array([0, 0, 1, 0]), None, None)
    assert rank_positives(values, **make_task(*labels, device))[0].tolist() == [2]


@pytest.mark.parametrize("device", DEVICES)
def test_strides_do_not_matter_and_values_stay(device: str) -> None:
    values, labels = random_task(6, 40, 4, 2, 9, torch.float32)
    task = make_task(*labels, device)
    wide = torch.full((6, 90), -1.0)
    wide[:, 3:43] = values
    before = wide.clone()
    strip = wide.to(device)[:, 3:43]
    expected = naive(values, *labels)
    assert rank_positives(strip, **task)[0].tolist() == expected
    assert rank_positives(values.T.contiguous().to(device).T, **task)[0].tolist() == expected
    assert torch.equal(wide, before)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("rows", "columns"), [(0, 5), (3, 0), (0, 0)])
def test_empty(rows: int, columns: int, device: str) -> None:
    labels = (np.zeros(rows, dtype=int), np.zeros(columns, dtype=int), None, None)
    ranks, nans = rank_positives(torch.zeros(rows, columns, device=device), **make_task(*labels, device))
    assert ranks.tolist() == rows * list(range(columns))
    assert nans.tolist() == [0] * rows


@pytest.mark.parametrize("device", DEVICES)
def test_opcheck(device: str) -> None:
    values, labels = random_task(4, 30, 3, 2, 9, torch.float32)
    t = make_task(*labels, device)
    args = (t["order"], t["begin"], t["starts"], t["slots"], t["query_cams"], t["gallery_cams"])
    torch.library.opcheck(torch.ops.pyreid.rank_positives, (values.to(device), None, None, *args))


PROGRAM = """
import sys
import torch
from pyreid.ops.rank_positives import rank_positives
from python_tests.ops.test_rank_positives import make_task, random_task
torch.set_num_threads(int(sys.argv[1]))
for dtype in (torch.float32, torch.float64):
    for num_ids in (2, 150):
        values, labels = random_task(40, 3001, num_ids, 3, 5000, dtype)
        values = values / 7
        column = torch.arange(1, 3002, dtype=dtype).sqrt()
        for source in ({}, {"offset": column}, {"scale": column}):
            ranks, nans = rank_positives(values, **source, **make_task(*labels, "cpu"))
            print(ranks.tolist(), nans.tolist())
"""


def test_threads_and_instruction_sets_agree() -> None:
    outputs = set()
    for isa, threads in [("avx512", 1), ("avx512", 2), ("avx2", 1), ("baseline", 2)]:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(threads)],
            env=os.environ | {"PYREID_CPU_ISA": isa},
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[2],
            check=True,
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1
    assert len(outputs.pop()) > 10**5


def test_bad_input() -> None:
    values, labels = random_task(4, 30, 3, 2, 9, torch.float32)
    task = make_task(*labels, "cpu")
    column = torch.ones(30)
    changes: list[tuple[dict[str, Any], str]] = [
        ({"offset": column, "scale": column}, "exclude each other"),
        ({"offset": column[1:]}, "offset must be contiguous with 30 elements"),
        ({"offset": column.double()}, "differ in dtype"),
        ({"query_cams": None}, "cameras for one side only"),
        ({"order": task["order"].int()}, "order must be int64"),
        ({"order": task["order"] + 1}, "order holds"),
        ({"begin": task["begin"] + 30}, "leave the gallery"),
        ({"starts": task["starts"] + 1}, "starts must run from 0"),
    ]
    for change, match in changes:
        with pytest.raises(RuntimeError, match=match):
            rank_positives(values, **(task | change))
    with pytest.raises(RuntimeError, match="values must be 2-D"):
        rank_positives(values[0], **task)
    with pytest.raises(RuntimeError, match="expected float32 or float64"):
        rank_positives(values.half(), **task)
