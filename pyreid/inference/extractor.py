"""``pyreid.FeatureExtractor``: images in, features out, in batches."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pyreid.data.transforms import eval_transform
from pyreid.inference.crops import Crops, check_crops, image_size
from pyreid.inference.embedding import Flip, check_batch_size, check_flip, embed, embed_crops, evaluating
from pyreid.inference.exported import EXPORTED_SUFFIXES, open_exported
from pyreid.inference.images import ImageItems, ReadableItems, as_items, name_of, resolve_input
from pyreid.inference.opening import open_model
from pyreid.inference.weights import load_embedding_weights

OnBatch = Callable[[int], None]
OnUnreadable = Callable[[int, str], None]


class FeatureExtractor:
    """Embeddings of image files, arrays or tensors.

    ::

        extract = pyreid.FeatureExtractor("runs/first")  # or ("rmnet", weights="rmnet.pt")
        features = extract(["a.jpg", "b.jpg"])  # (2, 256) float32

    The model runs in evaluation mode, in full precision and without gradients; after each call every module is in the
    mode and on the device that it was.

    Args:
        model: a name that :func:`pyreid.list_models` gives; the folder of a run, or a checkpoint in it, such as
            ``runs/first/checkpoints/swa.ckpt``; a module that maps images (N, 3, H, W) to embeddings (N, D) in
            ``eval()``; or an exported ``.onnx`` or OpenVINO ``.xml`` file, which runs on the CPU. A name wins against
            a folder that is no run. A run brings its model, its best weights, and from its recipe the size and
            normalisation of images, ``flip`` and ``crops``.
        weights: a weights file for the model, see :func:`pyreid.models.load_weights`. It has to hold the whole network
            but the classifier; a module that :func:`~pyreid.models.load_weights` gave a backbone is taken as it is.
            With a name also ``"timm"``, ImageNet's backbone, of whose fresh head a warning tells, or ``"none"``.
            None: a module as it is, a run with its best, and a named model with fresh weights, of which a warning says
            so.
        device: where to compute. None: where the module is; for a name or a run cuda where there is one, else the CPU.
        batch_size: images per forward pass; no more are decoded at once (and, per worker, two batches ahead).
        size: (height, width) that images are resized to; by default the run's or the model's own.
        mean: of RGB in 0..1, subtracted; by default the run's or the model's own, or ImageNet's for a module that has
            none. Size, mean and std of an exported file are fixed, whether it normalises by itself or not.
        std: of RGB in 0..1, divided by; likewise.
        flip: test-time augmentation: ``"mean"`` adds the embedding of the mirror image and normalises the sum,
            ``"concat"`` concatenates both and normalises, ``"none"`` uses the image as it is. None: the run's, or
            ``"none"``.
        crops: ``"ten"`` resizes images to 1.125 times ``size``, and takes the plain mean of the embeddings of the four
            corners, the middle and their mirror images (DaRe); ``flip`` must then be ``"none"``, and a tensor that is
            normalised already of that larger size. ``"none"`` embeds the whole image. None: the run's, or ``"none"``.
        workers: processes that decode images; 0 decodes in this one.

    Raises:
        TypeError: ``model`` or ``weights`` is of another kind.
        ValueError: an unknown name, an argument out of range, or one that a run or an exported file does not take.
        FileNotFoundError: there is no such exported file, or a folder or file is not of a run.
        pyreid.errors.RecipeError: the recipe of the run cannot be read.
        pyreid.errors.ExportError: an exported file that cannot be read, or is not of pyreid.
        pyreid.errors.WeightsError: the weights are not there, do not fit, or hold a backbone only.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | nn.Module,
        *,
        weights: Any = None,
        device: torch.device | str | None = None,
        batch_size: int = 64,
        size: tuple[int, int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        flip: Flip | None = None,
        crops: Crops | None = None,
        workers: int = 0,
    ) -> None:
        check_batch_size(batch_size)
        for_flip, for_crops = ("none" if value is None else value for value in (flip, crops))
        check_flip(for_flip)
        check_crops(for_crops, for_flip)
        if not hasattr(workers, "__index__") or workers < 0:
            raise ValueError(f"workers: expected 0 or more, got {workers!r}")
        target = None if device is None else _check_device(device)
        if isinstance(model, str | os.PathLike) and Path(model).suffix in EXPORTED_SUFFIXES:
            _check_fixed(weights=weights, size=size, mean=mean, std=std)
            if target is not None and target.type != "cpu":
                raise ValueError(f"device: got {device}, but an exported file runs on the cpu")
            self.model: nn.Module = open_exported(model)
        elif isinstance(model, str | os.PathLike):
            opened = open_model(model, weights)
            if weights is None and opened.run is None:
                warnings.warn(f"model: {model} has fresh weights; pass weights=", stacklevel=2)
            self.model = opened.network
            look = opened.images
            size = look.size if size is None else size
            mean = look.mean if mean is None else mean
            std = look.std if std is None else std
            flip = opened.flip if flip is None else flip
            crops = opened.crops if crops is None else crops
            check_crops(crops, flip)
            target = target or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        elif isinstance(model, nn.Module):
            self.model = model
            if weights is not None:
                load_embedding_weights(model, weights)
        else:
            raise TypeError(
                f"model: got {type(model).__name__}, expected a name, the folder of a run, a torch.nn.Module or an "
                f"exported {', '.join(EXPORTED_SUFFIXES)} file"
            )
        self.device = target
        self.batch_size = batch_size
        self.flip: Flip = flip or "none"
        self.crops: Crops = crops or "none"
        self.workers = workers
        self.images = resolve_input(self.model, size=size, mean=mean, std=std)

    @overload
    def __call__(
        self, images: Any, *, return_torch: Literal[False] = ..., on_batch: OnBatch | None = ...
    ) -> NDArray[np.float32]: ...
    @overload
    def __call__(self, images: Any, *, return_torch: Literal[True], on_batch: OnBatch | None = ...) -> Tensor: ...
    def __call__(
        self, images: Any, *, return_torch: bool = False, on_batch: OnBatch | None = None
    ) -> NDArray[np.float32] | Tensor:
        """Features of one image or of many, in their order.

        Args:
            images: a path, a uint8 RGB array (H, W, 3), a uint8 tensor (3, H, W), a PIL image, or a floating-point
                tensor (3, H, W) that is normalised already and of the model's size; a sequence of them; or a batch of
                arrays (N, H, W, 3) or tensors (N, 3, H, W).
            return_torch: return a torch tensor, on the CPU, instead of a NumPy array.
            on_batch: called after each batch with its number of images.

        Returns:
            (N, D) float32; N is 1 for one image.

        Raises:
            TypeError: an item of another kind.
            ValueError: no images, or one of another shape; or the model gives NaN or infinite values.
            pyreid.errors.DatasetError: a file cannot be read as an image; the message names it.
        """
        items = as_items(images)
        features: NDArray[np.float32] | None = None
        filled = 0
        for batch in self.stream(items):
            if features is None:
                features = np.empty((len(items), batch.shape[1]), dtype=np.float32)
            features[filled : filled + len(batch)] = batch
            filled += len(batch)
            if on_batch is not None:
                on_batch(len(batch))
        assert features is not None  # stream refuses an empty sequence
        return torch.from_numpy(features) if return_torch else features

    def stream(
        self, images: Any, *, start: int = 0, on_unreadable: OnUnreadable | None = None
    ) -> Iterator[NDArray[np.float32]]:
        """The same features batch by batch, so that memory does not grow with their number.

        Args:
            images: as for a call.
            start: leave out so many images; a multiple of ``batch_size``, so that the batches, and with them the
                rounding, are those of all images.
            on_unreadable: called with the position of each file that cannot be read as an image, from 0 for the first
                of ``images``, and with what is wrong with it. The file is then left out of its batch, which stays that
                of the same positions; a batch of none is not yielded. None: such a file is an error.

        Yields:
            (n, D) float32, n at most ``batch_size``.

        Raises:
            TypeError, ValueError, pyreid.errors.DatasetError: as for a call.
        """
        items = as_items(images)
        if not items:
            raise ValueError("images: expected at least one, got none")
        if start < 0 or (start % self.batch_size and start != len(items)):
            raise ValueError(f"start: expected a multiple of batch_size={self.batch_size}, got {start}")
        look = self.images
        transform = eval_transform(image_size(look.size, self.crops), mean=look.mean, std=look.std)
        dataset = ImageItems(items[start:], transform)
        loader = DataLoader(
            dataset if on_unreadable is None else ReadableItems(dataset),
            batch_size=self.batch_size,
            num_workers=self.workers,
            collate_fn=_stack,
            # Its own generator: otherwise making a loader would draw from the global one.
            generator=torch.Generator().manual_seed(0),
        )
        with evaluating(self.model, self.device) as device:
            done = start
            for batch, wrong in loader:
                rows = [done + row for row in range(len(wrong)) if wrong[row] is None]
                for row, message in enumerate(wrong):
                    if message is not None and on_unreadable is not None:
                        on_unreadable(done + row, message)
                done += len(wrong)
                if not rows:
                    continue
                with torch.no_grad():  # not around the yield: the caller's code would run without gradients
                    features = self._embed(batch.to(device)).cpu().numpy()
                infinite = ~np.isfinite(features).all(axis=1)
                if infinite.any():
                    index = rows[int(infinite.argmax())]
                    raise ValueError(f"model: NaN or infinite features for {name_of(items[index], index)}")
                yield features

    def _embed(self, images: Tensor) -> Tensor:
        if self.crops == "ten":
            return embed_crops(self.model, images, self.images.size)
        return embed(self.model, images, self.flip)


def _stack(images: list[Tensor | str]) -> tuple[Tensor, list[str | None]]:
    """(N, 3, H, W) of those that were read, and for each what is wrong with it, or None.

    Resized images are of one size; tensors that are normalised already come as they are.
    """
    tensors = [image for image in images if isinstance(image, Tensor)]
    sizes = sorted({tuple(image.shape[1:]) for image in tensors})
    if len(sizes) > 1:
        raise ValueError(f"images: expected normalised tensors of the model's size, got {', '.join(map(str, sizes))}")
    stacked = torch.stack(tensors) if tensors else torch.empty(0)
    return stacked, [image if isinstance(image, str) else None for image in images]


def _check_device(device: torch.device | str) -> torch.device:
    """The device; ``ValueError`` for what is none, or a GPU that is not here."""
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(f"device: got {device!r}, expected a torch.device, or a name such as cpu or cuda:0") from None
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device: got {found}, but there are {torch.cuda.device_count()} CUDA devices here")
    return found


def _check_fixed(**given: object) -> None:
    """Raise ``ValueError`` if an option is given that an exported file has fixed."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"{name}: got {value}, but an exported file has its own")
