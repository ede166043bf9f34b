"""The zoo by name: ``create_model("safr_small", num_classes=751, mask="soft")``.

A model is registered by a function that has the model's name and returns its default settings, a frozen dataclass.
The overrides that ``create_model`` takes are the fields of that dataclass and the parameters of the function.
"""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import inspect
import os
import re
import typing
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from pyreid.models.base import ReIDModel
from pyreid.models.config import ModelConfig

ConfigFunction = Callable[..., ModelConfig]
_Function = TypeVar("_Function", bound=ConfigFunction)


@dataclasses.dataclass(frozen=True, slots=True)
class Option:
    """An override: its name, its default, and the values that it takes in words."""

    name: str
    default: object
    values: str


@dataclasses.dataclass(frozen=True, slots=True)
class ModelEntry:
    """One registered model.

    Attributes:
        name: the model's name.
        summary: one line for people, the first of the function's docstring.
        default_config: gives the default settings; its parameters (presets, and settings on which defaults of others
            hang) are overrides too.
        parameters: names of the function's parameters.
        options: names of all overrides that ``create_model`` takes.
    """

    name: str
    summary: str
    default_config: ConfigFunction
    parameters: tuple[str, ...]
    options: tuple[str, ...]

    def describe_options(self) -> list[Option]:
        """Every override with its default and its values."""
        config = self.default_config()
        signature = inspect.signature(self.default_config).parameters
        hints = typing.get_type_hints(type(config)) | typing.get_type_hints(self.default_config)
        return [
            Option(
                name,
                signature[name].default if name in self.parameters else getattr(config, name),
                _describe_values(hints[name]),
            )
            for name in self.options
        ]


_ENTRIES: dict[str, ModelEntry] = {}


def register_model(function: _Function) -> _Function:
    """Register the function's name as a model.

    Args:
        function: returns the model's default :class:`~pyreid.models.config.ModelConfig`; every parameter has a default.

    Raises:
        ValueError: the name is taken, or the function has no docstring.
    """
    name = function.__name__
    if name in _ENTRIES:
        raise ValueError(f"model {name!r} is registered twice")
    if not function.__doc__:
        raise ValueError(f"model {name!r} has no docstring; its first line is the summary that people see")
    parameters = tuple(inspect.signature(function).parameters)
    # A parameter that has the name of a field sets that field, and perhaps others that go with it.
    fields = tuple(
        field.name
        for field in dataclasses.fields(function())
        if field.name != "num_classes" and field.name not in parameters
    )
    summary = function.__doc__.strip().splitlines()[0]
    _ENTRIES[name] = ModelEntry(name, summary, function, parameters, parameters + fields)
    return function


def list_models(pattern: str = "*") -> list[str]:
    """Names of the models that match a shell-style pattern, in natural order (``x2`` before ``x10``).

    Raises:
        TypeError: the pattern is no string.
    """
    if not isinstance(pattern, str):
        raise TypeError(f"pattern: got {pattern!r} of type {type(pattern).__name__}, expected str such as 'safr*'")
    return sorted(fnmatch.filter(_ENTRIES, pattern), key=_natural_key)


def model_entry(name: str) -> ModelEntry:
    """The registered model of that name.

    Raises:
        TypeError: the name is no string.
        ValueError: there is none; the message offers close names.
    """
    if not isinstance(name, str):
        raise TypeError(
            f"model: got {name!r:.60} of type {type(name).__name__}, expected a name such as those of list_models()"
        )
    entry = _ENTRIES.get(name)
    if entry is None:
        close = difflib.get_close_matches(name, list_models(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else f"expected one of {', '.join(list_models())}"
        if os.sep in name:
            hint = "expected a name, as list_models() has it; pyreid.FeatureExtractor opens runs and exported files"
        raise ValueError(f"model: unknown name {name!r}; {hint}")
    return entry


def resolve_config(name: str, *, num_classes: int = 0, **overrides: Any) -> ModelConfig:
    """The settings that ``create_model`` builds from: the model's defaults with the overrides applied.

    Raises:
        ValueError: unknown name, unknown override or wrong value.
        TypeError: a name or an override of the wrong type.
    """
    entry = model_entry(name)
    unknown = sorted(set(overrides) - set(entry.options))
    if unknown:
        names = ", ".join(map(repr, unknown))
        raise ValueError(
            f"model {name}: unknown override {names}; expected any of {', '.join(entry.options)} "
            "beside num_classes and weights"
        )
    parameters = {key: overrides[key] for key in entry.parameters if key in overrides}
    fields = {key: value for key, value in overrides.items() if key not in parameters}
    return dataclasses.replace(entry.default_config(**parameters), num_classes=num_classes, **fields)


def create_model(
    name: str, *, num_classes: int = 0, weights: str | os.PathLike[str] | None = None, **overrides: Any
) -> ReIDModel:
    """Make a model of the zoo.

    Args:
        name: one of :func:`list_models`.
        num_classes: number of training identities; 0 makes no classifier.
        weights: a weights file (see :func:`pyreid.models.load_weights`); ``"timm"`` asks timm for ImageNet weights of
            the backbone, which needs the network the first time; None keeps the fresh weights.
        overrides: settings that differ from the model's defaults; ``pyreid models NAME`` lists them.

    Returns:
        The model, in training mode.

    Raises:
        ValueError: unknown name, unknown override or wrong value.
        TypeError: a name, a weights file or an override of the wrong type.
        pyreid.errors.WeightsError: the weights are not there or do not fit.
        pyreid.errors.MissingDependencyError: the backbone needs timm, which is not installed.
    """
    from pyreid.models.weights import load_timm_weights, load_weights

    model = resolve_config(name, num_classes=num_classes, **overrides).build()
    if weights == "timm":
        load_timm_weights(model)
    elif weights is not None:
        load_weights(model, weights)
    return model


def _describe_values(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return ", ".join(map(str, typing.get_args(hint)))
    return getattr(hint, "__name__", str(hint))


def _natural_key(name: str) -> list[tuple[int, int, str]]:
    """Digits compare as numbers."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]
