"""``pyreid search``: what ``pyreid.search`` finds, from every kind of file, and one line for what is wrong with one."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import typer
from typer.testing import CliRunner

import pyreid
from pyreid.cli.search import search
from python_tests.cli.feature_files import command, damage

app = typer.Typer()
app.command()(search)


def neighbors(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path) as archive:
        assert sorted(archive.files) == ["distances", "indices"]
        return archive["distances"], archive["indices"]


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
def test_neighbors_are_those_of_the_function(files: Path, query: np.ndarray, gallery: np.ndarray, metric: str) -> None:
    output = files / "new" / "n.npz"
    result = CliRunner().invoke(app, command(files, "-k", "4", "--metric", metric, "--output", str(output)))
    assert result.exit_code == 0, result.output
    for ours, expected in zip(neighbors(output), pyreid.search(query, gallery, 4, metric=metric), strict=True):
        np.testing.assert_array_equal(ours, expected)
        assert ours.dtype == expected.dtype
    assert [path.name for path in output.parent.iterdir()] == ["n.npz"]


def test_all_of_a_small_gallery_by_default(files: Path, gallery: np.ndarray) -> None:
    for rows in (7, 30):
        np.save(files / "gallery.npy", gallery[:rows])
        result = CliRunner().invoke(app, command(files, "--output", str(files / "n.npz")))
        assert result.exit_code == 0, result.output
        assert neighbors(files / "n.npz")[1].shape[1] == min(10, rows)


def test_many_queries_are_found_as_in_one_search(files: Path) -> None:
    rng = np.random.default_rng(2)
    query, gallery = (rng.normal(size=size).astype(np.float32) for size in ((2500, 8), (3000, 8)))
    gallery[100:200] = gallery[:100]  # ties, in the order of the gallery
    np.save(files / "query.npy", query)
    np.save(files / "gallery.npy", gallery)
    result = CliRunner().invoke(app, command(files, "--output", str(files / "n.npz")))
    assert result.exit_code == 0, result.output
    for ours, expected in zip(neighbors(files / "n.npz"), pyreid.search(query, gallery), strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_the_gallery_is_checked_once_for_all_strips(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(files / "query.npy", np.random.default_rng(2).normal(size=(2500, 8)).astype(np.float32))
    engine = sys.modules["pyreid.ops.distance_tiles"]
    hashed, multiplied = [], []
    hashes, multiply = engine.duplicate_rows, engine._multiply
    monkeypatch.setattr(engine, "duplicate_rows", lambda rows: hashed.append(len(rows)) or hashes(rows))
    monkeypatch.setattr(engine, "_multiply", lambda *tile: multiplied.append(len(tile[0])) or multiply(*tile))
    result = CliRunner().invoke(app, command(files, "--output", str(files / "n.npz")))
    assert result.exit_code == 0, result.output
    assert hashed == [30]
    assert multiplied == [834, 834, 832]


def test_kinds_of_files(files: Path, query: np.ndarray, gallery: np.ndarray) -> None:
    np.savez(files / "both.npz", query=query, gallery=gallery, query_ids=np.arange(7))
    np.savez(files / "one.npz", anything=gallery)
    safetensors.numpy.save_file({"features": gallery, "other": query}, files / "g.safetensors")
    np.save(files / "half.npy", gallery.astype(np.float16))
    for q, g, rows in (
        ("both.npz", "both.npz", gallery),
        ("query.npy", "one.npz", gallery),
        ("query.npy", "g.safetensors", gallery),
        ("query.npy", "half.npy", gallery.astype(np.float16)),
    ):
        given = command(files, "-k", "3", "--output", str(files / "n.npz"), query=q, gallery=g)
        result = CliRunner().invoke(app, given)
        assert result.exit_code == 0, result.output
        np.testing.assert_array_equal(neighbors(files / "n.npz")[1], pyreid.search(query, rows, 3)[1])


def test_the_first_are_printed_without_an_output(files: Path, query: np.ndarray, gallery: np.ndarray) -> None:
    distances, indices = pyreid.search(query, gallery, 4)
    result = CliRunner().invoke(app, command(files, "-k", "4"))
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.output.splitlines() if line.split()[:1] and line.split()[0].isdigit()]
    assert rows[:-1] == [
        [str(row), str(rank + 1), str(indices[row, rank]), f"{distances[row, rank]:.4f}"]
        for row in range(5)
        for rank in range(3)
    ]
    assert "7 queries, 4 neighbors each" in result.output
    (files / "gallery.npy.paths.txt").write_text("".join(f"folder/{index}.jpg\n" for index in range(30)))
    named = CliRunner().invoke(app, command(files, "-k", "1"))
    assert f"0 1 {indices[0, 0]}.jpg {distances[0, 0]:.4f}" in " ".join(named.output.split())


@pytest.mark.parametrize(
    ("how", "more", "message"),
    [
        ("short", (), "gallery.npy: {path}: cannot be read as .npy, or is cut short"),
        ("short zip", (), "g.npz: "),
        ("short safetensors", (), "cannot be read as .safetensors, or is cut short"),
        ("many", (), "expected one array, or one named gallery or features, got a, b"),
        ("suffix", (), "expected a file that ends in .npy, .npz or .safetensors, got '.txt'"),
        ("columns", (), "gallery.npy: expected 8 columns as in --query, got 7"),
        ("nan", (), "--gallery {path}: 1 NaN or infinite values, the first is nan at row 3, column 2"),
        ("missing", (), "gallery.npy: no such file"),
        ("integers", (), "expected a floating-point matrix (N, D), got torch.int64 of shape (30, 8)"),
        ("", ("-k", "31"), "-k: expected 1 to 30, the rows of --gallery"),
    ],
)
def test_failures_are_one_line_and_write_nothing(files: Path, how: str, more: tuple[str, ...], message: str) -> None:
    output = files / "n.npz"
    output.write_bytes(b"before")
    given = [*command(files, "--output", str(output), *more), *damage(files, how)]
    before = sorted(files.iterdir())
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 1
    assert isinstance(result.exception, ValueError | OSError)
    assert message.format(path=files / "gallery.npy") in str(result.exception)
    assert "\n" not in str(result.exception)
    assert output.read_bytes() == b"before"
    assert sorted(files.iterdir()) == before


def test_a_query_file_with_nan_is_named(files: Path, query: np.ndarray) -> None:
    query[5, 1] = np.inf
    np.save(files / "q.npy", query)
    result = CliRunner().invoke(app, command(files, query="q.npy"))
    assert result.exit_code == 1
    message = f"--query {files / 'q.npy'}: 1 NaN or infinite values, the first is inf at row 5, column 1"
    assert str(result.exception) == message


@pytest.mark.parametrize(
    "more", [("-k", "0"), ("--metric", "manhattan"), ("--output", "n.txt"), ("--device", "foo"), ("extra",)]
)
def test_usage_errors(files: Path, more: tuple[str, ...]) -> None:
    assert CliRunner().invoke(app, command(files, *more)).exit_code == 2
