"""Data sets on disk, samplers, transforms, a check of a data set, and a generator of synthetic ones.

Names are imported when they are first used: listing or generating files needs neither torch nor torchvision.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyreid.data.check import CheckReport, check_dataset
    from pyreid.data.fixed_length import FixedLengthSampler
    from pyreid.data.image_dataset import ImageDataset
    from pyreid.data.layouts import DatasetWarning
    from pyreid.data.protocol import Protocol
    from pyreid.data.random_erasing import RandomErasing
    from pyreid.data.rank_batches import RankBatches
    from pyreid.data.records import ImageRecord, ReIDDataset, Sample, SampleKey
    from pyreid.data.registry import list_datasets, load_dataset
    from pyreid.data.samplers import RandomIdentitySampler
    from pyreid.data.shuffle_sampler import ShuffleSampler
    from pyreid.data.synthetic.generator import synthesize
    from pyreid.data.transforms import IMAGENET_MEAN, IMAGENET_STD, eval_transform, train_transform

_NAMES = {
    "IMAGENET_MEAN": "transforms",
    "IMAGENET_STD": "transforms",
    "CheckReport": "check",
    "DatasetWarning": "layouts",
    "ImageDataset": "image_dataset",
    "ImageRecord": "records",
    "Protocol": "protocol",
    "RandomErasing": "random_erasing",
    "FixedLengthSampler": "fixed_length",
    "RandomIdentitySampler": "samplers",
    "RankBatches": "rank_batches",
    "ReIDDataset": "records",
    "Sample": "records",
    "SampleKey": "records",
    "ShuffleSampler": "shuffle_sampler",
    "check_dataset": "check",
    "eval_transform": "transforms",
    "list_datasets": "registry",
    "load_dataset": "registry",
    "synthesize": "synthetic.generator",
    "train_transform": "transforms",
}
__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "CheckReport",
    "DatasetWarning",
    "FixedLengthSampler",
    "ImageDataset",
    "ImageRecord",
    "Protocol",
    "RandomErasing",
    "RandomIdentitySampler",
    "RankBatches",
    "ReIDDataset",
    "Sample",
    "SampleKey",
    "ShuffleSampler",
    "check_dataset",
    "eval_transform",
    "list_datasets",
    "load_dataset",
    "synthesize",
    "train_transform",
]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f"pyreid.data.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'pyreid.data' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
