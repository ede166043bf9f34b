"""Features in files and in chunks."""

from __future__ import annotations

import builtins
import errno
import gc
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from pyreid.errors import MissingDependencyError
from pyreid.evaluation import (
    evaluate,
    evaluate_random_gallery,
    evaluate_single_shot,
    evaluate_tracks,
    open_features,
    pool_tracks,
    verify,
)
from python_tests.evaluation.test_evaluate import integer_problem, run_code
from python_tests.ops.checks import DEVICES

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def random_problem(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, tuple[np.ndarray, ...]]:
    rng = np.random.default_rng(seed)
    query, gallery = (torch.from_numpy(rng.standard_normal((n, 24))).float() for n in (30, 400))
    labels = (rng.integers(0, 9, 30), rng.integers(-1, 9, 400), rng.integers(0, 3, 30), rng.integers(0, 3, 400))
    return query, gallery, labels


def in_chunks(features: torch.Tensor, sizes: list[int]) -> Iterator[torch.Tensor]:
    start = 0
    for size in sizes:
        yield features[start : start + size]
        start += size
    assert start == len(features)


@pytest.mark.parametrize("dtype", DTYPES)
def test_files_give_the_bits_of_memory(dtype: torch.dtype, tmp_path: Path) -> None:
    query, gallery, labels = random_problem()
    query, gallery = query.to(dtype), gallery.to(dtype)
    expected = evaluate(query, gallery, *labels).to_dict()
    safetensors.torch.save_file({"gallery": gallery}, tmp_path / "gallery.safetensors")
    safetensors.torch.save_file({"q": query, "other": gallery}, tmp_path / "both.safetensors")
    assert open_features(tmp_path / "gallery.safetensors").dtype == dtype
    both = tmp_path / "both.safetensors"
    assert evaluate(open_features(both, "q"), tmp_path / "gallery.safetensors", *labels).to_dict() == expected
    assert evaluate(query, open_features(both, "other"), *labels).to_dict() == expected
    if dtype != torch.bfloat16:  # which NumPy does not have
        np.save(tmp_path / "query.npy", query.numpy())
        np.save(tmp_path / "gallery.npy", np.asfortranarray(gallery.numpy()))
        assert evaluate(str(tmp_path / "query.npy"), tmp_path / "gallery.npy", *labels).to_dict() == expected


def test_all_functions_take_files_and_chunks(tmp_path: Path) -> None:
    query, gallery, labels = random_problem()
    np.save(tmp_path / "query.npy", query.numpy())
    np.save(tmp_path / "gallery.npy", gallery.numpy())
    labels = (labels[0], np.abs(labels[1]), *labels[2:])
    tracks = labels[1] * 10 + labels[3]
    for function, arguments in (
        (evaluate, labels),
        (verify, labels),
        (evaluate_single_shot, labels),
        (evaluate_tracks, (labels[0], labels[1], tracks, *labels[2:])),
    ):
        expected = function(query, gallery, *arguments).to_dict()  # type: ignore[operator]
        assert function(tmp_path / "query.npy", tmp_path / "gallery.npy", *arguments).to_dict() == expected  # type: ignore[operator]
        chunks = in_chunks(query, [30]), in_chunks(gallery, [1, 300, 99])
        assert function(*chunks, *arguments).to_dict() == expected  # type: ignore[operator]
    pooled = pool_tracks(in_chunks(gallery, [200, 200]), tracks, labels[1])
    np.testing.assert_array_equal(pooled.features, pool_tracks(gallery, tracks, labels[1]).features)
    one = evaluate_random_gallery(gallery, labels[1]).to_dict()
    assert evaluate_random_gallery(tmp_path / "gallery.npy", labels[1]).to_dict() == one


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_chunks_give_the_bits_of_memory(dtype: torch.dtype, device: str) -> None:
    query, gallery, labels = random_problem()
    query, gallery = query.to(device, dtype), gallery.to(device, dtype)
    expected = evaluate(query, gallery, *labels, device=device).to_dict()
    for sizes in ([400], [1, 0, 150, 7, 242], [0, 400, 0]):
        found = evaluate(in_chunks(query, [7, 23]), in_chunks(gallery, sizes), *labels, device=device)
        assert found.to_dict() == expected
    wide = torch.cat([gallery, gallery], 1)[:, ::2].contiguous()
    strided = evaluate(query, in_chunks(torch.stack([wide, gallery], 2)[..., 1], [399, 1]), *labels, device=device)
    assert strided.to_dict() == expected


