"""Small features of queries and of a gallery, and a folder with a file of each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def query() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(7, 8)).astype(np.float32)


@pytest.fixture
def gallery() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(30, 8)).astype(np.float32)


@pytest.fixture
def files(query: np.ndarray, gallery: np.ndarray, tmp_path: Path) -> Path:
    np.save(tmp_path / "query.npy", query)
    np.save(tmp_path / "gallery.npy", gallery)
    return tmp_path
