"""The settings of a model: frozen dataclasses whose fields are checked against their type hints."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from pyreid.models.base import ReIDModel


def check_fields(config: object) -> None:
    """Check every field of a dataclass against its type hint.

    Hints may be a ``Literal``, bool, int, float, str and unions of the latter, also with None.

    Args:
        config: an instance of a dataclass.

    Raises:
        TypeError: a field holds a value of another type.
        ValueError: a field with a ``Literal`` type holds another choice, or a float is not finite.
    """
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        _check_value(field.name, getattr(config, field.name), hints[field.name])


def check_range(name: str, value: float, *, low: float, high: float, include_high: bool = True) -> None:
    """Raise ``ValueError`` unless ``low <= value <= high`` (``< high`` with ``include_high=False``)."""
    inside = low <= value <= high if include_high else low <= value < high
    if not inside:
        raise ValueError(f"{name}: got {value}, expected a value in [{low}, {high}{']' if include_high else ')'}")


def _check_value(name: str, value: Any, hint: Any) -> None:
    origin = typing.get_origin(hint)
    if origin is Literal:
        choices = typing.get_args(hint)
        if not any(isinstance(value, type(choice)) and value == choice for choice in choices):
            raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(map(repr, choices))}")
        return
    accepted = typing.get_args(hint) if origin in (typing.Union, types.UnionType) else (hint,)
    number = isinstance(value, int) and not isinstance(value, bool)
    matches = any(
        (kind is float and (number or isinstance(value, float)))
        or (kind is int and number)
        or (kind not in (int, float) and isinstance(value, kind))
        for kind in accepted
    )
    if not matches:
        names = " or ".join("None" if kind is type(None) else kind.__name__ for kind in accepted)
        raise TypeError(f"{name}: got {value!r} of type {type(value).__name__}, expected {names}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name}: got {value}, expected a finite number")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """What every model has.

    Attributes:
        num_classes: width of the identity classifier, i.e. the number of training identities; 0 means no classifier.
        early_exits: whether the family's models can stop early, see :meth:`~pyreid.models.ReIDModel.stages`.
    """

    early_exits: ClassVar[bool] = False

    num_classes: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.num_classes < 0:
            raise ValueError(f"num_classes: got {self.num_classes}, expected 0 (no classifier) or more")
        self.check()

    def check(self) -> None:
        """Check what the types cannot say; families override it."""

    def build(self) -> ReIDModel:
        """Make the model, with fresh weights."""
        raise NotImplementedError
