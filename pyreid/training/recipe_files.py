"""Recipe files: finding them, reading YAML, inheriting from ``base`` files, overriding single keys."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pyreid.errors import RecipeError
from pyreid.training.recipe import Recipe
from pyreid.training.recipe_errors import describe, suggest
from pyreid.training.references import anchor_losses
from pyreid.training.run_folder import RunFolder


def recipe_dirs() -> list[Path]:
    """Folders that are searched for recipes, in this order.

    The folders in the environment variable ``PYREID_RECIPES`` (separated as in ``PATH``), the ``recipes`` folder of
    the installed package, and ``recipes`` at the top of a source tree.
    """
    package = Path(__file__).resolve().parents[1]
    folders = [Path(part) for part in os.environ.get("PYREID_RECIPES", "").split(os.pathsep) if part]
    folders.append(package / "recipes")
    if (package.parent / "pyproject.toml").is_file():
        folders.append(package.parent / "recipes")
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def list_recipes() -> list[str]:
    """Names of all recipes that are found, as ``folder/file`` without the ending; the ``base`` folder is left out."""
    names: dict[str, None] = {}
    for folder in recipe_dirs():
        for path in sorted(folder.rglob("*.yaml")):
            relative = path.relative_to(folder)
            if relative.parts[0] != "base":
                names.setdefault(relative.with_suffix("").as_posix())
    return sorted(names)


def find_recipe(path_or_name: str | Path) -> Path:
    """The file of a recipe, given as a path or as a name such as ``safr/veri776_small`` or ``veri776_small``.

    Raises:
        RecipeError: there is none, or a short name fits several.
    """
    path = Path(path_or_name)
    if path.is_file():
        return path
    name = str(path_or_name)
    first = RunFolder(path).repeated(1)
    if first.recipe.is_file():
        raise RecipeError(f"{path}: holds repeated runs; give one of them, such as {first.root}")
    if path.is_absolute() or name.startswith("."):
        raise RecipeError(f"{path}: no such recipe file")
    wanted = name.removesuffix(".yaml").removesuffix(".yml")
    known = list_recipes()
    matches = [item for item in known if item == wanted] or [item for item in known if item.split("/")[-1] == wanted]
    if len(matches) > 1:
        raise RecipeError(f"recipe {name!r} fits several: {', '.join(matches)}; give the whole name")
    if not matches:
        if path.is_dir():
            raise RecipeError(f"{path}: is a folder without recipe.yaml, so no run, and no recipe has that name")
        raise RecipeError(f"no recipe file or name {name!r}{suggest(wanted, known, command='pyreid recipes')}")
    return next(f for folder in recipe_dirs() if (f := folder / f"{matches[0]}.yaml").is_file())


def load_recipe(path_or_name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read, complete and check a recipe.

    Args:
        path_or_name: a YAML file, or the name of a recipe that ``pyreid recipes`` lists.
        overrides: ``key.sub=value`` strings with YAML values; list items by index: ``losses.1.margin=0.5``.

    Raises:
        RecipeError: in one line, which file, key or override is wrong, its value and what was expected.
    """
    path = find_recipe(path_or_name)
    raw = _read_with_bases(path, chain=())
    raw = apply_overrides(_complete(raw), overrides)
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        where = f"recipe {path}" + (f" with {' '.join(overrides)}" if overrides else "")
        raise RecipeError(f"{where}: {describe(error, Recipe)}") from None


def dump_recipe(recipe: Recipe) -> str:
    """A recipe with all its settings as YAML; :func:`load_recipe` reads it back to an equal recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes`` on top, key by key; lists are replaced as a whole.

    A mapping whose ``type`` changes is replaced as a whole too: the keys of SGD mean nothing to AdamW.
    """
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and not _changes_type(old, value):
            result[key] = merge(old, value)
        else:
            result[key] = deepcopy(value)
    return result


def apply_overrides(raw: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """``raw`` with each ``key.sub=value`` set; a new ``type`` empties its mapping first, whatever the order.

    Raises:
        RecipeError: an override has no ``=``, a value that is not YAML, or a path that leads nowhere.
    """
    result = deepcopy(dict(raw))
    parsed = [_parse_override(text) for text in overrides]
    for text, keys, value in sorted(parsed, key=lambda item: item[1][-1] != "type"):
        _set(result, keys, value, text)
    return result


def _complete(raw: dict[str, Any]) -> dict[str, Any]:
    """Fill in the defaults, so that overrides may name keys that the files leave out; a wrong recipe stays as it is."""
    try:
        return Recipe.model_validate(raw).model_dump(mode="json")
    except ValidationError:
        return raw


def _changes_type(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return "type" in new and "type" in old and new["type"] != old["type"]


def _parse_override(text: str) -> tuple[str, list[str], Any]:
    key, equals, value = text.partition("=")
    keys = key.strip().split(".")
    if not equals or not all(keys):
        raise RecipeError(f"override {text!r}: expected key=value or key.sub=value, for example optimizer.lr=0.01")
    try:
        return text, keys, yaml.load(value, Loader=_Loader)
    except yaml.YAMLError as error:
        raise RecipeError(f"override {text!r}: the value is not YAML ({_one_line(error)})") from None


def _set(root: dict[str, Any], keys: list[str], value: Any, text: str) -> None:
    node: Any = root
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        where = ".".join(keys[:depth]) or "the recipe"
        if isinstance(node, list):
            if not key.isdigit() or int(key) >= len(node):
                raise RecipeError(f"override {text!r}: {where!r} is a list, expected an index 0..{len(node) - 1}")
            if last:
                node[int(key)] = value
            node = node[int(key)]
        elif isinstance(node, dict):
            if last:
                if key == "type" and node.get("type") != value:
                    node.clear()
                node[key] = value
                return
            if node.get(key) is None:
                node[key] = {}
            node = node[key]
        else:
            raise RecipeError(f"override {text!r}: {where!r} is {node!r}, which has no keys")


def _read_with_bases(path: Path, chain: tuple[Path, ...]) -> dict[str, Any]:
    resolved = path.resolve()
    if resolved in chain:
        names = " -> ".join(item.name for item in (*chain[chain.index(resolved) :], resolved))
        raise RecipeError(f"recipe {chain[0]}: the base files go in a circle: {names}")
    content = anchor_losses(_read(path), path)
    bases = content.pop("base", [])
    if isinstance(bases, str):
        bases = [bases]
    if not isinstance(bases, list) or not all(isinstance(item, str) for item in bases):
        raise RecipeError(f"recipe {path}: 'base' is {bases!r}; expected a file or a list of files")
    result: dict[str, Any] = {}
    for base in bases:
        result = merge(result, _read_with_bases(_find_base(base, path), (*chain, resolved)))
    return merge(result, content)


def _find_base(base: str, path: Path) -> Path:
    for folder in (path.parent, *recipe_dirs()):
        for name in (base, f"{base}.yaml"):
            if (folder / name).is_file():
                return folder / name
    raise RecipeError(f"recipe {path}: base {base!r} is neither beside it nor in a folder of recipes")


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"recipe {path}: not valid YAML: {_one_line(error)}") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise RecipeError(f"recipe {path}: expected a mapping of keys to values, got {type(content).__name__}")
    return content


def _one_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
    return f"{getattr(error, 'problem', None) or error}{where}"


class _Loader(yaml.SafeLoader):
    """Safe YAML with numbers as YAML 1.2 has them (``1e-4`` is a number) and without duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is there twice", key_node.start_mark
                )
            seen.add(key if isinstance(key, str) else repr(key))
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)
