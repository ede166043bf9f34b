"""SAFR-Micro: SAFR on ShuffleNetV2+ Small ("Small, Accurate, and Fast Vehicle Re-ID on the Edge: the SAFR Approach").

``preset="paper"`` has the Shuffle-Xception unit that the text adds, and depthwise attention with binary masks;
``preset="author"`` is the released code: no added unit, full convolutions, soft masks, ratio 16.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyreid.layers.channel_mask import MaskMode
from pyreid.layers.dbam import DBAM
from pyreid.layers.global_attention import AttentionConv, GlobalAttention
from pyreid.layers.necks import Neck
from pyreid.layers.shuffle_xception import ShuffleXception
from pyreid.layers.split_unit import unit_excite
from pyreid.models.base import ModelOutput, check_images
from pyreid.models.config import ModelConfig, check_range
from pyreid.models.necked import NeckedModel
from pyreid.models.registry import register_model
from pyreid.models.safr import Preset
from pyreid.models.shufflenet_trunk import (
    OUT_CHANNELS,
    STAGE_CHANNELS,
    STEM_CHANNELS,
    ShuffleNetV2PlusTrunk,
    start_from_he,
)

MicroWhere = Literal["none", "first"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SAFRMicroConfig(ModelConfig):
    """Settings of SAFR-Micro.

    Attributes:
        global_attention: gate the output of the stem.
        where: ``"first"`` puts DBAM after the first unit of the first stage, ``"none"`` leaves it out.
        conv: convolutions of both attentions, ``"depthwise"`` or ``"full"``.
        mask: channel mask of DBAM, see :class:`~pyreid.layers.ChannelMask`.
        ratio: reduction of the mask's MLP, at most 36.
        extra_xception: a Shuffle-Xception unit after DBAM.
        last_se: ShuffleNetV2+'s squeeze-and-excitation on the pooled features, which SAFR removes.
        dropout: probability of zeroing an entry of the embedding before the classifier; ShuffleNetV2+ has 0.2.
        neck: normalisation before the classifier, see :func:`~pyreid.layers.make_neck`.
    """

    global_attention: bool = True
    where: MicroWhere = "first"
    conv: AttentionConv = "depthwise"
    mask: MaskMode = "ste"
    ratio: int = 8
    extra_xception: bool = True
    last_se: bool = False
    dropout: float = 0.0
    neck: Neck = "ln"

    def check(self) -> None:
        if self.ratio < 1:
            raise ValueError(f"ratio: got {self.ratio}, expected 1 or more")
        check_range("dropout", self.dropout, low=0.0, high=1.0, include_high=False)

    def build(self) -> SAFRMicro:
        return SAFRMicro(self)


@register_model
def safr_micro(preset: Preset = "paper") -> SAFRMicroConfig:
    """SAFR-Micro: ShuffleNetV2+ Small without its head, global attention, DBAM after the first unit."""
    if preset not in get_args(Preset):
        raise ValueError(f"preset: got {preset!r}, expected 'paper' or 'author'")
    if preset == "author":
        return SAFRMicroConfig(conv="full", mask="soft", ratio=16, extra_xception=False)
    return SAFRMicroConfig()


class SAFRMicro(NeckedModel):
    """SAFR on ShuffleNetV2+ Small (SAFR, Sect. 4.3).

    The average of the last feature map is ``"features"`` (N, 1280); the neck makes it the ``"embedding"`` (N, 1280).
    ``backbone`` is the trunk of ``shufflenet_v2_plus_small`` with its parameter names; what SAFR adds lies beside it.
    So ``load_weights(model.backbone, path)`` takes the weights of such a trunk as they are.
    """

    config: SAFRMicroConfig

    def __init__(self, config: SAFRMicroConfig) -> None:
        super().__init__(config, embedding_dim=OUT_CHANNELS, default_input_size=(224, 224))
        width = STAGE_CHANNELS["small"][0]
        self.backbone = ShuffleNetV2PlusTrunk("small")
        self.global_attention: nn.Module = nn.Identity()
        if config.global_attention:
            self.global_attention = GlobalAttention(STEM_CHANNELS, conv=config.conv)
        self.dbam: DBAM | None = None
        if config.where == "first":
            self.dbam = DBAM(width, conv=config.conv, mask=config.mask, ratio=config.ratio)
        self.extra_xception: nn.Module = ShuffleXception(width, width) if config.extra_xception else nn.Identity()
        self.last_se: nn.Module = unit_excite(OUT_CHANNELS) if config.last_se else nn.Identity()
        start_from_he(self.extra_xception)
        start_from_he(self.last_se)
        self.add_head(config.neck, dropout=config.dropout)

    def forward(self, images: Tensor) -> ModelOutput | Tensor:
        """Embed images.

        Args:
            images: (N, 3, H, W) float.

        Returns:
            In training a :class:`ModelOutput`, in evaluation the embedding (N, 1280), at least float32.
        """
        check_images(images)
        pooled = F.adaptive_avg_pool2d(self.feature_map(images), 1)
        return self.head(self.last_se(pooled).flatten(1))

    def feature_map(self, images: Tensor) -> Tensor:
        """The last feature map (N, 1280, h, w) of images (N, 3, H, W)."""
        backbone = self.backbone
        x = backbone.units[0](self.global_attention(backbone.stem(images)))
        if self.dbam is not None:
            # The unit has no residual sum to take apart, so its output is both the local and the global source. It ends
            # in ReLUs, so relu(x + 0) is x itself, and where x is 0 no gradient gets past those ReLUs in either form.
            x = self.dbam(x, torch.zeros_like(x))
        x = self.extra_xception(x)
        return backbone.last(backbone.units[1:](x))
