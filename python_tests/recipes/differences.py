"""What one recipe changes of another."""

from __future__ import annotations

from functools import cache
from typing import Any

from pyreid.training import Recipe, load_recipe

WHOLE = ("losses", "optimizer", "swag")  # one word for the part, whatever changes in it


@cache
def loaded(name: str) -> Recipe:
    """A recipe as it is shipped."""
    return load_recipe(name)


def changes(name: str, reference: str) -> set[str]:
    """The settings, as ``part.key``, in which a recipe differs from another; texts and reported numbers aside."""
    ours, theirs = (_flat(loaded(item).model_dump(mode="json")) for item in (name, reference))
    return {key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}


def _flat(plain: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for part, value in plain.items():
        if part in ("name", "description", "paper"):
            continue
        if isinstance(value, dict) and part not in WHOLE:
            result |= {f"{part}.{key}": item for key, item in value.items()}
        else:
            result[part] = value
    return result
