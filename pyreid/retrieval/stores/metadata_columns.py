"""Filters by metadata without a look at every item: each name that was asked for is kept as a column. Internal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pyreid.retrieval.stores.base import has_values

_SCALARS = (str, int, float, bool, type(None))  # of JSON; objects of other types may have rules of their own
_ABSENT, _OTHER = -1, -2  # no such name; a list or an object


@dataclass(slots=True)
class _Column:
    """The values of one name.

    Attributes:
        codes: (N,) int32, a number for each value that differs from the others.
        numbers: the number of a value, see :func:`_key`.
    """

    codes: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    numbers: dict[Any, int] = field(default_factory=dict)


class MetadataColumns:
    """Finds the rows whose metadata has given values.

    A name costs a pass over all rows when it is asked for first, afterwards one over new rows, and 4 bytes a row and
    about 100 for each different value.

    Args:
        metadata: of all rows; it may grow, but rows that take part must not change.
    """

    def __init__(self, metadata: Sequence[dict[str, Any] | None]) -> None:
        self._metadata = metadata
        self._columns: dict[str, _Column] = {}

    def matching(self, wanted: Mapping[str, Any], selected: np.ndarray) -> np.ndarray:
        """(N,) bool: those of the (N,) ``selected`` rows for which :func:`has_values` is true."""
        found = selected.copy()
        for name, value in wanted.items():
            if type(value) in _SCALARS:
                column = self._column(name)
                number = column.numbers.get(_key(value))
                found &= False if number is None else column.codes == number
            else:
                for row in found.nonzero()[0].tolist():
                    found[row] = has_values(self._metadata[row], {name: value})
        return found

    def _column(self, name: str) -> _Column:
        column = self._columns.setdefault(name, _Column())
        first, numbers = len(column.codes), column.numbers
        if first < len(self._metadata):
            codes = np.empty(len(self._metadata) - first, np.int32)
            for row in range(first, len(self._metadata)):
                known = self._metadata[row]
                if known is None or name not in known:
                    codes[row - first] = _ABSENT
                elif type(value := known[name]) in _SCALARS:
                    codes[row - first] = numbers.setdefault(_key(value), len(numbers))
                else:
                    codes[row - first] = _OTHER
            column.codes = np.concatenate([column.codes, codes])
        return column


def _key(value: Any) -> Any:
    """Equal for values that are equal in JSON: true is not 1."""
    return (value,) if type(value) is bool else value
