"""The records of a split as a PyTorch data set of images."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from pyreid.data.records import ImageRecord, Sample, SampleKey
from pyreid.data.transforms import Transform
from pyreid.errors import DatasetError

# What Pillow raises for damaged files; those behind ValueError come from odd fields of TIFF and GIF files.
_DAMAGED = (
    OSError,
    SyntaxError,
    Image.DecompressionBombError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    struct.error,
)


@contextmanager
def _seeded_draw(seed: int) -> Iterator[None]:
    """Seed torch's CPU generator for a block, and give it its old state back.

    Only the CPU generator is touched: ``torch.manual_seed`` would also reset those of the accelerators.
    """
    generator = torch.default_generator
    state = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(state)


def read_rgb(record: ImageRecord) -> Image.Image:
    """Decode the image of a record.

    Raises:
        DatasetError: the file is missing, truncated or not an image; the message names it.
    """
    try:
        with Image.open(record.path) as image:
            return image.convert("RGB")
    except _DAMAGED as error:
        raise DatasetError(f"{record.path}: cannot be read as an image ({error})") from error


class ImageDataset(Dataset[Sample]):
    """Decoded and transformed images of a sequence of records.

    Args:
        records: for example ``dataset.train``.
        transform: from an RGB PIL image to the network's input; see :func:`pyreid.data.train_transform`.
        labels: class label of each identity, for example ``dataset.train_labels``; None keeps the identities as they
            are on disk.

    Raises:
        ValueError: a record's identity has no label.
    """

    def __init__(
        self, records: Sequence[ImageRecord], transform: Transform, labels: Mapping[int, int] | None = None
    ) -> None:
        self.records = tuple(records)
        self.transform = transform
        if labels is None:
            self._labels = tuple(record.pid for record in self.records)
        else:
            unknown = sorted({record.pid for record in self.records} - set(labels))
            if unknown:
                raise ValueError(f"labels has no label for {len(unknown)} identities, the first is {unknown[0]}")
            self._labels = tuple(labels[record.pid] for record in self.records)

    @property
    def labels(self) -> tuple[int, ...]:
        """The label of every record, in order; what :class:`pyreid.data.RandomIdentitySampler` takes."""
        return self._labels

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: int | SampleKey) -> Sample:
        """One sample.

        Args:
            key: a position; or a :class:`SampleKey`, whose seed alone then decides all random augmentation. The global
                random state is as before afterwards.

        Raises:
            DatasetError: the file cannot be decoded.
        """
        if isinstance(key, SampleKey):
            with _seeded_draw(key.seed):
                return self._sample(key.index)
        return self._sample(key)

    def _sample(self, index: int) -> Sample:
        record = self.records[index]
        image: Tensor = self.transform(read_rgb(record))
        return Sample(image=image, label=self._labels[index], camera=record.camid, index=index)
