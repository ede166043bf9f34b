"""timm's ResNets taken apart: running a block without its final "add and activate"."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pyreid.models.timm_backbones import make_backbone

STAGES = ("layer1", "layer2", "layer3", "layer4")


def make_resnet(name: str, *, pretrained: bool = False) -> Any:
    """A timm ResNet without pooling and classifier.

    Args:
        name: a timm model, also with the tag of its weights, for example ``"resnet18.tv_in1k"``.
        pretrained: load the ImageNet weights, from timm's cache or the network.

    Returns:
        A ``timm.models.resnet.ResNet`` (typed loosely because timm ships no types that mypy accepts).

    Raises:
        pyreid.errors.MissingDependencyError: timm is not installed.
        pyreid.errors.WeightsError: the weights cannot be had.
        ValueError: timm has no such ResNet.
    """
    model = make_backbone(name, pretrained=pretrained)
    from timm.models.resnet import BasicBlock, Bottleneck, ResNet

    blocks = [block for stage in STAGES for block in getattr(model, stage, [])]
    if not isinstance(model, ResNet) or not all(type(block) in (BasicBlock, Bottleneck) for block in blocks):
        raise ValueError(f"backbone: got {name!r}, expected a ResNet of basic or bottleneck blocks")
    return model


def residual_branch(block: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """The addends of a timm ``BasicBlock`` or ``Bottleneck``: the branch after its last batch norm, and the shortcut.

    ``act(branch + shortcut)``, with the block's last activation, is the block's own output.
    """
    identity = x if block.downsample is None else block.downsample(x)
    if isinstance(getattr(block, "conv3", None), nn.Module):
        x = block.act1(block.bn1(block.conv1(x)))
        x = block.aa(block.act2(block.drop_block(block.bn2(block.conv2(x)))))
        x = block.bn3(block.conv3(x))
    else:
        x = block.aa(block.act1(block.drop_block(block.bn1(block.conv1(x)))))
        x = block.bn2(block.conv2(x))
    if block.se is not None:
        x = block.se(x)
    if block.drop_path is not None:
        x = block.drop_path(x)
    return x, identity


def block_width(block: Any) -> int:
    """Channels of a block's output."""
    last = block.conv3 if isinstance(getattr(block, "conv3", None), nn.Module) else block.conv2
    return int(last.out_channels)
