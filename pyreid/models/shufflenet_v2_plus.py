"""ShuffleNetV2+ Small, Medium and Large (Ma et al., "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture
Design", and its authors' stronger version with hard swish and squeeze-and-excitation).
"""

from __future__ import annotations

import dataclasses

import torch.nn.functional as F
from torch import Tensor, nn

from pyreid.layers.necks import Neck
from pyreid.layers.split_unit import unit_excite
from pyreid.models.base import ModelOutput, check_images
from pyreid.models.config import ModelConfig, check_range
from pyreid.models.necked import NeckedModel
from pyreid.models.registry import register_model
from pyreid.models.shufflenet_trunk import OUT_CHANNELS, ShuffleNetSize, ShuffleNetV2PlusTrunk, start_from_he


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ShuffleNetV2PlusConfig(ModelConfig):
    """Settings of ShuffleNetV2+; the defaults are the original network.

    Attributes:
        size: ``"small"``, ``"medium"`` or ``"large"``.
        last_se: squeeze-and-excitation on the pooled features.
        fc: a fully connected layer, 1280 to 1280 with hard swish, before the embedding.
        dropout: probability of zeroing an entry of the embedding before the classifier.
        neck: normalisation before the classifier, see :func:`~pyreid.layers.make_neck`; the original has none.
    """

    size: ShuffleNetSize
    last_se: bool = True
    fc: bool = True
    dropout: float = 0.2
    neck: Neck = "none"

    def check(self) -> None:
        check_range("dropout", self.dropout, low=0.0, high=1.0, include_high=False)

    def build(self) -> ShuffleNetV2Plus:
        return ShuffleNetV2Plus(self)


@register_model
def shufflenet_v2_plus_small() -> ShuffleNetV2PlusConfig:
    """ShuffleNetV2+ Small: stages of 36 to 416 channels, 1280-d embedding."""
    return ShuffleNetV2PlusConfig(size="small")


@register_model
def shufflenet_v2_plus_medium() -> ShuffleNetV2PlusConfig:
    """ShuffleNetV2+ Medium: stages of 48 to 512 channels, 1280-d embedding."""
    return ShuffleNetV2PlusConfig(size="medium")


@register_model
def shufflenet_v2_plus_large() -> ShuffleNetV2PlusConfig:
    """ShuffleNetV2+ Large: stages of 68 to 672 channels, 1280-d embedding."""
    return ShuffleNetV2PlusConfig(size="large")


class ShuffleNetV2Plus(NeckedModel):
    """ShuffleNetV2+ whose embedding (N, 1280) is what the original classifies.

    Trunk, average pool, squeeze-and-excitation, fully connected layer; ``num_classes`` adds the bias-free classifier.
    Training needs two images at least, because batch norms see one pixel per image.
    """

    config: ShuffleNetV2PlusConfig

    def __init__(self, config: ShuffleNetV2PlusConfig) -> None:
        super().__init__(config, embedding_dim=OUT_CHANNELS, default_input_size=(224, 224))
        self.backbone = ShuffleNetV2PlusTrunk(config.size)
        self.last_se: nn.Module = unit_excite(OUT_CHANNELS) if config.last_se else nn.Identity()
        self.fc: nn.Module = nn.Identity()
        if config.fc:
            self.fc = nn.Sequential(nn.Linear(OUT_CHANNELS, OUT_CHANNELS, bias=False), nn.Hardswish())
        start_from_he(self.last_se)
        start_from_he(self.fc)
        self.add_head(config.neck, dropout=config.dropout)

    def forward(self, images: Tensor) -> ModelOutput | Tensor:
        """Embed images.

        Args:
            images: (N, 3, H, W) float.

        Returns:
            In training a :class:`ModelOutput`, in evaluation the embedding (N, 1280), at least float32.
        """
        check_images(images)
        pooled = F.adaptive_avg_pool2d(self.backbone(images), 1)
        return self.head(self.fc(self.last_se(pooled).flatten(1)))
