"""A data set of a few tiny images in Market-1501's layout, and a recipe for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

RECIPE = """
name: tiny
data: {dataset: market1501, size: [32, 16], pad: 2, erasing: {probability: 0.5}, workers: 0}
sampler: {num_ids: 3, num_instances: 2}
model: {name: rmnet}
losses:
  - {type: cross_entropy, logits: id, smoothing: 0.1}
  - {type: batch_hard_triplet, embedding: local, margin: 0.3}
optimizer: {type: adamw, lr: 1e-3}
schedule:
  warmup: {epochs: 2, start: 0.1}
  decay: {type: multi_step, milestones: [3], gamma: 0.5}
trainer: {epochs: 2, accelerator: cpu, log_every: 1}
"""


def write_market(root: Path, *, train_ids: int = 6, test_ids: int = 4, images: int = 4) -> Path:
    """Images of one colour per identity with noise, from two cameras each; every query has a right answer."""
    rng = np.random.default_rng(7)
    for pid in range(1, 1 + train_ids + test_ids):
        colour = rng.integers(0, 256, 3)
        for index in range(images):
            pixels = np.clip(colour + rng.normal(0, 25, (32, 16, 3)), 0, 255).astype(np.uint8)
            name = f"{pid:04d}_c{1 + index % 2}s1_{index:06d}_00.jpg"
            test_split = "query" if index == 0 else "bounding_box_test"
            folder = root / ("bounding_box_train" if pid <= train_ids else test_split)
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / name)
    return root