def test_each_chunk_is_asked_for_once_and_the_file_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    query, gallery, labels = random_problem()
    asked = []

    def chunks() -> Iterator[np.ndarray]:
        for start in range(0, 400, 100):
            asked.append(start)
            chunk = gallery[start : start + 100].numpy().copy()
            yield chunk
            chunk[:] = np.nan  # a chunk may be reused once the next is asked for

    expected = evaluate(query, gallery, *labels).to_dict()
    assert evaluate(query, chunks(), *labels).to_dict() == expected
    assert asked == [0, 100, 200, 300]
    gc.collect()
    assert list(tmp_path.iterdir()) == []


MEMORY = """
import sys, threading, time
import numpy as np, torch
from pyreid.evaluation import evaluate, open_features
from pyreid.ops import distance_tiles
torch.set_num_threads(1)
kind, path = sys.argv[1:]
ROWS, COLUMNS = 100_000, 512  # 195 MiB as float32
rng = np.random.default_rng(0)
query = rng.standard_normal((20, COLUMNS)).astype(np.float32)

def chunks(rows=ROWS, dtype=np.float32):
    for start in range(0, rows, 1000):
        yield rng.standard_normal((min(1000, rows - start), COLUMNS), dtype=np.float32).astype(dtype)

def memory(kind):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(kind))

def sample():
    while not done.is_set():
        peaks.append(memory("RssAnon"))
        time.sleep(0.001)

ids = (np.arange(20), np.arange(ROWS))
if kind == "chunks":
    gallery = chunks()
elif kind == "all":
    gallery = np.concatenate(list(chunks()))
else:
    half = kind == "half"
    gallery = np.lib.format.open_memmap(path, "w+", np.float16 if half else np.float32, (ROWS, COLUMNS))
    for i, chunk in enumerate(chunks()):
        gallery[1000 * i : 1000 * i + 1000] = chunk
    gallery.flush()
    if half:
        distance_tiles._RESIDENT_BYTES = 0  # as for a gallery of more than 512 MiB
    del gallery
    before = memory("VmRSS")
    gallery = open_features(path)
    assert memory("VmRSS") - before < 20e6  # nothing is read yet
evaluate(query, chunks(50), np.arange(20), np.arange(50))
peaks, done = [], threading.Event()
before = memory("RssAnon") if kind != "all" else memory("RssAnon") - gallery.nbytes
thread = threading.Thread(target=sample)
thread.start()
result = evaluate(query, gallery, *ids)
done.set()
thread.join()
assert len(peaks) > 20
print(max(peaks) - before)
"""


@pytest.mark.parametrize("kind", ["npy", "half", "chunks"])
def test_memory_is_less_than_the_features(kind: str, tmp_path: Path) -> None:
    """Memory that is the program's own; pages of the file are the system's, and it takes them back at will."""
    # A strip of 8 MB, a few arrays of one number per row, and for half precision blocks of 64 MiB
    bound = 4 * 512 * 100_000 * (0.75 if kind == "half" else 0.3)
    assert float(run_code(MEMORY, kind, tmp_path / "gallery.npy")) < bound


def test_the_measure_of_memory_sees_features_in_memory(tmp_path: Path) -> None:
    assert float(run_code(MEMORY, "all", tmp_path / "gallery.npy")) > 4 * 512 * 100_000


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    labels = ([0, 1], [0, 1, 2])
    query = np.ones((2, 8), dtype=np.float32)
    np.save(tmp_path / "good.npy", np.ones((3, 8)))
    safetensors.torch.save_file({"a": torch.ones(3, 8), "b": torch.ones(3)}, tmp_path / "good.safetensors")
    for suffix in (".npy", ".safetensors"):
        whole = (tmp_path / f"good{suffix}").read_bytes()
        for number, part in enumerate((whole[:-8], whole[:40], whole[:3], b"", b"hello " * 9)):
            path = tmp_path / f"{number}{suffix}"
            path.write_bytes(part)
            with pytest.raises(ValueError, match=rf"{number}\{suffix}: cannot be read as \{suffix}, or is cut short"):
                evaluate(query, path, *labels)
        with pytest.raises(FileNotFoundError, match=f"no{suffix}"):
            evaluate(query, tmp_path / f"no{suffix}", *labels)
    objects = np.array([{}], dtype=object)
    np.save(tmp_path / "objects.npy", objects)
    with pytest.raises(ValueError, match=r"objects\.npy: cannot be read as"):
        open_features(tmp_path / "objects.npy")
    with pytest.raises(ValueError, match=r"good\.safetensors: holds a, b; choose one with open_features"):
        evaluate(query, tmp_path / "good.safetensors", *labels)
    with pytest.raises(ValueError, match=r"good\.safetensors: no 'c' among a, b"):
        open_features(tmp_path / "good.safetensors", "c")
    with pytest.raises(ValueError, match=r"good\.npy: expected no key for a \.npy file"):
        open_features(tmp_path / "good.npy", "a")
    with pytest.raises(ValueError, match=r"f\.npz: expected a file that ends in \.npy or \.safetensors"):
        open_features(tmp_path / "f.npz")
    with pytest.raises(ValueError, match=r"gallery: expected a non-empty 2-D matrix, got shape \(3,\)"):
        evaluate(query, open_features(tmp_path / "good.safetensors", "b"), *labels)


