"""The log of a local store: records with checksums, appended one after the other. Internal.

A record is a header of 20 bytes, little-endian: ``PYRL``, length of the payload (uint64), CRC-32 of the payload, CRC-32
of the 16 bytes before. The payload: length of a JSON head (uint64), the head, and for ``"op": "add"`` four columns of
8 bytes an item: keys, ids, cameras (int64) and timestamps (float64); for ``"op": "remove"`` the keys.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

_MAGIC = b"PYRL"
_HEADER = struct.Struct("<4sQII")
_BEGINNING = re.compile(rb'\{"op": (?:"add", "next_key": (\d+),|"remove",)')  # of a head, as pack writes it
_COLUMNS = {"add": ("<i8", "<i8", "<i8", "<f8"), "remove": ("<i8",)}


class DamageError(Exception):
    """A log is damaged at a byte; the message says how."""

    def __init__(self, position: int, how: str) -> None:
        super().__init__(f"damaged at byte {position}, {how}")


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
        DamageError: if a complete record comes after one that is not, if what is at the end is no part of a record, or
            if a sound record holds what this version does not write.
    """
    position = 0
    while position < len(content):
        payload = _payload(content, position)
        if payload is None:
            later = content.find(_MAGIC, position + 1)
            while later >= 0:
                if _payload(content, later) is not None:
                    raise DamageError(position, "with sound records behind it")
                later = content.find(_MAGIC, later + 1)
            if not _is_torn(content, position):
                raise DamageError(position, "not as an interrupted write leaves it")
            return
        try:
            head, columns = _read(payload)
        except (ValueError, KeyError, TypeError, struct.error) as error:
            raise DamageError(position, f"a record of another version or program ({error!r})") from error
        position += _HEADER.size + len(payload)
        yield head, columns, position


def _read(payload: bytes) -> tuple[dict[str, Any], list[np.ndarray]]:
    length = struct.unpack_from("<Q", payload)[0]
    head = json.loads(payload[8 : 8 + length])
    start, columns = 8 + length, []
    for kind in _COLUMNS[head["op"]]:
        columns.append(np.frombuffer(payload, kind, head["count"], start))
        start += 8 * head["count"]
    missing = ({"next_key", "features_crc32", "metadata"} if head["op"] == "add" else set()) - head.keys()
    if missing:
        raise KeyError(", ".join(sorted(missing)))
    return head, columns


def _is_torn(content: bytes, position: int) -> bool:
    """Whether the end of a log is the beginning of a record; zeros may be in the place of what was not written."""
    header = content[position : position + _HEADER.size]
    if len(header) < _HEADER.size or not any(header[4:]):
        return _MAGIC.startswith(header[:4].rstrip(b"\0"))
    magic, length, _, header_sum = _HEADER.unpack(header)
    if not any(header[-4:]):  # not known how long it is
        return bool(magic == _MAGIC) and not any(content[position + _HEADER.size :])
    if magic != _MAGIC or zlib.crc32(header[:-4]) != header_sum:
        return False
    end = position + _HEADER.size + length
    return end > len(content) or not any(content[end - 8 :])


def torn_items(content: bytes, position: int, next_key: int) -> int | None:
    """Items that the incomplete record at the end adds, 0 for a removal; None where so little of it is there.

    ``next_key`` is that of the records before.
    """
    head = _BEGINNING.match(content, position + _HEADER.size + 8)
    if head is None:
        return None
    return int(head[1]) - next_key if head[1] is not None else 0


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
