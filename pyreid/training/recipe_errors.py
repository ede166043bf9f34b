"""Turns pydantic's validation errors into one line that names the key, the value and what was expected."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

_SHOWN = 4
_EXPECTED = {
    "bool_type": "true or false",
    "float_type": "a number",
    "int_type": "a whole number",
    "string_pattern_mismatch": "letters, digits and . + - _, in parts separated by /",
    "string_type": "text",
    "tuple_type": "a list",
}


def describe(error: ValidationError, model: type[BaseModel]) -> str:
    """One line for all errors in ``error``; each part starts with the dotted key.

    Args:
        error: what ``model.model_validate`` raised.
        model: the model, from which the known keys are taken for suggestions.
    """
    found = error.errors()
    # pydantic counts the valid items: a list whose items are wrong seems too short besides, and is not.
    within = {item["loc"][:end] for item in found for end in range(len(item["loc"]))}
    parts = [
        _describe_one(dict(item), model) for item in found if item["type"] != "too_short" or item["loc"] not in within
    ]
    shown = list(dict.fromkeys(parts))
    more = f"; and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return "; ".join(shown[:_SHOWN]) + more


def suggest(word: str, known: Sequence[str], *, prefix: str = "", command: str | None = None) -> str:
    """``"; did you mean 'x'?"`` for the closest of ``known``, or all of them when none is close.

    Args:
        word: what was given.
        known: what there is.
        prefix: put before a suggestion, so that it can be pasted.
        command: what lists them all, for names too many for a line.
    """
    close = difflib.get_close_matches(word, known, n=2, cutoff=0.6)
    close = close or [name for name in known if len(word) > 2 and word in name]
    if close:
        return "; did you mean " + " or ".join(repr(prefix + name) for name in close) + "?"
    if command is not None and known:
        return f"; {command!r} lists all {len(known)}"
    return f"; expected one of {', '.join(known)}" if known else ""


def _describe_one(item: dict[str, Any], model: type[BaseModel]) -> str:
    kind, value, context = item["type"], item["input"], item.get("ctx", {})
    path, owners = _walk(model, item["loc"])
    key = ".".join(str(part) for part in path)
    if kind == "extra_forbidden":
        known = sorted({name for owner in owners for name in owner.model_fields})
        hint = suggest(str(path[-1]), known, prefix="".join(f"{part}." for part in path[:-1]))
        return f"unknown key '{key}' (value {_show(value)}){hint}"
    if kind == "missing":
        return f"'{key}' is missing"
    if kind == "union_tag_not_found":
        tags = _tags(model, path)
        return f"'{key}.type' is missing; expected one of {', '.join(tags)}"
    if kind == "union_tag_invalid":
        return f"'{key}.type' is {context.get('tag')!r}{suggest(str(context.get('tag')), _tags(model, path))}"
    if kind == "value_error":
        message = str(context["error"])
        return f"'{key}' is {_show(value)}: {message}" if key and not isinstance(value, dict) else _at(key, message)
    if kind == "literal_error":
        return f"'{key}' is {_show(value)}; expected {context['expected']}"
    if kind == "model_type" or kind == "model_attributes_type" or kind == "dict_type":
        return f"'{key}' is {_show(value)}; expected a mapping of keys to values"
    if kind in ("too_short", "too_long"):
        count, bound = (context["min_length"], "least") if kind == "too_short" else (context["max_length"], "most")
        return f"'{key}' is {_show(value)}; expected at {bound} {count} {'item' if count == 1 else 'items'}"
    return f"'{key}' is {_show(value)}; expected {_EXPECTED.get(kind) or _expectation(item['msg'])}"


def _expectation(message: str) -> str:
    text = message.removeprefix("Input should be ")
    return f"a number {text}" if text.startswith(("greater", "less")) else text


def _at(key: str, message: str) -> str:
    return f"'{key}': {message}" if key else message


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _walk(model: type[BaseModel], loc: Sequence[int | str]) -> tuple[list[int | str], list[type[BaseModel]]]:
    """Follow an error's location from ``model``.

    Returns:
        The location without the tags that pydantic inserts for discriminated unions, and the models that could own
        the last key.
    """
    path: list[int | str] = []
    owners: list[type[BaseModel]] = [model]
    current: Any = model
    for part in loc:
        members = list(_models(current))
        tagged = [member for member in members if len(members) > 1 and _tag(member) == part]
        if tagged:
            current = tagged[0]
            continue
        if isinstance(part, str) and part.endswith("]"):
            continue  # a member of a plain union, as in "tuple[float, float, float]"
        path.append(part)
        if isinstance(part, int):
            continue
        owners = members or owners
        fields = [member.model_fields[part] for member in members if part in member.model_fields]
        current = fields[0].annotation if fields else None
    return path, owners


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """All models inside an annotation: through unions, ``Annotated`` and sequences."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    if get_origin(annotation) is dict:
        return
    arguments = get_args(annotation)
    for argument in arguments[:1] if get_origin(annotation) is Annotated else arguments:
        yield from _models(argument)


def _tag(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("type")
    return get_args(field.annotation)[0] if field is not None else None


def _tags(model: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    current: Any = model
    for part in path:
        if isinstance(part, int):
            continue
        current = next((m.model_fields[part].annotation for m in _models(current) if part in m.model_fields), None)
    return [tag for tag in (_tag(member) for member in _models(current)) if tag is not None]


def is_mapping(value: Any) -> bool:
    """True for a mapping with string keys only."""
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
