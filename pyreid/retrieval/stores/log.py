"""The log of a local store: records with checksums, appended one after the other. Internal.

A record is a header of 20 bytes, little-endian: ``PYRL``, length of the payload (uint64), CRC-32 of the payload, CRC-32
of the 16 bytes before. The payload: length of a JSON head (uint64), the head, and for ``"op": "add"`` four columns of
8 bytes an item: keys, ids, cameras (int64) and timestamps (float64); for ``"op": "remove"`` the keys.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

_MAGIC = b"PYRL"
_HEADER = struct.Struct("<4sQII")
_COLUMNS = {"add": ("<i8", "<i8", "<i8", "<f8"), "remove": ("<i8",)}


class DamageError(Exception):
    """A record in the middle of a log is damaged; holds its position."""

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


def pack(head: dict[str, Any], columns: tuple[np.ndarray, ...]) -> bytes:
    """A record. ``head["op"]`` says which columns it has; they are of one length."""
    text = json.dumps(head | {"count": len(columns[0])}, allow_nan=False).encode()
    types = _COLUMNS[head["op"]]
    arrays = b"".join(column.astype(kind).tobytes() for column, kind in zip(columns, types, strict=True))
    payload = struct.pack("<Q", len(text)) + text + arrays
    start = struct.pack("<4sQI", _MAGIC, len(payload), zlib.crc32(payload))
    return start + struct.pack("<I", zlib.crc32(start)) + payload


def unpack(content: bytes) -> Iterator[tuple[dict[str, Any], list[np.ndarray], int]]:
    """The records of a log: head, columns and the position where each ends.

    An incomplete record at the end was never committed, and is left out.

    Raises:
        DamageError: if a complete record comes after one that is not.
    """
    position = 0
    while position < len(content):
        payload = _payload(content, position)
        if payload is None:
            later = content.find(_MAGIC, position + 1)
            while later >= 0:
                if _payload(content, later) is not None:
                    raise DamageError(position)
                later = content.find(_MAGIC, later + 1)
            return
        length = struct.unpack_from("<Q", payload)[0]
        head = json.loads(payload[8 : 8 + length])
        start, columns = 8 + length, []
        for kind in _COLUMNS[head["op"]]:
            columns.append(np.frombuffer(payload, kind, head["count"], start))
            start += 8 * head["count"]
        position += _HEADER.size + len(payload)
        yield head, columns, position


def _payload(content: bytes, position: int) -> bytes | None:
    """The payload of a record, or None if it is not complete and sound."""
    start = position + _HEADER.size
    if start > len(content):
        return None
    magic, length, payload_sum, header_sum = _HEADER.unpack_from(content, position)
    if magic != _MAGIC or zlib.crc32(content[position : start - 4]) != header_sum or start + length > len(content):
        return None
    payload = content[start : start + length]
    return payload if zlib.crc32(payload) == payload_sum else None
