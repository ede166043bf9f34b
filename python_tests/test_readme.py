"""Runs every example of the README, as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"), ids=["ops", "evaluate", "models"])
def test_python(code: str, tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)  # fifteen commands, two of which train
def test_command_line(tmp_path: Path) -> None:
    (script,) = blocks("bash")
    binaries = Path(sys.executable).parent
    for line in script.splitlines():
        run = subprocess.run(
            ["bash", "-c", f'PATH="{binaries}:$PATH" {line}'], cwd=tmp_path, capture_output=True, text=True
        )
        assert run.returncode == 0, f"{line}\n{run.stdout}\n{run.stderr}"
    assert (tmp_path / "runs/first/checkpoints/best.ckpt").is_file()
