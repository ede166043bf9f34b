"""``pyreid rerank`` and ``pyreid evaluate --rerank``: what the functions compute, in files that are whole."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

import pyreid
from pyreid.cli.evaluate import evaluate
from pyreid.cli.rerank import rerank
from python_tests.cli.feature_files import command, damage

app, evaluation = typer.Typer(), typer.Typer()
app.command()(rerank)
evaluation.command()(evaluate)

OPTIONS = {"k1": 6, "k2": 3, "lambda_value": 0.4, "compat": "torchreid"}
FLAGS = ["--k1", "6", "--k2", "3", "--lambda-value", "0.4", "--compat", "torchreid"]


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_all_distances(files: Path, query: np.ndarray, gallery: np.ndarray, suffix: str, dtype: type) -> None:
    np.save(files / "gallery.npy", gallery.astype(dtype))
    output = files / f"d{suffix}"
    result = CliRunner().invoke(app, command(files, *FLAGS, "--output", str(output)))
    assert result.exit_code == 0, result.output
    loaded = np.load(output)
    distances = loaded if suffix == ".npy" else loaded["distances"]
    expected = pyreid.k_reciprocal(query, gallery.astype(dtype), **OPTIONS)
    np.testing.assert_array_equal(distances, expected)
    assert distances.dtype == dtype
    assert len(list(files.iterdir())) == 3


def test_a_full_disk_is_one_line_and_leaves_nothing(files: Path) -> None:
    np.save(files / "gallery.npy", np.random.default_rng(0).standard_normal((2000, 8)).astype("f4"))

    def limit() -> None:  # of the size of a file, which is as if the disk were full
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    command_line = [sys.executable, "-m", "pyreid", *["rerank", *command(files, "--output", str(files / "d.npy"))]]
    done = subprocess.run(command_line, capture_output=True, text=True, preexec_fn=limit, check=False)
    assert done.returncode == 1
    assert done.stderr.strip() == f"pyreid: error: [Errno 27] {files / 'd.npy'}: cannot be written (File too large)"
    assert sorted(file.name for file in files.iterdir()) == ["gallery.npy", "query.npy"]


def test_the_output_is_no_input(files: Path) -> None:
    before = (files / "query.npy").read_bytes()
    result = CliRunner().invoke(app, command(files, "--output", str(files / "query.npy")))
    assert "query.npy is one of the inputs" in str(result.exception)
    assert (files / "query.npy").read_bytes() == before


def test_the_best_of_each_query(files: Path, query: np.ndarray, gallery: np.ndarray) -> None:
    gallery[20:] = gallery[:10]  # ties
    np.save(files / "gallery.npy", gallery)
    output = files / "n.npz"
    result = CliRunner().invoke(app, command(files, "--topk", "9", "--metric", "cosine", "--output", str(output)))
    assert result.exit_code == 0, result.output
    distances, indices = pyreid.k_reciprocal(query, gallery, topk=9, metric="cosine")
    with np.load(output) as archive:
        np.testing.assert_array_equal(archive["distances"], distances)
        np.testing.assert_array_equal(archive["indices"], indices)
        assert archive["indices"].dtype == np.int64


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_on_a_device(
    files: Path, query: np.ndarray, gallery: np.ndarray, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = []
    strips = pyreid.KReciprocal.strips

    def recorded(*args: Any, **options: Any) -> Iterator[tuple[slice, torch.Tensor]]:
        for rows, values in strips(*args, **options):
            devices.append(values.device.type)
            yield rows, values

    monkeypatch.setattr(pyreid.KReciprocal, "strips", recorded)
    for output, more in (("d.npy", ()), ("d.npz", ()), ("n.npz", ("--topk", "9"))):
        given = command(files, *FLAGS, *more, "--device", device, "--output", str(files / output))
        result = CliRunner().invoke(app, given)
        assert result.exit_code == 0, result.output
    assert set(devices) == {device}
    expected = pyreid.k_reciprocal(query, gallery, device=device, **OPTIONS)
    np.testing.assert_array_equal(np.load(files / "d.npy"), expected)
    distances, indices = pyreid.k_reciprocal(query, gallery, topk=9, device=device, **OPTIONS)
    with np.load(files / "d.npz") as dense, np.load(files / "n.npz") as nearest:
        np.testing.assert_array_equal(dense["distances"], expected)
        np.testing.assert_array_equal(nearest["distances"], distances)
        np.testing.assert_array_equal(nearest["indices"], indices)


def test_a_device_that_is_not_here(files: Path) -> None:
    missing = "cuda" if not torch.cuda.is_available() else "mps"
    result = CliRunner().invoke(app, command(files, "--device", missing))
    assert result.exit_code == 1
    assert str(result.exception) == f"--device: {missing} is not available here"


def test_the_first_are_printed_without_an_output(files: Path, query: np.ndarray, gallery: np.ndarray) -> None:
    distances, indices = pyreid.k_reciprocal(query, gallery, topk=3)
    result = CliRunner().invoke(app, command(files))
    assert result.exit_code == 0, result.output
    assert f"4 3 {indices[4, 2]} {distances[4, 2]:.4f}" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("wrong", "more", "message"),
    [
        ("short", (), "cannot be read as .npy, or is cut short"),
        ("columns", (), "gallery.npy: expected 8 columns as in --query, got 7"),
        ("nan", (), "gallery.npy: 1 NaN or infinite values, the first is nan at row 3, column 2"),
        ("missing", (), "gallery.npy: no such file"),
        ("", ("--topk", "31"), "--topk: expected 1 to 30, the rows of --gallery"),
    ],
)
def test_failures_are_one_line_and_write_nothing(files: Path, wrong: str, more: tuple[str, ...], message: str) -> None:
    damage(files, wrong)
    before = sorted(files.iterdir())
    result = CliRunner().invoke(app, command(files, *more, "--output", str(files / "d.npz")))
    assert result.exit_code == 1
    assert isinstance(result.exception, ValueError | OSError)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
    assert sorted(files.iterdir()) == before


@pytest.mark.parametrize(
    "more",
    [
        ("--compat", "none"),
        ("--metric", "none"),
        ("--output", "d.txt"),
        ("--topk", "3", "--output", "d.npy"),
        ("--topk", "0"),
        ("--k1", "0"),
        ("--k2", "0"),
        ("--lambda-value", "2"),
        ("--lambda-value", "nan"),
        ("--device", "foo"),
    ],
)
def test_usage_errors(files: Path, more: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, command(files, *more))
    assert result.exit_code == 2
    assert more[-2] in result.output


def test_evaluate_ranks_by_re_ranked_distances(files: Path, query: np.ndarray, gallery: np.ndarray) -> None:
    ids = {"query_ids": np.arange(7) % 3, "gallery_ids": np.arange(30) % 4}
    np.savez(files / "f.npz", query=query, gallery=gallery, **ids)
    out = files / "r.json"
    given = ["--features", str(files / "f.npz"), "--json", str(out)]
    result = CliRunner().invoke(evaluation, [*given, "--rerank", *FLAGS])
    assert result.exit_code == 0, result.output
    expected = pyreid.evaluate(query, gallery, *ids.values(), rerank=pyreid.KReciprocal(**OPTIONS))
    saved = json.loads(out.read_text())
    assert saved["map"] == expected.map
    assert saved["settings"]["rerank"] == expected.settings["rerank"]
    assert saved["map"] != pyreid.evaluate(query, gallery, *ids.values()).map
    assert CliRunner().invoke(evaluation, [*given, "--k1", "6"]).exit_code == 2
    assert CliRunner().invoke(evaluation, [*given, "--rerank", "--k1", "0"]).exit_code == 2
