"""Features that do not fit into memory: files that are mapped, and chunks that come one after the other."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyreid.errors import require
from pyreid.ops.distance_tiles import as_tensor
from pyreid.ops.features import as_features

SUFFIXES = (".npy", ".safetensors")


def read_features(name: str, features: Any, *, may_be_empty: bool = False) -> Tensor:
    """An (N, D) matrix of floating-point numbers, on the memory or in the file that it came in.

    A path is opened by :func:`open_features`, and an iterator of chunks goes to the disk by :func:`spool`.

    Args:
        name: of the argument, for messages.
        features: a torch tensor, a NumPy array, anything with DLPack, a path or an iterator.
        may_be_empty: whether N may be 0; D may not, and an iterator has to have a row.

    Raises:
        TypeError: if the features are no tensor or array, or hold no floating-point numbers.
        ValueError: if they are not 2-D or empty, or a file cannot be read.
        OSError: if a file cannot be opened, or the disk is full.
    """
    if isinstance(features, str | os.PathLike):
        try:
            features = open_features(features)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    elif isinstance(features, list | tuple):
        held = f" of {type(features[0]).__name__}" if features else ""
        raise TypeError(
            f"{name}: expected a torch tensor, a NumPy array or an object with DLPack, a path or an iterator of "
            f"chunks, got a {type(features).__name__}{held}; stack rows into one matrix, and pass iter(...) of chunks"
        )
    elif isinstance(features, Iterator):
        features = spool(name, features)
    return as_features(name, features, may_be_empty=may_be_empty)


def open_features(path: str | os.PathLike[str], key: str | None = None) -> Tensor:
    """A matrix in a file, mapped into memory: rows are read from the disk when they are used.

    All functions of evaluation and :func:`pyreid.search` take a path for features and open it by this function. What
    they read stays in the system's cache, which gives way when memory runs short. Nothing is loaded as a whole but
    float16 and bfloat16 galleries: they become float32, up to 512 MiB at once and beyond that in blocks of 64 MiB. A
    ``.npy`` file of another byte order than the machine's, as a rule a big-endian one, is not mapped but read whole.

    Args:
        path: a ``.npy`` or ``.safetensors`` file. It must not change while it is in use.
        key: which tensor of a ``.safetensors`` file; None if it holds one.

    Returns:
        A tensor on the CPU that must not be written to.

    Raises:
        pyreid.errors.MissingDependencyError: for a ``.safetensors`` file without the package safetensors.
        OSError: if the file cannot be opened.
        ValueError: if it is cut short, of another format, or holds no such tensor.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: expected a file that ends in {' or '.join(SUFFIXES)}")
    if path.suffix == ".npy":
        if key is not None:
            raise ValueError(f"{path}: expected no key for a .npy file, which holds one array, got {key!r}")
        return _open_npy(path)
    return _open_safetensors(path, key)


def tensor_names(path: Path) -> list[str]:
    """What a ``.safetensors`` file holds; errors as by :func:`open_features`."""
    with _safetensors(path) as archive:
        return sorted(archive.keys())


def _open_npy(path: Path) -> Tensor:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: cannot be read as .npy, or is cut short ({error})") from error
    return as_tensor(str(path), array)


def _open_safetensors(path: Path, key: str | None) -> Tensor:
    with _safetensors(path) as archive:
        names = sorted(archive.keys())
        if key is None and len(names) != 1:
            raise ValueError(f"{path}: holds {', '.join(names) or 'nothing'}; choose one with open_features(path, key)")
        if key is not None and key not in names:
            raise ValueError(f"{path}: no {key!r} among {', '.join(names) or 'nothing'}")
        return archive.get_tensor(names[0] if key is None else key)  # mapped, like the file


def _safetensors(path: Path) -> Any:
    require("safetensors", extra="train")
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        return safe_open(path, "pt")
    except SafetensorError as error:
        raise ValueError(f"{path}: cannot be read as .safetensors, or is cut short ({error})") from error


def spool(name: str, chunks: Iterator[Any]) -> Tensor:
    """Write the chunks of an iterator to a temporary file, each as it comes, and map the file.

    Ranking needs the gallery more than once, and the queries as tiles, so the chunks go to the disk: each is asked for
    once and let go. The result is the same, to the bit, as that of the chunks put together in memory. The file lies
    where Python's ``tempfile`` puts files (``TMPDIR``), needs the size of the features, and is gone with the tensor.

    Args:
        name: of the features, for messages.
        chunks: (n, D) features of one type, torch tensors, arrays or anything with DLPack; n may differ and be 0.

    Raises:
        TypeError: if a chunk is no array, or of another type than the first.
        ValueError: if a chunk is not 2-D or has another number of columns than the first, or none has a row.
        OSError: if the disk is full.
    """
    rows, columns = 0, -1
    dtype: torch.dtype | None = None
    with tempfile.TemporaryFile(prefix="pyreid-features-") as file:
        for number, given in enumerate(chunks):
            chunk = as_tensor(f"{name}: chunk {number}", given)
            if chunk.dim() != 2:
                raise ValueError(f"{name}: chunk {number}: expected a 2-D matrix, got shape {tuple(chunk.shape)}")
            if dtype is None:
                dtype, columns = chunk.dtype, chunk.shape[1]
            if chunk.shape[1] != columns:
                raise ValueError(
                    f"{name}: chunk {number}: expected {columns} columns as in the first, got {chunk.shape[1]}"
                )
            if chunk.dtype != dtype:
                raise TypeError(f"{name}: chunk {number}: expected {dtype} as in the first, got {chunk.dtype}")
            if chunk.numel() == 0:
                continue
            try:
                file.write(chunk.cpu().contiguous().view(torch.uint8).numpy().data)
                file.flush()
            except OSError as error:
                raise OSError(
                    error.errno, f"{name}: cannot keep chunks in {tempfile.gettempdir()} ({error.strerror}); set TMPDIR"
                ) from error
            rows += len(chunk)
        if dtype is None or rows == 0:
            raise ValueError(f"{name}: expected at least one row, but the chunks hold none")
        mapped = np.memmap(file, dtype=np.uint8, mode="r", shape=(rows, columns * dtype.itemsize))
    return as_tensor(name, mapped).view(dtype)
