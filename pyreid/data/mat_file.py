"""Numeric arrays of MATLAB's level 5 MAT files, the format before version 7.3; SciPy is not needed for that much."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pyreid.errors import DatasetError

_HEADER_BYTES = 128
_MATRIX, _COMPRESSED, _INT8, _INT32, _UINT32, _DOUBLE = 14, 15, 1, 5, 6, 9
_DOUBLE_CLASS = 6
_COMPLEX_FLAG = 0x0800
# Storage types by their number; MATLAB stores doubles that are whole numbers in as few bytes as they need.
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NUMERIC_CLASSES = range(6, 16)


def read_mat(path: Path) -> dict[str, NDArray[np.float64]]:
    """The real numeric arrays of a MAT file by name; what else it holds is left out.

    Args:
        path: a file that MATLAB saved with ``-v6`` or ``-v7``, compressed or not, in either byte order.

    Returns:
        Arrays of float64 in the shapes they were saved in.

    Raises:
        DatasetError: the file cannot be read, is of another format, or is damaged; the message names it.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error})") from error
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if data[:19] == b"MATLAB 7.3 MAT-file":
        raise DatasetError(f"{path}: is a MAT file of version 7.3, expected version 5 (save with -v7 in MATLAB)")
    if order is None:
        raise DatasetError(f"{path}: is not a MAT file of version 5")
    arrays: dict[str, NDArray[np.float64]] = {}
    try:
        for kind, body in _elements(data[_HEADER_BYTES:], order):
            if kind == _COMPRESSED:
                ((kind, body),) = _elements(zlib.decompress(body), order)
            if kind == _MATRIX and body:
                named = _read_matrix(body, order)
                if named is not None:
                    arrays[named[0]] = named[1]
    except (struct.error, zlib.error, ValueError, KeyError, IndexError) as error:
        raise DatasetError(f"{path}: is a damaged MAT file ({type(error).__name__}: {error})") from error
    return arrays


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Type and bytes of each data element."""
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        if kind >> 16:  # the short form: size and type in the first word, the data in the second
            kind, size = kind & 0xFFFF, kind >> 16
            begin, following = at + 4, at + 8
        else:
            begin = at + 8
            following = begin + size
            if kind != _COMPRESSED:
                following += -following % 8
        if size > len(data) - begin:
            raise ValueError(f"an element of {size} bytes where {len(data) - begin} are left")
        yield kind, data[begin : begin + size]
        at = following


def _read_matrix(body: bytes, order: str) -> tuple[str, NDArray[np.float64]] | None:
    """Name and values of a matrix element; None if it is no real numeric array."""
    parts = list(_elements(body, order))
    flags = struct.unpack_from(f"{order}I", parts[0][1])[0]
    if flags & 0xFF not in _NUMERIC_CLASSES or flags & _COMPLEX_FLAG:
        return None
    shape = np.frombuffer(parts[1][1], f"{order}i4")
    kind, values = parts[3]
    array = np.frombuffer(values, f"{order}{_STORED[kind]}").astype(np.float64)
    return parts[2][1].decode("ascii"), array.reshape(tuple(int(n) for n in shape), order="F")


def write_mat(path: Path, arrays: dict[str, NDArray[np.float64]]) -> None:
    """Write two-dimensional arrays as doubles, not compressed; the bytes depend on nothing but names and values."""

    def element(kind: int, body: bytes) -> bytes:
        return struct.pack("<II", kind, len(body)) + body + bytes(-len(body) % 8)

    parts = [b"MATLAB 5.0 MAT-file, written by pyreid".ljust(124), struct.pack("<H2s", 0x0100, b"IM")]
    for name, array in arrays.items():
        values = np.asarray(array, np.float64)
        matrix = (
            element(_UINT32, struct.pack("<II", _DOUBLE_CLASS, 0)),
            element(_INT32, struct.pack(f"<{values.ndim}i", *values.shape)),
            element(_INT8, name.encode("ascii")),
            element(_DOUBLE, values.astype("<f8").tobytes(order="F")),
        )
        parts.append(element(_MATRIX, b"".join(matrix)))
    path.write_bytes(b"".join(parts))
