"""What the tests of the commands over feature files share: their options, and files that are damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors.numpy


def command(folder: Path, *more: str, query: str = "query.npy", gallery: str = "gallery.npy") -> list[str]:
    """The options that name the files of a folder, and more."""
    return ["--query", str(folder / query), "--gallery", str(folder / gallery), *more]


def damage(folder: Path, how: str) -> tuple[str, ...]:
    """Spoil the gallery's file, or write a bad one beside it; returns the options that name another file."""
    path = folder / "gallery.npy"
    rows = np.load(path)
    if how == "short":
        path.write_bytes(path.read_bytes()[:-5])
    elif how == "columns":
        np.save(path, rows[:, :7])
    elif how == "nan":
        rows[3, 2] = np.nan
        np.save(path, rows)
    elif how == "missing":
        path.unlink()
    elif how == "integers":
        np.save(path, rows.astype(np.int64))
    elif how == "short zip":
        np.savez(folder / "g.npz", a=rows)
        (folder / "g.npz").write_bytes((folder / "g.npz").read_bytes()[:-40])
    elif how == "many":
        np.savez(folder / "g.npz", a=rows, b=rows)
    elif how == "short safetensors":
        safetensors.numpy.save_file({"a": rows}, folder / "g.safetensors")
        (folder / "g.safetensors").write_bytes((folder / "g.safetensors").read_bytes()[:-4])
    elif how == "suffix":
        (folder / "g.txt").write_text("1 2 3")
    other = {"short zip": "g.npz", "many": "g.npz", "short safetensors": "g.safetensors", "suffix": "g.txt"}
    return ("--gallery", str(folder / other[how])) if how in other else ()
