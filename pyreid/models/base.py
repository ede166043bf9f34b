"""What every model of the zoo is: images in, one embedding out; in training, named embeddings and logits."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args

from torch import Tensor, nn

from pyreid.models.complexity import CostCache, check_input_size, macs_of_steps
from pyreid.models.config import ModelConfig

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

CostSource = Literal["measured", "author"]


@dataclasses.dataclass(frozen=True, slots=True)
class ModelOutput:
    """What a model returns in training, for the losses to pick from by name.

    Attributes:
        embeddings: name -> (N, D) tensor; the one named ``"embedding"`` is what the model returns in evaluation.
        logits: name -> (N, num_classes) tensor; empty for a model without a classifier.
    """

    embeddings: dict[str, Tensor]
    logits: dict[str, Tensor]


class Exit(NamedTuple):
    """An embedding on the way through a model.

    Attributes:
        name: the exit's name, which the embedding also has in :class:`ModelOutput`; the last exit is ``"embedding"``.
        embedding: (N, ``embedding_dim``) tensor.
        cumulative_macs: multiply-accumulates of one image that have been executed so far, all earlier exits included.
    """

    name: str
    embedding: Tensor
    cumulative_macs: int


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
        timm_backbones: the submodules that are timm's networks, with their names in timm.
        exit_names: the exits of :meth:`stages` in their order; empty for a model that cannot stop early.
        author_costs: by input size, the costs that the authors of the model count for its exits; mostly empty.
    """

    min_input_size: tuple[int, int] = (1, 1)
    author_costs: Mapping[tuple[int, int], tuple[int, ...]] = MappingProxyType({})

    def __init__(
        self,
        config: ModelConfig,
        *,
        embedding_dim: int,
        default_input_size: tuple[int, int],
        pixel_mean: tuple[float, float, float] = IMAGENET_MEAN,
        pixel_std: tuple[float, float, float] = IMAGENET_STD,
        timm_backbones: Mapping[str, str] = MappingProxyType({}),
        exit_names: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.config = config
        self.embedding_dim = embedding_dim
        self.default_input_size = default_input_size
        self.pixel_mean = pixel_mean
        self.pixel_std = pixel_std
        self.timm_backbones = dict(timm_backbones)
        self.exit_names = exit_names
        self._costs = CostCache()  # by kind and input size, as counting takes a while

    def stages(self, images: Tensor) -> Iterator[Exit]:
        """Embed images exit by exit, computing each only when it is asked for (DaRe, Sect. 4.1).

        A caller who stops has not paid for the rest. The last exit is what ``model(images)`` returns.

        Args:
            images: (N, 3, H, W) float.

        Returns:
            A generator of exits in ascending order of cost.

        Raises:
            ValueError: the model has no exits or is in training mode, or the images have a wrong shape.
            TypeError: the images are not floating-point.
        """
        self._check_exits("stages")
        if self.training:
            raise ValueError("stages: got a model in training mode, expected one in evaluation mode; call eval() first")
        check_images(images, min_size=self.min_input_size)
        size = (int(images.shape[2]), int(images.shape[3]))
        macs = self._costs.get(
            self, ("cumulative", size), lambda: macs_of_steps(self, lambda model, image: model._run_exits(image), size)
        )
        return self._measured_exits(images, macs)

    def exit_costs(
        self, input_size: tuple[int, int] | None = None, *, source: CostSource = "measured"
    ) -> dict[str, int]:
        """What it costs to embed one image at each exit when it is known beforehand where to stop (DaRe, Sect. 4.2).

        Embeddings of earlier exits that the exit does not need are not computed. Costs are multiply-accumulates.

        Args:
            input_size: (H, W); by default ``default_input_size``.
            source: ``"measured"`` on this network, or ``"author"``: the list that the authors' program has, for runs
                that are compared with theirs. Only ``dare_r50`` at 256 x 128 has one.

        Returns:
            Name -> C_s, ascending; the last is the cost of ``model(images)``.

        Raises:
            ValueError: the model has no exits, the input size is not two integers from ``min_input_size`` up, or the
                source is unknown or has no costs for this model and size.
        """
        self._check_exits("exit_costs")
        size = check_input_size(self, input_size)
        if source not in get_args(CostSource):
            raise ValueError(f"source: got {source!r}, expected one of {', '.join(map(repr, get_args(CostSource)))}")
        if source == "measured":
            costs = self._costs.get(self, ("alone", size), lambda: self._measure_each_exit(size))
        elif size in self.author_costs:
            costs = self.author_costs[size]
        else:
            known = ", ".join(f"{height} x {width}" for height, width in self.author_costs)
            raise ValueError(
                f"source: got 'author' for {type(self).__name__} at {size[0]} x {size[1]}, expected "
                + (
                    f"the size {known}, for which the authors give costs"
                    if known
                    else "'measured': no others are known"
                )
            )
        return dict(zip(self.exit_names, costs, strict=True))

    def _measure_each_exit(self, size: tuple[int, int]) -> tuple[int, ...]:
        totals = macs_of_steps(self, _each_exit_alone, size)
        return tuple(total - before for before, total in itertools.pairwise((0, *totals)))

    def _run_exits(self, images: Tensor) -> Iterator[Tensor]:
        """The embeddings of all exits, lazily. Models with exits override it."""
        raise NotImplementedError

    def _run_to_exit(self, images: Tensor, name: str) -> Tensor:
        """The embedding of one exit, with as little work as possible; overridden where earlier ones are not needed."""
        for exit_name, embedding in zip(self.exit_names, self._run_exits(images), strict=True):
            if exit_name == name:
                return embedding
        raise ValueError(f"exit: got {name!r}, expected one of {', '.join(self.exit_names)}")

    def _measured_exits(self, images: Tensor, macs: tuple[int, ...]) -> Iterator[Exit]:
        # zip draws from the names first, so that it does not compute past the last exit.
        for name, embedding, cost in zip(self.exit_names, self._run_exits(images), macs, strict=True):
            yield Exit(name, embedding, cost)

    def _check_exits(self, caller: str) -> None:
        if not self.exit_names:
            from pyreid.models.registry import list_models, model_entry

            able = [name for name in list_models() if model_entry(name).default_config().early_exits]
            raise ValueError(f"{caller}: {type(self).__name__} has no early exits; models that have: {', '.join(able)}")


def _each_exit_alone(model: ReIDModel, image: Tensor) -> Iterator[Tensor]:
    check_images(image, min_size=model.min_input_size)
    for name in model.exit_names:
        yield model._run_to_exit(image, name)


def check_images(images: Tensor, *, min_size: tuple[int, int] = (1, 1)) -> None:
    """Raise unless ``images`` is a float (N, 3, H, W) tensor of images that are large enough.

    Args:
        images: what the model was given.
        min_size: smallest (H, W), at least (1, 1).

    Raises:
        ValueError: another shape, or images below ``min_size``.
        TypeError: not a floating-point tensor.
    """
    if not isinstance(images, Tensor):
        raise TypeError(f"images: got {type(images).__name__}, expected a tensor; pyreid.FeatureExtractor takes others")
    if images.dim() != 4 or images.shape[1] != 3 or images.shape[2] < 1 or images.shape[3] < 1:
        raise ValueError(f"images: got shape {tuple(images.shape)}, expected (N, 3, H, W)")
    height, width = images.shape[2:]
    if height < min_size[0] or width < min_size[1]:
        raise ValueError(
            f"images: got {height} x {width} pixels (height x width), expected at least {min_size[0]} x {min_size[1]}"
        )
    if not images.is_floating_point():
        raise TypeError(f"images: got {images.dtype}, expected a floating-point tensor of normalised pixels")
