"""A model's embeddings of a batch, and the state that a model is in while it gives them."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from pyreid.inference.crops import ten_crops

Flip = Literal["none", "mean", "concat"]


def check_flip(flip: object) -> None:
    """Raise ``ValueError`` unless ``flip`` is one of :data:`Flip`."""
    if flip not in typing.get_args(Flip):
        raise ValueError(f"flip: got {flip!r}, expected 'none', 'mean' or 'concat'")


def check_batch_size(batch_size: int) -> None:
    """Raise ``ValueError`` unless ``batch_size`` is positive."""
    if not hasattr(batch_size, "__index__") or batch_size < 1:
        raise ValueError(f"batch_size: got {batch_size!r}, expected a whole number of at least 1")


def embed(model: nn.Module, images: Tensor, flip: Flip) -> Tensor:
    """Embeddings (N, D) of normalised images (N, 3, H, W), or (N, 2 D) with ``flip="concat"``, float32.

    Args:
        model: in evaluation mode.
        images: on the model's device.
        flip: ``"mean"`` adds the embedding of the mirror image and normalises the sum; ``"concat"`` concatenates both
            and normalises (RMNet, Sect. VI); ``"none"`` uses the image as it is.

    Raises:
        TypeError: the model gives no tensor.
        ValueError: the tensor is not (N, D).
    """
    embedding = _run(model, images)
    return embedding if flip == "none" else join_mirrored(embedding, _run(model, images.flip(3)), flip)


def join_mirrored(embedding: Tensor, mirrored: Tensor, flip: Literal["mean", "concat"]) -> Tensor:
    """The embeddings (N, D) of images and of their mirror images as one; see :func:`embed`."""
    both = embedding + mirrored if flip == "mean" else torch.cat([embedding, mirrored], dim=1)
    return nn.functional.normalize(both)


def embed_crops(model: nn.Module, images: Tensor, size: tuple[int, int]) -> Tensor:
    """The plain mean (N, D) of the embeddings of ten crops of ``size`` (DaRe, Sect. 5), of no unit length; float32.

    Args:
        model: in evaluation mode.
        images: (N, 3, H, W) of at least ``size``, normalised, on the model's device.
        size: (height, width) of the crops.

    Raises:
        TypeError: the model gives no tensor.
        ValueError: the tensor is not (N, D), or the images are smaller than the crops.
    """
    return torch.stack([_run(model, crop.contiguous()) for crop in ten_crops(images, size)]).mean(0)


def _run(model: nn.Module, images: Tensor) -> Tensor:
    output = model(images)
    if not isinstance(output, Tensor):
        raise TypeError(f"model: expected a tensor (N, D) of embeddings, got {type(output).__name__}")
    if output.dim() != 2 or len(output) != len(images):
        raise ValueError(f"model: expected embeddings ({len(images)}, D), got shape {tuple(output.shape)}")
    return output.float()


def device_of(model: nn.Module) -> torch.device:
    """Where the model's parameters lie; the CPU for a model without any."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


@contextmanager
def evaluating(model: nn.Module, device: torch.device | str | None) -> Iterator[torch.device]:
    """Put a model into evaluation mode and on a device for a block; gives the device.

    Afterwards every module is in the mode and on the device that it was, also after an error.
    """
    modes = {module: module.training for module in model.modules()}
    home = device_of(model)
    target = torch.device(device) if device is not None else home
    try:
        model.eval()
        if target != home:
            model.to(target)
        yield target
    finally:
        for module, mode in modes.items():
            module.training = mode
        if target != home:
            model.to(home)
