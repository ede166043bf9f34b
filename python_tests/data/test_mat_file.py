"""MAT files as MATLAB writes them: compressed, with whole numbers in few bytes, in either byte order."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyreid.data.mat_file import read_mat, write_mat
from pyreid.errors import DatasetError


def element(order: str, kind: int, body: bytes, *, pad: bool = True) -> bytes:
    if pad and len(body) <= 4 and kind != 14:  # MATLAB uses the short form for what fits into it
        word = struct.pack(f"{order}I", len(body) << 16 | kind)
        return word + body + bytes(4 - len(body))
    return struct.pack(f"{order}II", kind, len(body)) + body + (bytes(-len(body) % 8) if pad else b"")


def matrix(order: str, name: str, shape: tuple[int, ...], stored: int, values: bytes, *, kind: int = 6) -> bytes:
    parts = (
        element(order, 6, struct.pack(f"{order}II", kind, 0)),
        element(order, 5, struct.pack(f"{order}{len(shape)}i", *shape)),
        element(order, 1, name.encode()),
        element(order, stored, values),
    )
    return element(order, 14, b"".join(parts))


def header(order: str) -> bytes:
    mark = b"IM" if order == "<" else b"MI"
    return b"MATLAB 5.0 MAT-file, Platform: GLNXA64".ljust(124) + struct.pack(f"{order}H", 0x0100) + mark


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compressed", [False, True])
def test_doubles_stored_in_few_bytes(tmp_path: Path, order: str, compressed: bool) -> None:
    first = matrix(order, "track_info", (3, 2), 4, np.array([1, 2, 3, 40000, 5, 6], f"{order}u2").tobytes())
    second = matrix(order, "q", (1, 2), 2, b"\x07\xff")
    if compressed:
        first, second = (element(order, 15, zlib.compress(part), pad=False) for part in (first, second))
    (tmp_path / "a.mat").write_bytes(header(order) + first + second)
    arrays = read_mat(tmp_path / "a.mat")
    assert arrays["track_info"].tolist() == [[1, 40000], [2, 5], [3, 6]]  # columns first
    assert arrays["q"].tolist() == [[7, 255]]
    assert arrays["q"].dtype == np.float64


@pytest.mark.parametrize(
    ("stored", "code"), [(1, "i1"), (2, "u1"), (3, "i2"), (5, "i4"), (6, "u4"), (7, "f4"), (9, "f8"), (12, "i8")]
)
def test_every_storage_type(tmp_path: Path, stored: int, code: str) -> None:
    values = np.array([0, 1, 100, 7], code)
    (tmp_path / "a.mat").write_bytes(header("<") + matrix("<", "x", (2, 2), stored, values.tobytes()))
    assert read_mat(tmp_path / "a.mat")["x"].T.ravel().tolist() == [0, 1, 100, 7]


def test_other_things_in_the_file_are_left_out(tmp_path: Path) -> None:
    text = matrix("<", "note", (1, 2), 4, b"h\0i\0", kind=4)
    number = matrix("<", "x", (1, 1), 9, struct.pack("<d", 2.5))
    (tmp_path / "a.mat").write_bytes(header("<") + text + number)
    assert {name: array.tolist() for name, array in read_mat(tmp_path / "a.mat").items()} == {"x": [[2.5]]}


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    name=st.from_regex(r"[a-z_]{1,40}", fullmatch=True),
    seed=st.integers(0, 99),
)
def test_write_and_read(tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, int], name: str, seed: int) -> None:
    path = tmp_path_factory.mktemp("mat") / "a.mat"
    array = np.random.default_rng(seed).standard_normal(shape)
    write_mat(path, {name: array, "zz": np.eye(2)})
    arrays = read_mat(path)
    np.testing.assert_array_equal(arrays[name], array)
    np.testing.assert_array_equal(arrays["zz"], np.eye(2))


def test_other_formats_and_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    with pytest.raises(DatasetError, match=r"a\.mat: cannot be read"):
        read_mat(path)
    path.write_bytes(b"MATLAB 7.3 MAT-file, Platform".ljust(124) + b"\0\2IM" + bytes(100))
    with pytest.raises(DatasetError, match=r"a\.mat: is a MAT file of version 7\.3, expected version 5"):
        read_mat(path)
    path.write_bytes(b"<html>404</html>" * 20)
    with pytest.raises(DatasetError, match=r"a\.mat: is not a MAT file"):
        read_mat(path)
    write_mat(path, {"x": np.ones((9, 9))})
    whole = path.read_bytes()
    for cut in range(130, len(whole), 37):
        path.write_bytes(whole[:cut])
        with pytest.raises(DatasetError, match=r"a\.mat: is a damaged MAT file"):
            read_mat(path)
    path.write_bytes(header("<") + struct.pack("<II", 15, 12) + b"no zlib here")
    with pytest.raises(DatasetError, match=r"damaged MAT file \(error"):
        read_mat(path)
