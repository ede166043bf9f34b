"""Looking inside a network while it embeds images: which layers there are, hooks on them, and files of numbers.

What counts as a layer: the stem and every block. Blocks are found by their class, those of this package and those of
timm's (and torchvision's) ResNets, DenseNets and MobileNetV3. A network without any of them is looked at through its
activation modules.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pyreid._files import write_atomically, write_json, write_text
from pyreid.data.transforms import eval_transform
from pyreid.inference.embedding import evaluating
from pyreid.inference.images import ImageItems, as_items, resolve_input

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BATCH = 32
STEM = "stem"

# Class of a block -> what of it is an activation: "" its output, else the submodule with its last activation, for
# blocks that end in a convolution or batch norm.
_BLOCKS = {
    "RMBlock": "",
    "ShuffleA": "",
    "ShuffleB": "",
    "SplitUnit": "",
    "InceptionA": "",
    "InceptionB": "",
    "DBAM": "",  # where it joins a residual block, that block's own forward does not run
    "BasicBlock": "",
    "Bottleneck": "",
    "ConvBnAct": "",
    "DenseLayer": "norm2",
    "InvertedResidual": "bn2",
    "DepthwiseSeparableConv": "bn1",
}
# Class of a network -> the submodule whose output is the stem's activation; the first that there is.
_STEMS = {
    "ResNet": ("act1", "relu"),
    "DenseNet": ("features.norm0",),
    "MobileNetV3": ("bn1",),
    "ShuffleNetV2PlusTrunk": ("stem",),
    "RMNet": ("stem",),
    "HACNN": ("stem",),
    "SAFRMicro": ("global_attention",),
}
_NUMBERED = re.compile(r"(?:^|[._])(?:layer|denseblock)(\d+)(?:[._]|$)")
_BRANCHES = re.compile(r"(?:^|\.)(global|local)_stages\.(\d+)")
_NETWORK = re.compile(r"^nets\.(\w+)\.")


@dataclass(frozen=True, slots=True)
class Place:
    """A module whose output is looked at.

    Attributes:
        name: its dotted name in the model.
        module: the module.
        block: the block that it belongs to; None for a stem, and for an activation of a network without blocks.
    """

    name: str
    module: nn.Module
    block: nn.Module | None = None


Look = Callable[[Place, Tensor, Tensor], None]


def find_activations(model: nn.Module) -> list[Place]:
    """The stems and the output activation of every block; without any block all activation modules.

    Raises:
        ValueError: there is neither a block nor an activation module.
    """
    places = []
    for name, block, part in _blocks(model):
        module = block.get_submodule(part)
        places.append(Place(f"{name}.{part}" if part else name, module, block))
    if places:
        return [*_stems(model), *places]
    return _activation_modules(model)


def find_blocks(model: nn.Module) -> list[Place]:
    """Every block by its whole output, and a DenseNet's dense blocks; without any block all activation modules.

    Raises:
        ValueError: there is neither a block nor an activation module.
    """
    places = [Place(name, block, block) for name, block, _ in _blocks(model) if _class(block, _BLOCKS) != "DenseLayer"]
    places += [Place(name, module, module) for name, module in model.named_modules() if _is_dense_block(module)]
    return places or _activation_modules(model)


def stage_names(order: Sequence[Place]) -> list[str]:
    """The stage of each place: ``stem``, ``stage1``, ``stage2``, ...

    ``layer1`` and ``denseblock1`` are ``stage1``; in a plain list of blocks a stage begins with a block of stride 2.
    The regions of HA-CNN are ``local1`` to ``local3``. Several networks in one have their name before it,
    ``resnet18/stage1``. In a network without blocks the stage is the first part of the name.

    Args:
        order: in the order of data flow.
    """
    if not any(place.block is not None for place in order):
        return [place.name.split(".")[0] for place in order]
    counted: dict[str, int] = {}
    stages = []
    for place in order:
        network = _NETWORK.match(place.name)
        prefix = f"{network[1]}/" if network else ""
        if place.block is None:
            stages.append(f"{prefix}{STEM}")
        elif branch := _BRANCHES.search(place.name):
            stages.append(f"{prefix}{'stage' if branch[1] == 'global' else 'local'}{int(branch[2]) + 1}")
        elif numbered := _NUMBERED.search(place.name):
            stages.append(f"{prefix}stage{numbered[1]}")
        else:
            count = counted.get(prefix, 0)
            counted[prefix] = count + 1 if count == 0 or _halves(place.block) else count
            stages.append(f"{prefix}stage{counted[prefix]}")
    return stages


def watch(model: nn.Module, images: Any, places: Sequence[Place], look: Look) -> NDArray[np.float32]:
    """Embed images, and call ``look(place, input, output)`` whenever a place's module has run.

    The tensors are those of the network, whose next layer may work in place: ``look`` keeps no view of them. The model
    runs in evaluation mode without gradients, in batches of 32; afterwards hooks and modes are as before, also after an
    error.

    Args:
        model: maps images (N, 3, H, W) to anything.
        images: as for :class:`pyreid.FeatureExtractor`: files, arrays, tensors; floating-point ones are normalised
            already. Or ``ImageItems``, which are decoded batch by batch.
        places: from :func:`find_activations` or :func:`find_blocks`.
        look: gets the place, the module's first input and its output.

    Returns:
        The images (N, H, W, 3) that the model saw, in 0..1.

    Raises:
        ValueError: there is no image, or images of several sizes.
        TypeError, pyreid.errors.DatasetError: an item is no image.
    """
    handles: list[Any] = []
    shown = []
    mean, std = (torch.tensor(getattr(resolve_input(model, size=(1, 1)), key)) for key in ("mean", "std"))

    def hook(place: Place) -> Callable[..., None]:
        return lambda _, inputs, output: look(place, inputs[0], output)

    try:
        with evaluating(model, None) as device, torch.no_grad():
            for place in places:
                handles.append(place.module.register_forward_hook(hook(place)))
            for batch in _batches(model, images):
                model(batch.to(device))
                pixels = batch.float().cpu().permute(0, 2, 3, 1) * std + mean
                shown.append(pixels.clamp(0, 1).numpy())
    finally:
        for handle in handles:
            handle.remove()
    return np.concatenate(shown)


def check_finite(place: Place, x: Tensor) -> None:
    """Raise ``ValueError`` for NaN or infinite activations."""
    if not torch.isfinite(x).all():
        raise ValueError(f"model: NaN or infinite activations in {place.name}")


def save_numbers(path: Path | str, rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> None:
    """Write rows as ``.csv``, or the summary as ``.json``.

    Raises:
        ValueError: the file's name ends in something else.
    """
    path = Path(path)
    if path.suffix == ".json":
        write_json(path, summary)
    elif path.suffix == ".csv":
        text = io.StringIO()
        table = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        write_text(path, text.getvalue())
    else:
        raise ValueError(f"path: expected a file that ends in .csv or .json, got {path}")


def write_figure(figure: Figure, path: Path | str | None) -> None:
    """Write a figure as PNG, whole or not at all; nothing for None.

    Raises:
        ValueError: the file's name does not end in ``.png``.
    """
    if path is None:
        return
    path = Path(path)
    if path.suffix != ".png":
        raise ValueError(f"path: expected a file that ends in .png, got {path}")
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=120))


def _batches(model: nn.Module, images: Any) -> Iterator[Tensor]:
    dataset = images if isinstance(images, ImageItems) else _normalised(model, as_items(images))
    if not len(dataset):
        raise ValueError("images: expected at least one, got none")
    size = None
    for start in range(0, len(dataset), BATCH):
        batch = [dataset[index] for index in range(start, min(start + BATCH, len(dataset)))]
        for index, image in enumerate(batch, start):
            size = size or tuple(image.shape)
            if tuple(image.shape) != size:
                raise ValueError(f"images: item {index}: got shape {tuple(image.shape)}, the first has {size}")
        yield torch.stack(batch)


def _normalised(model: nn.Module, items: Sequence[Any]) -> ImageItems:
    transform: Any = None
    if not all(isinstance(item, Tensor) and item.is_floating_point() for item in items):
        look = resolve_input(model)
        transform = eval_transform(look.size, mean=look.mean, std=look.std)
    return ImageItems(items, transform)


def _class(module: nn.Module, known: Mapping[str, Any]) -> str | None:
    """The name of the module's class, or of one it derives from, that is known. timm need not be imported for it."""
    return next((kind.__name__ for kind in type(module).__mro__ if kind.__name__ in known), None)


