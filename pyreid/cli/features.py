"""What the commands over feature files share: opening, checking, a bar with the time left, and a table of results."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from pyreid.retrieval import KReciprocal

METRICS = ("euclidean", "sqeuclidean", "cosine")
COMPAT = ("official", "torchreid", "fastreid")
SHOWN_QUERIES, SHOWN_NEIGHBORS = 5, 3


def check_device(device: str) -> None:
    """A usage error for what is no device, ``ValueError`` for one that is not here."""
    import torch

    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise typer.BadParameter(f"--device: expected cpu, cuda or cuda:N, got {device}") from error
    if kind not in ("cpu", "cuda") or (kind == "cuda" and not torch.cuda.is_available()):
        raise ValueError(f"--device: {device} is not available here")


def check_options(**choices: tuple[str | None, tuple[str, ...]]) -> None:
    """A usage error for an option whose value is none of its choices: ``check_options(metric=(value, choices))``.

    None is an option that is not given.
    """
    for name, (value, expected) in choices.items():
        if value is not None and value not in expected:
            raise typer.BadParameter(f"--{name.replace('_', '-')}: expected one of {', '.join(expected)}, got {value}")


def re_ranker(**parameters: Any) -> KReciprocal:
    """``KReciprocal``, and a usage error for a parameter that it does not take."""
    from pyreid.retrieval import KReciprocal

    try:
        return KReciprocal(**parameters)
    except (TypeError, ValueError) as error:
        name, _, wrong = str(error).partition(": ")
        raise typer.BadParameter(f"--{name.replace('_', '-')}: {wrong}") from error


@contextmanager
def naming(**files: Path) -> Iterator[None]:
    """Let errors about ``query`` or ``gallery`` name the option and its file: ``naming(query=path, gallery=path)``."""
    try:
        yield
    except (TypeError, ValueError) as error:
        name, colon, wrong = str(error).partition(": ")
        if not colon or name not in files:
            raise
        raise type(error)(f"--{name} {files[name]}: {wrong}") from error


def open_matrix(option: str, path: Path) -> Tensor:
    """The (N, D) features of a file: mapped from ``.npy`` and ``.safetensors``, read from ``.npz``.

    Of a file with several arrays it is the one named as the option (``query``, ``gallery``) or ``features``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, holds no such array, or no finite floating-point matrix.
    """
    import numpy as np

    from pyreid.ops.distance_tiles import as_tensor
    from pyreid.ops.feature_files import open_features, tensor_names

    if not path.is_file():
        raise FileNotFoundError(f"--{option} {path}: no such file")
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                features = as_tensor(option, archive[_choose(option, archive.files)])
        elif path.suffix == ".safetensors":
            features = open_features(path, _choose(option, tensor_names(path)))
        elif path.suffix == ".npy":
            features = open_features(path)
        else:
            raise ValueError(f"expected a file that ends in .npy, .npz or .safetensors, got {path.suffix!r}")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, TypeError) as error:
        raise ValueError(f"--{option} {path}: {error}") from error
    if features.dim() != 2 or 0 in features.shape or not features.is_floating_point():
        raise ValueError(
            f"--{option} {path}: expected a floating-point matrix (N, D), got {features.dtype} of shape "
            f"{tuple(features.shape)}"
        )
    return features


def check_columns(query: Tensor, gallery: Tensor, path: Path) -> None:
    """Raise ``ValueError`` unless both have the same number of columns."""
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(f"--gallery {path}: expected {query.shape[1]} columns as in --query, got {gallery.shape[1]}")


def _choose(option: str, names: list[str]) -> str:
    if len(names) == 1:
        return names[0]
    for name in (option, "features"):
        if name in names:
            return name
    held = ", ".join(sorted(names)) or "nothing"
    raise ValueError(f"expected one array, or one named {option} or features, got {held}")


def time_left(title: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
    """Progress with the time left on standard error; gives the function to call with the steps done."""
    from pyreid.evaluation.progress import progress_bar

    return progress_bar(title, total, show=True)


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays by name as ``.npz``, whole or not at all."""
    import numpy as np

    from pyreid._files import write_atomically

    write_atomically(path, lambda temporary: np.savez(temporary, **arrays))  # type: ignore[arg-type]


def print_neighbors(distances: Any, indices: Any, gallery: Path) -> None:
    """The nearest gallery rows of the first queries; by file name where the gallery's list of paths lies beside it."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    listed = gallery.with_name(f"{gallery.name}.paths.txt")
    names = listed.read_text(encoding="utf-8").splitlines() if listed.is_file() else []
    table = Table(box=box.SIMPLE_HEAD)
    width = min(SHOWN_NEIGHBORS, distances.shape[1])
    for heading in ("query", "rank", "gallery", "distance"):
        table.add_column(heading, justify="left" if heading == "gallery" else "right", overflow="fold")
    for row in range(min(SHOWN_QUERIES, len(distances))):
        for rank in range(width):
            index = int(indices[row, rank])
            name = Path(names[index]).name if index < len(names) else str(index)
            table.add_row(str(row), str(rank + 1), escape(name), f"{distances[row, rank]:.4f}")
    console = Console(soft_wrap=True, highlight=False)
    console.print(table)
    if len(distances) > SHOWN_QUERIES or distances.shape[1] > width:
        console.print(
            f"{len(distances)} queries, {distances.shape[1]} neighbors each; --output FILE writes all of them"
        )
