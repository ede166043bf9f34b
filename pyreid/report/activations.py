"""What a network's layers do with images: which activations are not zero, what attention changes, what stages see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pyreid.layers.global_attention import GlobalAttention
from pyreid.report.inspection import (
    Place,
    check_finite,
    find_activations,
    find_blocks,
    save_numbers,
    stage_names,
    watch,
)

Maps = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LayerDensity:
    """One layer.

    Attributes:
        name: dotted name of the module whose output it is.
        stage: ``"stem"``, ``"stage1"``, ...
        density: ``active / elements``.
        active: activations of all images with an absolute value over the tolerance.
        elements: activations of all images.
    """

    name: str
    stage: str
    density: float
    active: int
    elements: int


@dataclass(frozen=True, slots=True)
class ActivationDensity:
    """How many activations of each layer are not zero (SAFR, Fig. 4).

    Attributes:
        layers: in the order of data flow.
        tolerance: absolute values up to it count as zero.
        images: number of images.
    """

    layers: tuple[LayerDensity, ...]
    tolerance: float
    images: int

    @property
    def stages(self) -> dict[str, float]:
        """Stage -> plain mean over its layers, in the order of data flow."""
        found: dict[str, list[float]] = {}
        for layer in self.layers:
            found.setdefault(layer.stage, []).append(layer.density)
        return {stage: float(np.mean(values)) for stage, values in found.items()}

    def rows(self) -> list[dict[str, Any]]:
        """A row per layer."""
        return [
            {"layer": x.name, "stage": x.stage, "density": x.density, "active": x.active, "elements": x.elements}
            for x in self.layers
        ]

    def summary(self) -> dict[str, Any]:
        """All numbers, ready for JSON."""
        return {"tolerance": self.tolerance, "images": self.images, "stages": self.stages, "layers": self.rows()}

    def save(self, path: Path | str) -> None:
        """Write the rows as ``.csv``, or all numbers as ``.json``."""
        save_numbers(path, self.rows(), self.summary())


@dataclass(frozen=True, slots=True)
class AttentionMaps:
    """Activations around each global attention, averaged over channels (SAFR, Fig. 3).

    Attributes:
        images: (N, H, W, 3) in 0..1, as the model saw them.
        before: dotted name of the attention -> (N, h, w), of its input.
        after: likewise of its output.
    """

    images: Maps
    before: dict[str, Maps]
    after: dict[str, Maps]

    def rows(self) -> list[dict[str, Any]]:
        """A row per attention and image: extremes and means of the two maps."""
        return [
            {"layer": name, "image": index, **_spread("before", x), **_spread("after", y)}
            for name in self.before
            for index, (x, y) in enumerate(zip(self.before[name], self.after[name], strict=True))
        ]

    def summary(self) -> dict[str, Any]:
        """The rows and the sizes of the maps, ready for JSON."""
        return {"sizes": {name: list(x.shape[1:]) for name, x in self.before.items()}, "maps": self.rows()}

    def save(self, path: Path | str) -> None:
        """Write the rows as ``.csv``, or with the sizes as ``.json``."""
        save_numbers(path, self.rows(), self.summary())


@dataclass(frozen=True, slots=True)
class FeatureMaps:
    """What the stages of a network give (coursework, Fig. 1), not normalised.

    Attributes:
        images: (N, H, W, 3) in 0..1, as the model saw them.
        maps: stage -> (N, k, h, w): the first k channels, or one map, the mean over channels.
        layers: stage -> dotted name of the block whose output it is.
        widths: stage -> number of channels that the stage has.
        is_mean: whether the maps are means over channels.
    """

    images: Maps
    maps: dict[str, Maps]
    layers: dict[str, str]
    widths: dict[str, int]
    is_mean: bool

    def rows(self) -> list[dict[str, Any]]:
        """A row per stage, image and map: extremes and mean."""
        return [
            {"stage": stage, "image": image, "channel": "mean" if self.is_mean else channel, **_spread("", x)}
            for stage, maps in self.maps.items()
            for image, channels in enumerate(maps)
            for channel, x in enumerate(channels)
        ]

    def summary(self) -> dict[str, Any]:
        """The rows and what each stage is, ready for JSON."""
        stages = {
            stage: {"layer": self.layers[stage], "channels": self.widths[stage], "size": list(maps.shape[2:])}
            for stage, maps in self.maps.items()
        }
        return {"stages": stages, "maps": self.rows()}

    def save(self, path: Path | str) -> None:
        """Write the rows as ``.csv``, or with the stages as ``.json``."""
        save_numbers(path, self.rows(), self.summary())


def activation_density(model: nn.Module, images: Any, *, tolerance: float = 0.0) -> ActivationDensity:
    """Count the activations of each layer that are not zero (SAFR, Sect. 4.1 and Fig. 4).

    Layers are

    - the stem's activation, before its max-pool; behind global attention wherever that lies: SAFR-Micro, which has it
      after the activation, has two layers here;
    - the output of every residual, RM, shuffle and Inception block, of DBAM, and of MobileNetV3's last convolution;
    - for blocks that end in a convolution, where hardly anything is zero, their last activation: what the 3x3
      convolution of a dense layer reads, the depthwise convolution's output in MobileNetV3.

    Activations inside other blocks, in squeeze-and-excitation and behind the last block do not count. In a network that
    has no such blocks every activation module is a layer. A module that runs several times is one layer.

    ReLU gives exact zeros. ELU, leaky ReLU and sigmoid give hardly any, hard swish only below -3: such networks (RMNet
    has ELU, SAFR-Micro and MobileNetV3 hard swish) need a ``tolerance``, for example 0.01, and densities of networks
    with different activations compare only under one that fits both.

    The model runs in evaluation mode and without gradients; its modes and hooks are left as they were.

    Args:
        model: a model of the zoo, or another that maps images (N, 3, H, W) to anything.
        images: files, uint8 arrays, or floating-point tensors (N, 3, H, W) that are normalised already, as for
            :class:`pyreid.FeatureExtractor`.
        tolerance: absolute values up to it count as zero.

    Raises:
        ValueError: the tolerance is negative or not finite, there is no image or no layer, or an activation is NaN or
            infinite.
    """
    if not (np.isfinite(tolerance) and tolerance >= 0):
        raise ValueError(f"tolerance: got {tolerance}, expected 0 or more")
    counts: dict[str, tuple[Place, int, int]] = {}

    def look(place: Place, _: Tensor, output: Tensor) -> None:
        check_finite(place, output)
        before = counts.get(place.name, (place, 0, 0))
        active = int(torch.count_nonzero(output.abs() > tolerance))
        counts[place.name] = (place, before[1] + active, before[2] + output.numel())

    shown = watch(model, images, find_activations(model), look)
    stages = stage_names([place for place, _, _ in counts.values()])
    layers = tuple(
        LayerDensity(place.name, stage, active / elements, active, elements)
        for stage, (place, active, elements) in zip(stages, counts.values(), strict=True)
    )
    return ActivationDensity(layers, float(tolerance), len(shown))


def attention_maps(model: nn.Module, images: Any) -> AttentionMaps:
    """Activations before and after global attention, averaged over channels (SAFR, Fig. 3).

    Args:
        model: one with a :class:`~pyreid.layers.GlobalAttention`.
        images: as for :func:`activation_density`.

    Raises:
        ValueError: the model has no global attention, there is no image, or an activation is NaN or infinite.
    """
    check_attention(model)
    places = _attention_places(model)
    before: dict[str, list[Maps]] = {place.name: [] for place in places}
    after: dict[str, list[Maps]] = {place.name: [] for place in places}

    def look(place: Place, x: Tensor, output: Tensor) -> None:
        check_finite(place, output)
        before[place.name].append(_array(x.float().mean(dim=1)))
        after[place.name].append(_array(output.float().mean(dim=1)))

    shown = watch(model, images, places, look)
    return AttentionMaps(shown, *({name: np.concatenate(maps) for name, maps in x.items()} for x in (before, after)))


def feature_maps(
    model: nn.Module, images: Any, *, stages: Sequence[str] | None = None, channels: int | None = None
) -> FeatureMaps:
    """The output of the last block of each stage, before attention that follows the stage (coursework, Fig. 1).

    Networks of four stages have ``"stage1"`` to ``"stage4"``, HA-CNN three; its regions are left out.

    Args:
        model: as for :func:`activation_density`.
        images: likewise.
        stages: names of stages; by default all.
        channels: keep so many channels, the first ones; None averages over all.

    Raises:
        ValueError: an unknown stage, ``channels`` below 1, no image, or a NaN or infinite activation.
    """
    if channels is not None and channels < 1:
        raise ValueError(f"channels: got {channels}, expected at least 1")
    found: dict[str, tuple[Place, int, list[Maps]]] = {}

    def look(place: Place, _: Tensor, output: Tensor) -> None:
        if output.dim() != 4:
            return
        check_finite(place, output)
        maps = output.float().mean(dim=1, keepdim=True) if channels is None else output[:, :channels].float()
        found.setdefault(place.name, (place, output.shape[1], []))[2].append(_array(maps))

    shown = watch(model, images, find_blocks(model), look)
    names = stage_names([place for place, _, _ in found.values()])
    # a later block of the same stage takes the place of an earlier one
    last = {stage: name for stage, name in zip(names, found, strict=True) if not stage.startswith("local")}
    wanted = list(last) if stages is None else list(stages)
    unknown = [stage for stage in wanted if stage not in last]
    if unknown or not wanted:
        raise ValueError(f"stages: got {', '.join(unknown) or 'none'}, expected some of {', '.join(last)}")
    return FeatureMaps(
        shown,
        {stage: np.concatenate(found[last[stage]][2]) for stage in wanted},
        {stage: last[stage] for stage in wanted},
        {stage: found[last[stage]][1] for stage in wanted},
        channels is None,
    )


def has_attention(model: nn.Module) -> bool:
    """Whether :func:`attention_maps` has something to show."""
    return bool(_attention_places(model))


def check_attention(model: nn.Module) -> None:
    """Raise ``ValueError``, naming the models that have one, unless the model has a global attention."""
    if not has_attention(model):
        raise ValueError(
            f"model: {type(model).__name__} has no global attention; models that have: {', '.join(_attentive_models())}"
        )


def normalise_map(x: Maps) -> Maps:
    """A map's values from 0 to 1; a constant map becomes 0."""
    low, high = float(x.min()), float(x.max())
    return np.zeros_like(x) if high <= low else (x - low) / (high - low)


def _attention_places(model: nn.Module) -> list[Place]:
    return [Place(name, module) for name, module in model.named_modules() if isinstance(module, GlobalAttention)]


def _array(x: Tensor) -> Maps:
    return np.array(x.cpu().numpy(), dtype=np.float32)  # a copy: the network may go on in place


def _spread(name: str, x: Maps) -> dict[str, float]:
    start = f"{name}_" if name else ""
    return {f"{start}min": float(x.min()), f"{start}mean": float(x.mean()), f"{start}max": float(x.max())}


def _attentive_models() -> list[str]:
    from pyreid.models import list_models, model_entry

    return [name for name in list_models() if getattr(model_entry(name).default_config(), "global_attention", False)]