def test_without_the_package_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    safetensors.torch.save_file({"a": torch.ones(3, 8)}, tmp_path / "a.safetensors")
    np.save(tmp_path / "a.npy", np.ones((3, 8)))
    original = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "safetensors":
            raise ModuleNotFoundError("No module named 'safetensors'")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    for name in [name for name in __import__("sys").modules if name.split(".")[0] == "safetensors"]:
        monkeypatch.delitem(__import__("sys").modules, name)
    assert open_features(tmp_path / "a.npy").shape == (3, 8)
    monkeypatch.setattr("importlib.import_module", lambda name: without(name))
    with pytest.raises(
        MissingDependencyError, match=r"safetensors cannot be imported .* pip install 'pyreid\[train\]'"
    ):
        open_features(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("chunks", "error", "match"),
    [
        ([], ValueError, "gallery: expected at least one row, but the chunks hold none"),
        ([np.ones((0, 3))], ValueError, "gallery: expected at least one row, but the chunks hold none"),
        ([np.ones(3)], ValueError, r"gallery: chunk 0: expected a 2-D matrix, got shape \(3,\)"),
        ([np.ones((1, 3)), np.ones((1, 2))], ValueError, "gallery: chunk 1: expected 3 columns as in the first, got 2"),
        ([np.ones((1, 3)), np.ones((1, 3), dtype="f4")], TypeError, "chunk 1: expected torch.float64 as in the first"),
        ([[1.0, 2.0]], TypeError, "gallery: chunk 0: expected a torch tensor, a NumPy array or an object with DLPack"),
        ([np.ones((2, 3), dtype=int)], TypeError, "gallery: expected float16"),
        ([np.ones((1, 3))] * 4, ValueError, r"gallery_ids: expected shape \(4,\)"),
        ([np.ones((2, 3)), np.full((1, 3), np.inf)], ValueError, "the first is inf at row 2, column 0"),
    ],
)
def test_bad_chunks(chunks: list[Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        evaluate(np.ones((2, 3)), iter(chunks), [0, 1], [0, 1, 2])


def test_an_error_of_the_iterator_and_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def broken() -> Iterator[np.ndarray]:
        yield np.ones((2, 3))
        raise RuntimeError("the camera is gone")

    with pytest.raises(RuntimeError, match="the camera is gone"):
        evaluate(np.ones((2, 3)), broken(), [0, 1], [0, 1])
    assert list(tmp_path.iterdir()) == []

    class Full:
        def __enter__(self) -> Full:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def write(self, data: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **options: Full())
    with pytest.raises(OSError, match=r"gallery: cannot keep chunks in .*No space left on device.*; set TMPDIR"):
        evaluate(np.ones((2, 3)), iter([np.ones((2, 3))]), [0, 1], [0, 1])


def test_a_file_that_cannot_be_read_is_named_with_its_argument(tmp_path: Path) -> None:
    (tmp_path / "g.npy").write_bytes(b"short")
    with pytest.raises(ValueError, match=rf"^gallery: {tmp_path}/g\.npy: cannot be read as \.npy, or is cut short"):
        evaluate(np.ones((2, 3)), tmp_path / "g.npy", [0, 1], [0, 1])


def test_a_list_is_no_iterator() -> None:
    query, gallery, *labels = integer_problem(3, 5, num_ids=2, num_cams=0)
    with pytest.raises(TypeError, match="gallery: expected a torch tensor, a NumPy array or an object with DLPack"):
        evaluate(query, [gallery], *labels)
