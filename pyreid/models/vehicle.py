"""The vehicle re-ID networks of the EEEM071 coursework report: a small backbone with attention after each stage, fusion
of stages and an embedding head.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyreid.layers.cbam import CBAM
from pyreid.layers.embedding import full_precision, run_widened
from pyreid.layers.heads import Head, make_head
from pyreid.layers.squeeze_excite import SqueezeExcite
from pyreid.models.base import ModelOutput, ReIDModel, check_images
from pyreid.models.config import ModelConfig, check_range
from pyreid.models.registry import register_model
from pyreid.models.timm_backbones import (
    has_stages,
    make_backbone,
    min_image_size,
    run_stage,
    run_stem,
    stage_widths,
    stem_width,
)

Attention = Literal["none", "se", "cbam"]
Fusion = Literal["none", "concat", "add", "global_concat"]
FusionConv = Literal["1x1", "3x3"]

MOBILENET = "mobilenetv3_small_100.lamb_in1k"
RESNET18 = "resnet18.tv_in1k"
RESNET50 = "resnet50.tv_in1k"
SE_RESNEXT50 = "seresnext50_32x4d.racm_in1k"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class VehicleConfig(ModelConfig):
    """Settings of the coursework's networks.

    Attributes:
        backbone: a timm ResNet, without fusion also a DenseNet, and without attention and fusion a MobileNetV3; with
            the tag of the ImageNet weights that ``weights="timm"`` loads.
        attention: what scales the output of each of the four stages: ``"none"``, ``"se"`` (squeeze-and-excitation) or
            ``"cbam"``.
        fusion: ``"concat"`` or ``"add"`` joins stage 3 to stage 4, ``"global_concat"`` joins all stages.
        fusion_conv: how earlier stages come to the width and size of stage 4: ``"1x1"`` by one strided convolution, as
            the text says of stage 3; ``"3x3"``, for ``"global_concat"``, takes the stem's map in place of stage 1 and
            brings it and stage 2 down by 3x3 convolutions of stride 2, as in the authors' code.
        fusion_norm: batch norm after these convolutions, as in the authors' code for ``"add"``.
        head: layers between the pooled features and the classifier, see :func:`~pyreid.layers.make_head`; ``"none"``
            is the report's first baseline, whose embedding is the pooled features.
        embedding_dim: width of the embedding of a head; the report tries 128, 256, 512 and 1024.
        extra_fc: a further fully connected layer at the end of the head.
        classifier_bias: whether the identity classifier has a bias (Sect. 6).
        dropout: probability, for heads that have a dropout.
    """

    backbone: str
    attention: Attention = "none"
    fusion: Fusion = "none"
    fusion_conv: FusionConv = "1x1"
    fusion_norm: bool = False
    head: Head = "fc_bn_relu_dropout_fc"
    embedding_dim: int = 1024
    extra_fc: bool = False
    classifier_bias: bool = True
    dropout: float = 0.5

    def check(self) -> None:
        check_range("dropout", self.dropout, low=0.0, high=1.0, include_high=False)
        if self.embedding_dim < 1:
            raise ValueError(f"embedding_dim: got {self.embedding_dim}, expected 1 or more")
        if self.fusion_conv == "3x3" and self.fusion != "global_concat":
            raise ValueError(f"fusion_conv: got '3x3' with fusion {self.fusion!r}, expected fusion 'global_concat'")
        if self.fusion_norm and self.fusion == "none":
            raise ValueError("fusion_norm: got True with fusion 'none', expected a fusion")
        if self.extra_fc and self.head == "none":
            raise ValueError("extra_fc: got True with head 'none', expected a head")

    def build(self) -> VehicleNet:
        return VehicleNet(self)


@register_model
def cw_mobilenet_v3_small() -> VehicleConfig:
    """Coursework baseline: MobileNetV3-Small with the best embedding head."""
    return VehicleConfig(backbone=MOBILENET)


@register_model
def cw_resnet18() -> VehicleConfig:
    """Coursework: ResNet-18."""
    return VehicleConfig(backbone=RESNET18)


@register_model
def cw_resnet50() -> VehicleConfig:
    """Coursework: ResNet-50, of which the report says that it trains too slowly to be explored."""
    return VehicleConfig(backbone=RESNET50)


@register_model
def cw_se_resnet18() -> VehicleConfig:
    """Coursework: ResNet-18 with squeeze-and-excitation after each stage."""
    return VehicleConfig(backbone=RESNET18, attention="se")


@register_model
def cw_se_resnet18_concat() -> VehicleConfig:
    """Coursework: SE-ResNet-18, stages 3 and 4 concatenated."""
    return VehicleConfig(backbone=RESNET18, attention="se", fusion="concat")


@register_model
def cw_se_resnet18_add() -> VehicleConfig:
    """Coursework: SE-ResNet-18, stages 3 and 4 added."""
    return VehicleConfig(backbone=RESNET18, attention="se", fusion="add")


@register_model
def cw_resnet18_cbam() -> VehicleConfig:
    """Coursework: ResNet-18 with CBAM after each stage."""
    return VehicleConfig(backbone=RESNET18, attention="cbam")


@register_model
def cw_resnet18_cbam_concat() -> VehicleConfig:
    """Coursework: ResNet-18 with CBAM, stages 3 and 4 concatenated."""
    return VehicleConfig(backbone=RESNET18, attention="cbam", fusion="concat")


@register_model
def cw_se_resnet18_gconcat() -> VehicleConfig:
    """Coursework: SE-ResNet-18, all four stages concatenated."""
    return VehicleConfig(backbone=RESNET18, attention="se", fusion="global_concat")


@register_model
def cw_se_resnext50() -> VehicleConfig:
    """Coursework: SE-ResNeXt-50 32x4d, with squeeze-and-excitation in its blocks; the report's best."""
    return VehicleConfig(backbone=SE_RESNEXT50)


