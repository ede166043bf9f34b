"""timm's networks as backbones: building them, running them stage by stage, and what their weights files hold besides.

A model of the zoo keeps timm's module with timm's parameter names and puts its own layers beside it, so that ImageNet
weights of timm and torchvision fit as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from pyreid.errors import WeightsError, require

_RESNET_STEM = ("conv1", "bn1", "act1", "maxpool")
_RESNET_STAGES = (("layer1",), ("layer2",), ("layer3",), ("layer4",))
_DENSENET_STEM = ("conv0", "norm0", "pool0")
# A stage ends before the transition, which halves the width and the size for the next one.
_DENSENET_STAGES = (
    ("denseblock1",),
    ("transition1", "denseblock2"),
    ("transition2", "denseblock3"),
    ("transition3", "denseblock4", "norm5"),
)
# torchvision's DenseNet files of 2017 write norm.1 where the modules have been named norm1 since.
_OLD_DENSENET_NAME = re.compile(r"(.*denselayer\d+\.(?:norm|conv))\.([12]\..+)")


def make_backbone(name: str, *, pretrained: bool = False) -> Any:
    """A timm ResNet, DenseNet or MobileNetV3 up to its last feature map.

    Args:
        name: a timm model, also with the tag of its weights, for example ``"resnet18.tv_in1k"``.
        pretrained: load the ImageNet weights, from timm's cache or the network.

    Returns:
        A module that maps images (N, 3, H, W) to the feature map (N, ``num_features``, h, w), typed loosely because
        timm ships no types that mypy accepts. MobileNetV3 comes without the 1x1 convolution that timm has between the
        pooled features and the classifier.

    Raises:
        pyreid.errors.MissingDependencyError: timm is not installed.
        pyreid.errors.WeightsError: the weights cannot be had.
        ValueError: timm has no such model, or it is of another architecture.
    """
    require("timm", extra="train")
    import timm

    if not timm.is_model(name.split(".")[0]):
        raise ValueError(f"backbone: timm has no model {name!r}")
    try:
        model = timm.create_model(name, pretrained=pretrained, num_classes=0, global_pool="")
    except Exception as error:  # timm, huggingface_hub and the sockets below have no common base class
        if not pretrained:
            raise ValueError(f"backbone: timm cannot build {name!r}: {error}") from error
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"weights: timm cannot get the ImageNet weights of {name} ({reason}); "
            "without the network give the path of a weights file, or for fresh values weights=None (--weights none, in "
            "a recipe model.weights=null)"
        ) from error
    if _architecture(model) not in ("ResNet", "DenseNet", "MobileNetV3"):
        raise ValueError(f"backbone: got {name!r}, expected a ResNet, DenseNet or MobileNetV3")
    if _architecture(model) == "MobileNetV3":
        model.conv_head, model.norm_head, model.act2 = nn.Identity(), nn.Identity(), nn.Identity()
    return model


def has_stages(backbone: Any) -> bool:
    """Whether the backbone is a ResNet or DenseNet, which have a stem and four stages."""
    return _architecture(backbone) in ("ResNet", "DenseNet")


def stem_width(backbone: Any) -> int:
    """Channels of the stem's feature map."""
    return int(backbone.feature_info[0]["num_chs"])


def stage_widths(backbone: Any) -> tuple[int, ...]:
    """Channels of the feature map at the end of each of the four stages of a ResNet or DenseNet."""
    return tuple(int(info["num_chs"]) for info in backbone.feature_info[1:])


def run_stem(backbone: Any, images: Tensor) -> Tensor:
    """Run what comes before the stages of a ResNet or DenseNet: a quarter of the size, rounded up."""
    return _run(backbone, _DENSENET_STEM if _architecture(backbone) == "DenseNet" else _RESNET_STEM, images)


def run_stage(backbone: Any, stage: int, x: Tensor) -> Tensor:
    """Run one stage of a ResNet or DenseNet.

    The stem and the stages one after the other give the same as the whole backbone. A ResNet's stages are ``layer1`` to
    ``layer4``, a DenseNet's its dense blocks; the map between a dense block and its transition has neither batch norm
    nor ReLU yet, except after the last.

    Args:
        backbone: one for which :func:`has_stages` holds.
        stage: 0 to 3.
        x: the output of the stem or of the stage before.

    Returns:
        The feature map at the end of the stage.
    """
    stages = _DENSENET_STAGES if _architecture(backbone) == "DenseNet" else _RESNET_STAGES
    return _run(backbone, stages[stage], x)


def min_image_size(backbone: Any) -> int:
    """Smallest height and width of images that leave every feature map at least one pixel."""
    # After the stem, which rounds sizes up, DenseNet's three transitions round them down.
    return 29 if _architecture(backbone) == "DenseNet" else 1


def head_prefixes(backbone: Any) -> tuple[str, ...]:
    """How the names begin that files of ImageNet weights have and :func:`make_backbone` leaves out."""
    return {"DenseNet": ("classifier.",), "MobileNetV3": ("conv_head.", "classifier.")}.get(
        _architecture(backbone), ("fc.",)
    )


def current_names(backbone: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a weights file under the names that the backbone's modules have now."""
    if _architecture(backbone) != "DenseNet":
        return dict(tensors)
    return {_OLD_DENSENET_NAME.sub(r"\1\2", name): value for name, value in tensors.items()}


def _architecture(backbone: Any) -> str:
    """Name of timm's class; by name, so that weights load without importing timm."""
    return type(backbone).__name__


def _run(backbone: Any, names: tuple[str, ...], x: Tensor) -> Tensor:
    modules = backbone.features if _architecture(backbone) == "DenseNet" else backbone
    for name in names:
        x = getattr(modules, name)(x)
    return x
