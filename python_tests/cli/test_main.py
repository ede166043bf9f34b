"""What all commands share: the version, one-line errors and warnings, exit codes, interrupts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import pyreid
from pyreid.cli.main import app


def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pyreid", *arguments]
    return subprocess.run(command, capture_output=True, text=True, **options)  # type: ignore[call-overload, no-any-return]


def test_version() -> None:
    assert run("--version").stdout == f"{pyreid.__version__}\n"


@pytest.mark.parametrize("command", [[], ["models"], ["bench"]])
def test_help_has_a_short_name(command: list[str]) -> None:
    short, long = (CliRunner().invoke(app, [*command, name]) for name in ("-h", "--help"))
    assert short.exit_code == 0
    assert short.output == long.output
    assert "Usage: " in short.output


@pytest.mark.parametrize(
    ("arguments", "code", "start"),
    [
        (["train", "no_such_recipe"], 1, "pyreid: error: "),
        (["check", "market1501", "nowhere"], 1, ""),
        (["evaluate", "--features", "nowhere.npz"], 1, "pyreid: error: --features nowhere.npz: no such file"),
        (["no_such_command"], 2, "Usage: "),
        (["synth"], 2, "Usage: "),
    ],
)
def test_exit_codes(arguments: list[str], code: int, start: str, tmp_path: Path) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == code
    assert done.stderr.startswith(start)
    assert "Traceback" not in done.stderr
    if code == 1 and start:
        assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_unknown_device_is_a_usage_error(tmp_path: Path) -> None:
    done = run("evaluate", "--features", "x.npz", "--device", "foo", cwd=tmp_path)
    assert done.returncode == 2
    assert "expected cpu, cuda or cuda:N, got foo" in " ".join(done.stderr.replace("│", " ").split())


def test_warnings_are_one_line(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", query=np.eye(2), gallery=np.eye(2), query_ids=[0, 1], gallery_ids=[2, 3])
    done = run("evaluate", "--features", "f.npz", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr.startswith("pyreid: warning: none of the 2 queries has a match in the gallery")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("number", "code", "words"), [(signal.SIGINT, 130, "pyreid: interrupted\n"), (signal.SIGTERM, 143, "")]
)
def test_a_signal_leaves_nothing_behind(number: signal.Signals, code: int, words: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pyreid", "synth", "market1501", "big", "--images", "50000", "--workers", "1"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("*.jpg")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert errors == words
    assert not list(tmp_path.iterdir())
