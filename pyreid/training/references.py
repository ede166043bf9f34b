"""Names of Python objects in recipes: ``FILE.py:NAME`` or ``package.module:NAME``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyreid.errors import RecipeError
from pyreid.training.recipe_errors import suggest


def split_reference(reference: str) -> tuple[str, str]:
    """The file or module, and the name in it.

    Raises:
        ValueError: it is neither ``FILE.py:NAME`` nor ``package.module:NAME``.
    """
    where, _, name = reference.rpartition(":")
    if not name.isidentifier() or not (is_file(where) or all(part.isidentifier() for part in where.split("."))):
        raise ValueError("expected FILE.py:NAME or package.module:NAME")
    return where, name


def is_file(where: str) -> bool:
    """Whether the first part of a reference is a file and not a module."""
    return where.endswith(".py") or "/" in where or os.sep in where


def absolute_reference(reference: str) -> str:
    """``reference`` with its file made absolute: a relative one is meant from the working directory.

    Raises:
        ValueError: it is neither ``FILE.py:NAME`` nor ``package.module:NAME``.
    """
    where, name = split_reference(reference)
    return f"{Path(where).expanduser().resolve()}:{name}" if is_file(where) else reference


def comparable_reference(reference: str) -> str:
    """What stays of ``reference`` when a folder is moved: the file's own name and the name in it."""
    return Path(reference).name


def anchor_losses(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """The content of the recipe file ``path``, with the files of its custom losses made absolute.

    A relative file is looked for beside the recipe's file and then in the working directory. What is not of the right
    form stays as it is; the check of the recipe will say so.

    Raises:
        RecipeError: it is in neither.
    """
    losses = content.get("losses")
    if not isinstance(losses, list):
        return content
    return {**content, "losses": [_anchor(item, path, index) for index, item in enumerate(losses)]}


def _anchor(item: Any, path: Path, index: int) -> Any:
    if not isinstance(item, Mapping) or item.get("type") != "custom" or not isinstance(item.get("loss"), str):
        return item
    try:
        where, name = split_reference(item["loss"])
    except ValueError:
        return item
    file = Path(where).expanduser()
    if not is_file(where) or file.is_absolute():
        return item
    folders = [path.parent.resolve(), Path.cwd()]
    for folder in folders:
        if (folder / file).is_file():
            return {**item, "loss": absolute_reference(f"{folder / file}:{name}")}
    known = sorted({str(other.relative_to(folder)) for folder in folders for other in folder.glob("*.py")})
    raise RecipeError(
        f"recipe {path}: 'losses.{index}.loss' is {item['loss']!r}, but {where} is neither beside the recipe nor in "
        f"the working directory{suggest(where, known)}"
    )