def _blocks(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    for name, module in model.named_modules():
        kind = _class(module, _BLOCKS)
        if kind is not None:
            yield name, module, _BLOCKS[kind]


def _stems(model: nn.Module) -> Iterator[Place]:
    for name, module in model.named_modules():
        for part in _STEMS.get(_class(module, _STEMS) or "", ()):
            try:
                stem = module.get_submodule(part)
            except AttributeError:
                continue
            if not isinstance(stem, nn.Identity):
                yield Place(f"{name}.{part}" if name else part, stem)
            break


def _activation_modules(model: nn.Module) -> list[Place]:
    places = [
        Place(name, module)
        for name, module in model.named_modules()
        if type(module).__module__ == nn.ReLU.__module__ and not isinstance(module, nn.MultiheadAttention)
    ]
    if not places:
        raise ValueError(f"model: {type(model).__name__} has neither blocks that are known nor activation modules")
    return places


def _is_dense_block(module: nn.Module) -> bool:
    return any(type(child).__name__ == "DenseLayer" for child in module.children())


def _halves(block: nn.Module) -> bool:
    """Whether a block has stride 2: its shortcut has a layer, or its depthwise convolution says so."""
    kind = _class(block, _BLOCKS)
    if kind == "RMBlock":
        return not isinstance(block.skip, nn.Identity)
    if kind == "SplitUnit":
        return block.shortcut is not None
    depthwise = getattr(block, "conv_dw", None)
    return depthwise is not None and max(depthwise.stride) > 1