class StageFusion(nn.Module):
    """Joins the feature maps of earlier stages to that of the last (coursework, Sect. 3.1).

    Args:
        widths: channels of the four maps.
        kind: ``"concat"`` and ``"add"`` join the third map to the fourth, ``"global_concat"`` joins all.
        conv: ``"1x1"`` brings a map to the last one's width and size by one strided convolution, ``"3x3"`` the first
            two by one 3x3 convolution of stride 2 for each stage in between. The convolutions have no bias.
        norm: batch norm after each convolution.
    """

    def __init__(
        self, widths: Sequence[int], kind: Literal["concat", "add", "global_concat"], *, conv: FusionConv, norm: bool
    ) -> None:
        super().__init__()
        self.kind = kind
        self.first = 0 if kind == "global_concat" else 2
        self.projections = nn.ModuleList(
            _stack(widths[stage:], norm=norm)
            if conv == "3x3" and stage < 2
            else _strided(widths[stage], widths[-1], stride=2 ** (3 - stage), norm=norm)
            for stage in range(self.first, 3)
        )
        self.out_channels = widths[-1] * (1 if kind == "add" else 1 + len(self.projections))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Join maps (N, C_s, H_s, W_s), each half the size of the one before, rounded up, to (N, C, H_4, W_4)."""
        joined = [project(x) for project, x in zip(self.projections, maps[self.first : -1], strict=True)]
        return maps[-1] + joined[0] if self.kind == "add" else torch.cat((*joined, maps[-1]), dim=1)


def _strided(width: int, out: int, *, stride: int, norm: bool) -> nn.Sequential:
    return _with_norm(nn.Conv2d(width, out, 1, stride=stride, bias=False), norm=norm)


def _stack(widths: Sequence[int], *, norm: bool) -> nn.Sequential:
    return nn.Sequential(
        *(
            _with_norm(nn.Conv2d(width, out, 3, stride=2, padding=1, bias=False), norm=norm)
            for width, out in itertools.pairwise(widths)
        )
    )


def _with_norm(conv: nn.Conv2d, *, norm: bool) -> nn.Sequential:
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels)) if norm else nn.Sequential(conv)


class VehicleNet(ReIDModel):
    """A timm backbone with attention after its stages, fusion of stages and an embedding head.

    The head's output is the ``"embedding"`` (N, D), for the triplet loss, the classifier (logits ``"id"``) and, by its
    Euclidean distance, retrieval. A dropout at the end of the head acts on the triplet loss too, as in the authors'
    code.
    """

    config: VehicleConfig

    def __init__(self, config: VehicleConfig) -> None:
        backbone = make_backbone(config.backbone)
        if not has_stages(backbone) and (config.attention, config.fusion) != ("none", "none"):
            raise ValueError(f"backbone: got {config.backbone!r}, expected one with stages for attention or fusion")
        if config.fusion != "none" and min_image_size(backbone) > 1:
            # a DenseNet rounds sizes down between its stages, so that strided convolutions miss its last map's size
            raise ValueError(f"backbone: got {config.backbone!r}, expected a ResNet for fusion")
        width = int(backbone.num_features)
        fusion: StageFusion | None = None
        if config.fusion != "none":
            widths = stage_widths(backbone)
            if config.fusion_conv == "3x3":
                widths = (stem_width(backbone), *widths[1:])
            fusion = StageFusion(widths, config.fusion, conv=config.fusion_conv, norm=config.fusion_norm)
            width = fusion.out_channels
        super().__init__(
            config,
            embedding_dim=width if config.head == "none" else config.embedding_dim,
            default_input_size=(224, 224),
            timm_backbones={"backbone": config.backbone},
        )
        self.min_input_size = (min_image_size(backbone),) * 2
        self.backbone = backbone
        self.attention = nn.ModuleList(
            CBAM(channels) if config.attention == "cbam" else SqueezeExcite(channels)
            for channels in (() if config.attention == "none" else stage_widths(backbone))
        )
        self.fusion = fusion
        self.head = make_head(
            config.head, width, config.embedding_dim, dropout=config.dropout, extra_fc=config.extra_fc
        )
        self.classifier: nn.Linear | None = None
        if config.num_classes:
            self.classifier = nn.Linear(self.embedding_dim, config.num_classes, bias=config.classifier_bias)

    def forward(self, images: Tensor) -> ModelOutput | Tensor:
        """Embed images.

        Args:
            images: (N, 3, H, W) float.

        Returns:
            In training a :class:`ModelOutput`, in evaluation the embedding (N, D), at least float32.
        """
        check_images(images, min_size=self.min_input_size)
        features = full_precision(F.adaptive_avg_pool2d(self.feature_map(images), 1).flatten(1))
        embedding = run_widened(self.head, features)
        if not self.training:
            return embedding
        logits = {} if self.classifier is None else {"id": run_widened(self.classifier, embedding)}
        return ModelOutput({"embedding": embedding}, logits)

    def feature_map(self, images: Tensor) -> Tensor:
        """The map (N, C, h, w) of images (N, 3, H, W) that is averaged: the last stage's, or the fused one."""
        if self.fusion is None and not self.attention:
            x: Tensor = self.backbone(images)
            return x
        x = run_stem(self.backbone, images)
        maps = []
        stem = x
        for stage in range(len(stage_widths(self.backbone))):
            x = run_stage(self.backbone, stage, x)
            if self.attention:
                x = self.attention[stage](x)
            maps.append(x)
        if self.fusion is None:
            return x
        if self.config.fusion_conv == "3x3":
            maps[0] = stem
        fused: Tensor = self.fusion(maps)
        return fused
