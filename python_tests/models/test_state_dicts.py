"""Names and shapes in every model's state dict, which weights files depend on, against the lists in ``state_dicts``.

A change of a list is a change of the file format: old weights no longer load, so it belongs in the changelog.
``python -m python_tests.models.test_state_dicts`` writes the lists anew.
"""

from __future__ import annotations

import difflib
import hashlib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from pyreid.models import create_model, list_models

LISTS = Path(__file__).parent / "state_dicts"
BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def describe(name: str) -> str:
    """A line for each tensor of a model with 3 classes; numbered blocks of the same shapes share their lines.

    ``blocks.{0-3}.conv.weight (8, 4, 1, 1)`` stands for four tensors, ``bn.<batch norm> (8,)`` for the five of a batch
    norm. Of a timm backbone there is one line, with a hash of its names and shapes: those are timm's.
    """
    with torch.device("meta"):
        model = create_model(name, num_classes=3)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    lines = []
    for path, backbone in model.timm_backbones.items():
        inside = {key: shapes.pop(key) for key in list(shapes) if key.startswith(f"{path}.")}
        digest = hashlib.sha256(repr(sorted(inside.items())).encode()).hexdigest()[:16]
        lines.append(f"{path}.* {len(inside)} tensors of timm's {backbone}, sha256 {digest}")
    return "\n".join([*lines, *collapse(join_batch_norms(shapes))]) + "\n"


def join_batch_norms(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The shapes with one entry in place of the five of each batch norm."""
    joined: dict[str, tuple[int, ...]] = {}
    for key, shape in shapes.items():
        prefix = key.rpartition(".")[0]
        if f"{prefix}.running_mean" not in shapes:
            joined[key] = shape
        elif key == f"{prefix}.running_mean":
            found = {part: shapes.get(f"{prefix}.{part}") for part in BATCH_NORM}
            assert found == {**dict.fromkeys(BATCH_NORM, shape), "num_batches_tracked": ()}, (prefix, found)
            joined[f"{prefix}.<batch norm>"] = shape
    return joined


def collapse(shapes: dict[str, tuple[int, ...]]) -> list[str]:
    """Lines for names and shapes, in which the numbers of a name's parts are drawn together from the right."""
    entries = {tuple(name.split(".")): shape for name, shape in shapes.items()}
    for position in reversed(range(max(map(len, entries)))):
        groups: dict[tuple[object, ...], list[tuple[str, ...]]] = defaultdict(list)
        for parts, shape in entries.items():
            part = parts[position : position + 1]
            numbered = part != () and part[0].isdigit()
            key = (numbered, parts[:position], () if numbered else part, parts[position + 1 :], shape)
            groups[key].append(parts)
        merged = {}
        for (numbered, *_, shape), members in groups.items():
            parts = members[0]
            if numbered and len(members) > 1:
                drawn = "{" + ranges(int(member[position]) for member in members) + "}"
                parts = (*parts[:position], drawn, *parts[position + 1 :])
            merged[parts] = shape
        entries = merged  # type: ignore[assignment]
    return [f"{'.'.join(parts)} {shape}" for parts, shape in entries.items()]


def ranges(numbers: Iterable[int]) -> str:
    """``0, 1, 2, 5`` as ``0-2,5``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


@pytest.mark.parametrize("name", list_models())
def test_names_and_shapes_stay(name: str) -> None:
    path = LISTS / f"{name}.txt"
    assert path.is_file(), f"no list for {name}; {__doc__}"
    expected, found = path.read_text(encoding="utf-8").splitlines(), describe(name).splitlines()
    changes = difflib.unified_diff(expected, found, "committed", "now", lineterm="", n=0)
    assert expected == found, "\n".join((f"the state dict of {name} has changed; {__doc__}", *changes))


def test_no_list_is_left_over() -> None:
    assert sorted(path.stem for path in LISTS.iterdir()) == sorted(list_models())


def test_lists_say_all() -> None:
    """Two state dicts have the same list only if they have the same names and shapes."""
    shapes = {f"a.{i}.b.{j}.w": (2,) for i in range(3) for j in range(2)} | {"a.5.b.0.w": (2,), "c.w": (1, 2)}
    assert collapse(shapes) == ["a.{0-2}.b.{0-1}.w (2,)", "a.5.b.0.w (2,)", "c.w (1, 2)"]
    assert collapse(shapes | {"a.1.b.1.w": (3,)}) == [
        "a.{0,2}.b.{0-1}.w (2,)", "a.{1,5}.b.0.w (2,)", "a.1.b.1.w (3,)", "c.w (1, 2)"
    ]  # fmt: skip


if __name__ == "__main__":
    LISTS.mkdir(exist_ok=True)
    for model_name in list_models():
        (LISTS / f"{model_name}.txt").write_text(describe(model_name), encoding="utf-8")
