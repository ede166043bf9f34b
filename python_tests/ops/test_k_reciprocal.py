"""The stages of re-ranking as operators: what they accept. What they compute: cpp_tests and python_tests/retrieval."""

from __future__ import annotations

from typing import Any

import pytest
import torch

ops = torch.ops.pyreid
STARTS = torch.tensor([0, 2, 3])
COLUMNS = torch.tensor([0, 1, 1], dtype=torch.int32)
WEIGHTS = torch.tensor([0.75, 0.25, 1.0])
NEIGHBORS = torch.tensor([[0, 1], [1, 0]], dtype=torch.int32)


def strip(**changes: Any) -> tuple[Any, ...]:
    given: dict[str, Any] = {
        "values": torch.ones(1, 1),
        "offset": torch.zeros(1),
        "query_norms": torch.zeros(1),
        "limits": torch.ones(1),
        "divisors": torch.ones(1),
        "squared": False,
        "starts": STARTS[:2],
        "columns": COLUMNS,
        "weights": WEIGHTS,
        "gallery_starts": torch.tensor([0, 0, 1]),
        "gallery_items": torch.zeros(1, dtype=torch.int32),
        "gallery_weights": torch.ones(1),
        "lambda_value": 0.3,
        "clip": False,
    }
    return tuple((given | changes).values())


CALLS: dict[str, tuple[Any, ...]] = {
    "reciprocal_sets": (NEIGHBORS, 2, 1),
    "pair_distances": (torch.ones(2, 3), STARTS, COLUMNS),
    "reciprocal_weights": (WEIGHTS, STARTS, COLUMNS),
    "mean_rows": (STARTS, COLUMNS, WEIGHTS, NEIGHBORS, 2),
    "by_columns": (STARTS, COLUMNS, WEIGHTS, 1),
    "re_rank_strip_": strip(),
}


@pytest.mark.parametrize("name", CALLS)
def test_schema(name: str) -> None:
    copies = tuple(a.clone() if isinstance(a, torch.Tensor) else a for a in CALLS[name])
    torch.library.opcheck(getattr(ops, name).default, copies, test_utils="test_schema")


def test_values() -> None:
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    assert ops.pair_distances(x, STARTS, COLUMNS).tolist() == [0, 25, 0]
    starts, columns, weights = ops.mean_rows(STARTS, COLUMNS, WEIGHTS, NEIGHBORS, 2)
    assert (starts.tolist(), columns.tolist()) == ([0, 2, 4], [0, 1, 0, 1])
    assert weights.tolist() == [0.375, 0.625, 0.375, 0.625]
    starts, items, weights = ops.by_columns(STARTS, COLUMNS, WEIGHTS, 1)
    assert (starts.tolist(), items.tolist(), weights.tolist()) == ([0, 0, 1], [0], [1.0])
    values = torch.zeros(1, 1)  # overlap min(0.25, 1), distance min(max(0 + 2 (0 - 0), 0), 1) = 0
    ops.re_rank_strip_(*strip(values=values))
    torch.testing.assert_close(values, torch.tensor([[0.7 * (1 - 0.25 / 1.75)]]))


@pytest.mark.parametrize(
    ("name", "arguments", "match"),
    [
        ("reciprocal_sets", (NEIGHBORS.long(), 2, 1), "neighbors must be 2-D, contiguous and int32"),
        ("reciprocal_sets", (NEIGHBORS + 1, 2, 1), "neighbor 2 of 2 items"),
        ("reciprocal_sets", (NEIGHBORS, 3, 1), "forward and half must be from 1 to 2"),
        ("reciprocal_sets", (NEIGHBORS, 2, 0), "forward and half must be from 1 to 2"),
        ("pair_distances", (torch.ones(3, 3), STARTS, COLUMNS), "with a row for each row of pairs"),
        ("pair_distances", (torch.ones(2, 3), STARTS, COLUMNS + 1), "entry 1 is in column 2 of 2"),
        ("pair_distances", (torch.ones(2, 3), torch.tensor([0, 3, 2]), COLUMNS), "starts must ascend"),
        ("pair_distances", (torch.ones(2, 3), torch.tensor([0, 1, 2]), COLUMNS), "starts must run from 0 to"),
        ("pair_distances", (torch.ones(2, 3).int(), STARTS, COLUMNS), "expected float32 or float64"),
        ("reciprocal_weights", (WEIGHTS, torch.tensor([0, 2, 4]), COLUMNS), "starts leave the entries"),
        ("reciprocal_weights", (WEIGHTS[:2], STARTS, COLUMNS), "weights must be contiguous with 3 elements"),
        ("mean_rows", (STARTS, COLUMNS, WEIGHTS, NEIGHBORS, 3), "k2 must be from 1 to 2"),
        ("mean_rows", (STARTS, COLUMNS, WEIGHTS, NEIGHBORS[:1], 1), "neighbor 1 of 1 items"),
        ("by_columns", (STARTS, COLUMNS, WEIGHTS, 3), "first must be from 0 to 2"),
        ("by_columns", (STARTS, COLUMNS.long(), WEIGHTS, 0), "columns has another dtype"),
        ("re_rank_strip_", strip(values=torch.ones(1)), "values must be 2-D with dense rows"),
        ("re_rank_strip_", strip(limits=None), "offset, query_norms, limits and divisors belong together"),
        ("re_rank_strip_", strip(offset=torch.zeros(2)), "offset must be contiguous with 1 elements"),
        ("re_rank_strip_", strip(limits=torch.ones(1).double()), "limits has another dtype"),
        ("re_rank_strip_", strip(starts=STARTS), "starts must delimit a row for each of values"),
        ("re_rank_strip_", strip(weights=WEIGHTS.double()), "weights has another dtype than expected"),
        ("re_rank_strip_", strip(gallery_items=torch.ones(1, dtype=torch.int32)), "entry 0 is in column 1 of 1"),
        ("re_rank_strip_", strip(columns=COLUMNS + 1), "entry 1 is in column 2 of 2"),
    ],
)
def test_bad_input(name: str, arguments: tuple[Any, ...], match: str) -> None:
    with pytest.raises(RuntimeError, match=match):
        getattr(ops, name)(*arguments)
