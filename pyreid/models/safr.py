"""SAFR: a ResNet with global attention after its first convolution, DBAM in its blocks and a layer-norm neck
("Small, Accurate, and Fast Vehicle Re-ID on the Edge: the SAFR Approach").

The paper's text and its authors' code differ. ``preset="paper"`` reads the text and meets its model sizes: depthwise
attention and binary masks. ``preset="author"`` is the released code: full convolutions, soft masks, ratio 16, DBAM in
the first block only. Every choice is also an override of its own.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

from torch import Tensor, nn

from pyreid.layers.channel_mask import MaskMode
from pyreid.layers.dbam import DBAM
from pyreid.layers.gem import GeM
from pyreid.layers.global_attention import AttentionConv, GlobalAttention
from pyreid.layers.necks import Neck
from pyreid.models.base import ModelOutput, check_images
from pyreid.models.config import ModelConfig
from pyreid.models.necked import NeckedModel
from pyreid.models.registry import register_model
from pyreid.models.timm_resnet import STAGES, block_width, make_resnet, residual_branch

Where = Literal["none", "first", "stage_first", "all"]
SAFRPooling = Literal["avg", "gem"]
Preset = Literal["paper", "author"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SAFRConfig(ModelConfig):
    """Settings of the SAFR family on ResNets.

    Attributes:
        backbone: a timm ResNet, with the tag of the ImageNet weights that ``weights="timm"`` loads.
        global_attention: gate the output of the first convolution.
        where: blocks with DBAM: ``"none"``, ``"first"`` the very first, ``"stage_first"`` the first of each of the four
            stages, ``"all"``.
        conv: convolutions of both attentions, ``"depthwise"`` or ``"full"``.
        mask: channel mask of DBAM, see :class:`~pyreid.layers.ChannelMask`.
        ratio: reduction of the mask's MLP.
        pooling: of the last feature map: ``"avg"``, which SAFR has, or ``"gem"`` with an exponent for each channel.
        neck: normalisation before the classifier, see :func:`~pyreid.layers.make_neck`.
    """

    backbone: str
    global_attention: bool = True
    where: Where = "first"
    conv: AttentionConv = "depthwise"
    mask: MaskMode = "ste"
    ratio: int = 8
    pooling: SAFRPooling = "avg"
    neck: Neck = "ln"

    def check(self) -> None:
        if self.ratio < 1:
            raise ValueError(f"ratio: got {self.ratio}, expected 1 or more")

    def build(self) -> SAFR:
        return SAFR(self)


def _attentive(backbone: str, *, where: Where, preset: Preset) -> SAFRConfig:
    if preset not in get_args(Preset):
        raise ValueError(f"preset: got {preset!r}, expected 'paper' or 'author'")
    if preset == "author":
        return SAFRConfig(backbone=backbone, where="first", conv="full", mask="soft", ratio=16)
    return SAFRConfig(backbone=backbone, where=where)


@register_model
def safr_baseline() -> SAFRConfig:
    """SAFR baseline: ResNet-50 without attention, average pooling, layer-norm neck."""
    return SAFRConfig(backbone="resnet50.tv_in1k", global_attention=False, where="none")


@register_model
def safr_large(preset: Preset = "paper") -> SAFRConfig:
    """SAFR-Large: ResNet-50, global attention, DBAM in all 16 blocks."""
    return _attentive("resnet50.tv_in1k", where="all", preset=preset)


@register_model
def safr_medium(preset: Preset = "paper") -> SAFRConfig:
    """SAFR-Medium: ResNet-34, global attention, DBAM in the first block."""
    return _attentive("resnet34.tv_in1k", where="first", preset=preset)


@register_model
def safr_small(preset: Preset = "paper") -> SAFRConfig:
    """SAFR-Small: ResNet-18, global attention, DBAM in the first block."""
    return _attentive("resnet18.tv_in1k", where="first", preset=preset)


class SAFR(NeckedModel):
    """SAFR on a timm ResNet.

    The pooled last feature map is ``"features"`` (N, D), for the triplet and center losses; the neck makes it
    the ``"embedding"`` (N, D), which the bias-free classifier (logits ``"id"``) and retrieval use.

    ``backbone`` is timm's module with timm's parameter names; the attention modules lie beside it, so that ImageNet
    weights fit as they are.
    """

    config: SAFRConfig

    def __init__(self, config: SAFRConfig) -> None:
        backbone = make_resnet(config.backbone)
        super().__init__(
            config,
            embedding_dim=int(backbone.num_features),
            default_input_size=(350, 350),
            timm_backbones={"backbone": config.backbone},
        )
        self.backbone = backbone
        self.global_attention: nn.Module = nn.Identity()
        if config.global_attention:
            self.global_attention = GlobalAttention(int(backbone.feature_info[0]["num_chs"]), conv=config.conv)
        self.dbam = nn.ModuleDict()
        for stage in STAGES:
            for index, block in enumerate(getattr(backbone, stage)):
                if _has_dbam(config.where, stage, index):
                    self.dbam[_dbam_name(stage, index)] = DBAM(
                        block_width(block), conv=config.conv, mask=config.mask, ratio=config.ratio
                    )
        self.pool: nn.Module = nn.AdaptiveAvgPool2d(1)
        if config.pooling == "gem":
            self.pool = GeM(self.embedding_dim)
        self.add_head(config.neck)

    def forward(self, images: Tensor) -> ModelOutput | Tensor:
        """Embed images.

        Args:
            images: (N, 3, H, W) float.

        Returns:
            In training a :class:`ModelOutput`, in evaluation the embedding (N, D), at least float32.
        """
        check_images(images)
        return self.head(self.pool(self.feature_map(images)).flatten(1))

    def feature_map(self, images: Tensor) -> Tensor:
        """The last feature map (N, D, h, w) of images (N, 3, H, W)."""
        backbone = self.backbone
        # The gate comes before batch norm and activation, as in the authors' code.
        x = backbone.act1(backbone.bn1(self.global_attention(backbone.conv1(images))))
        x = backbone.maxpool(x)
        for stage in STAGES:
            for index, block in enumerate(getattr(backbone, stage)):
                name = _dbam_name(stage, index)
                x = self.dbam[name](*residual_branch(block, x)) if name in self.dbam else block(x)
        return x


def _has_dbam(where: Where, stage: str, index: int) -> bool:
    if where == "first":
        return stage == STAGES[0] and index == 0
    return where == "all" or (where == "stage_first" and index == 0)


def _dbam_name(stage: str, index: int) -> str:
    return f"{stage}_{index}"
