"""Arrays as NumPy users have them: views of any strides, read-only, of another byte order."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

import pyreid
from pyreid.evaluation.inputs import as_integers
from pyreid.ops.distance_tiles import as_tensor

X = np.arange(12, dtype=np.float32).reshape(4, 3)


def packed(first: str) -> Any:
    """(4, 3) float32 in records of 13 bytes, or of 16 with the numbers behind the first byte."""
    records = np.zeros(4, dtype=np.dtype([("a", first), ("x", "<f4", (3,)), ("b", "V3" if first == "i1" else "i1")]))
    records["x"] = X
    return records["x"]


@pytest.mark.parametrize(
    "array",
    [X[::-1], X[:, ::-1], X[::-1][:1], X[:, ::-1][:, :1], X[::-1][:0], packed("V0"), packed("i1"), X.astype(">f4")],
    ids=["rows", "columns", "one row", "one column", "no row", "packed", "unaligned", "big-endian"],
)
def test_views(array: Any) -> None:
    tensor = as_tensor("x", array)
    assert tensor.shape == array.shape
    assert tensor.data_ptr() % 4 == 0
    assert np.array_equal(tensor.numpy(), array)


def test_memory_is_shared_where_it_can_be() -> None:
    for array in (X, X[1:], X[:, 1:], X[::2], X.T):
        assert as_tensor("x", array).data_ptr() == array.__array_interface__["data"][0]


@pytest.mark.parametrize(
    "values",
    [np.arange(4), np.arange(4)[::-1], np.arange(4)[::-1][:1], np.arange(4, dtype=">i8")[::2], np.arange(4)[:0]],
)
def test_labels_are_an_array_that_torch_takes(values: Any) -> None:
    values.flags.writeable = False
    labels = as_integers("ids", values, len(values), "row")
    assert labels.flags.writeable  # torch warns of others, once in a process
    assert torch.from_numpy(labels).tolist() == values.tolist()


def test_evaluate_takes_the_cameras_of_a_result_and_one_reversed_query() -> None:
    rng = np.random.default_rng(0)
    query, gallery = rng.standard_normal((1, 8))[::-1], rng.standard_normal((9, 8))
    ids, cameras = [np.array([1])[::-1], np.arange(9) % 3], [np.array([0])[::-1], np.arange(9) % 2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = pyreid.evaluate(query, gallery, *ids, *cameras)
        again = pyreid.evaluate(query, gallery, result.query_ids, ids[1], result.query_cams, cameras[1])
    assert again.to_dict() == result.to_dict()
