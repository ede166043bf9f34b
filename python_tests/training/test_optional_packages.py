"""Without the packages of the extra `train`, recipes can be read, and training says what to install."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(code: str) -> subprocess.CompletedProcess[str]:
    hide = "import sys; sys.modules.update(dict.fromkeys(['lightning', 'torchvision', 'timm', 'tensorboard']))\n"
    return subprocess.run([sys.executable, "-c", hide + code], capture_output=True, text=True)


def test_recipes_need_none_of_them() -> None:
    done = run("from pyreid.training import load_recipe; print(load_recipe('demo', []).name)")
    assert (done.returncode, done.stdout) == (0, "demo\n"), done.stderr


@pytest.mark.parametrize("name", ["train", "evaluate_model", "extract_features", "train_repeatedly"])
def test_training_says_what_to_install(name: str) -> None:
    done = run(f"from pyreid.training import {name}")
    assert "MissingDependencyError: lightning cannot be imported" in done.stderr
    assert "pip install 'pyreid[train]'" in done.stderr


def test_command_line_says_it_in_one_line() -> None:
    done = run("sys.argv = ['pyreid', 'train', 'demo', 'data.root=x']; from pyreid.cli.main import main; main()")
    assert done.returncode == 1
    assert done.stderr.startswith("pyreid: error: lightning cannot be imported")
    assert len(done.stderr.splitlines()) == 1
