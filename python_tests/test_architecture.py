"""Guards the import rules: what may import what, and what `import pyreid` may load."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pyreid

PACKAGE = Path(pyreid.__file__).parent

# Each floor may import itself, the floors named here, and pyreid.errors.
ALLOWED = {
    "ops": set(),
    "layers": {"ops"},
    "losses": {"ops"},
    "models": {"layers", "losses", "ops"},
    "data": {"ops"},
    "evaluation": {"ops"},
    "retrieval": {"ops"},
    "inference": {"data", "layers", "losses", "models", "ops"},
    "training": {"data", "evaluation", "inference", "layers", "losses", "models", "ops", "retrieval"},
    "report": {"data", "evaluation", "inference", "layers", "losses", "models", "ops", "retrieval", "training"},
    "cli": {"data", "evaluation", "inference", "layers", "losses", "models", "ops", "report", "retrieval", "training"},
}
COMMON = {"errors", "_extension", "_build_info", "_files"}
HEAVY = {"lightning", "matplotlib", "timm", "torchvision", "tensorboard"}


def imported(path: Path) -> set[str]:
    """Dotted names of everything that a file imports, at its top or inside a function; not under TYPE_CHECKING."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            skipped.update(child for statement in node.body for child in ast.walk(statement))
    names: set[str] = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def sources(floor: str) -> list[Path]:
    return sorted((PACKAGE / floor).rglob("*.py"))


def test_every_floor_is_listed() -> None:
    floors = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert floors == set(ALLOWED)


@pytest.mark.parametrize("floor", sorted(ALLOWED))
def test_imports_run_down_only(floor: str) -> None:
    for path in sources(floor):
        for name in imported(path):
            parts = name.split(".")
            if parts[0] != "pyreid" or len(parts) < 2:
                continue
            target = parts[1]
            assert target in {floor, *ALLOWED[floor], *COMMON}, f"{path.relative_to(PACKAGE)} imports {name}"


@pytest.mark.parametrize("floor", ["ops", "evaluation", "retrieval"])
def test_light_floors_import_nothing_heavy(floor: str) -> None:
    for path in sources(floor):
        heavy = {name for name in imported(path) if name.split(".")[0] in HEAVY}
        assert not heavy, f"{path.relative_to(PACKAGE)} imports {heavy}"


def test_commands_import_little_at_the_top() -> None:
    for path in sources("cli"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [str(node.module)]
            for name in names:
                root = name.split(".")[0]
                light = root in {"typer", "rich", "__future__", *sys.stdlib_module_names}
                assert light or name == "pyreid" or name.startswith(("pyreid.cli", "pyreid.errors")), (
                    f"{path.name} imports {name}"
                )


@pytest.mark.parametrize(
    "statement",
    ["import pyreid", "import pyreid.cli.main", "from pyreid import FeatureExtractor, evaluate, k_reciprocal, ops"],
)
def test_import_stays_light(statement: str) -> None:
    code = f"import sys; {statement}; print(sorted(set({sorted(HEAVY)!r}) & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
