"""What every model of the zoo is: images in, one embedding out; in training, named embeddings and logits."""

from __future__ import annotations

import dataclasses

from torch import Tensor, nn

from pyreid.models.config import ModelConfig

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True, slots=True)
class ModelOutput:
    """What a model returns in training, for the losses to pick from by name.

    Attributes:
        embeddings: name -> (N, D) tensor; the one named ``"embedding"`` is what the model returns in evaluation.
        logits: name -> (N, num_classes) tensor; empty for a model without a classifier.
    """

    embeddings: dict[str, Tensor]
    logits: dict[str, Tensor]


class ReIDModel(nn.Module):
    """Base of the zoo's models.

    ``model.train()(images)`` is a :class:`ModelOutput`, ``model.eval()(images)`` the embedding (N, ``embedding_dim``).
    Images are (N, 3, H, W) float tensors, RGB in [0, 1] normalised with ``pixel_mean`` and ``pixel_std``; any H and W
    from ``min_input_size`` up. The identity classifier, where there is one, is the submodule ``classifier``, or several
    inside a submodule of that name.

    Attributes:
        config: the settings the model was made with.
        embedding_dim: D, the width of the embedding.
        default_input_size: (height, width) the model was designed for.
        min_input_size: smallest (height, width) that the model takes.
        pixel_mean: per-channel mean that the input is normalised with.
        pixel_std: per-channel standard deviation that the input is normalised with.
    """

    min_input_size: tuple[int, int] = (1, 1)

    def __init__(
        self,
        config: ModelConfig,
        *,
        embedding_dim: int,
        default_input_size: tuple[int, int],
        pixel_mean: tuple[float, float, float] = IMAGENET_MEAN,
        pixel_std: tuple[float, float, float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.config = config
        self.embedding_dim = embedding_dim
        self.default_input_size = default_input_size
        self.pixel_mean = pixel_mean
        self.pixel_std = pixel_std


def check_images(images: Tensor, *, min_size: tuple[int, int] = (1, 1)) -> None:
    """Raise unless ``images`` is a float (N, 3, H, W) tensor of images that are large enough.

    Args:
        images: what the model was given.
        min_size: smallest (H, W), at least (1, 1).

    Raises:
        ValueError: another shape, or images below ``min_size``.
        TypeError: not a floating-point tensor.
    """
    if images.dim() != 4 or images.shape[1] != 3 or images.shape[2] < 1 or images.shape[3] < 1:
        raise ValueError(f"images: got shape {tuple(images.shape)}, expected (N, 3, H, W)")
    height, width = images.shape[2:]
    if height < min_size[0] or width < min_size[1]:
        raise ValueError(
            f"images: got {height} x {width} pixels (height x width), expected at least {min_size[0]} x {min_size[1]}"
        )
    if not images.is_floating_point():
        raise TypeError(f"images: got {images.dtype}, expected a floating-point tensor of normalised pixels")
