"""HA-CNN, a light network with soft and hard attention and two branches, one for the image and one for four regions of
it ("Harmonious Attention Network for Person Re-Identification"; Compact-ReID, Sect. 2).

Compact-ReID is the same network with other blocks, pools and widths: see :mod:`pyreid.models.compact_reid`.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor, nn

from pyreid.layers.conv_block import ConvBlock
from pyreid.layers.embedding import full_precision, run_widened, unit_length
from pyreid.layers.global_pool import Pooling, make_global_pool, pooled_width
from pyreid.layers.harmonious_attention import REDUCTION, REGION_COUNT, HardAttention, HarmoniousAttention
from pyreid.layers.inception_a import InceptionA
from pyreid.layers.inception_b import InceptionB
from pyreid.layers.necks import make_neck
from pyreid.layers.regions import sample_regions
from pyreid.layers.rm_block import ConvBN
from pyreid.layers.shuffle_a import ShuffleA
from pyreid.layers.shuffle_b import ShuffleB
from pyreid.models.base import ModelOutput, ReIDModel, check_images
from pyreid.models.config import ModelConfig
from pyreid.models.registry import register_model

Block = Literal["inception", "shuffle"]
BranchNeck = Literal["none", "bn"]

# Of a region relative to the map it is cut from: a quarter of the height, the full width.
REGION_SCALE = (0.25, 1.0)
SMALLEST_WITH_REGIONS = (32, 16)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HACNNConfig(ModelConfig):
    """Settings of HA-CNN and Compact-ReID; the defaults are HA-CNN's.

    Attributes:
        block: ``"inception"`` (convolutions with bias) or ``"shuffle"`` (without).
        pooling: ``"gem"`` generalised mean, ``"avg"``, ``"max"``, or ``"avg_max"``, both side by side.
        shared_p: one GeM exponent for all channels instead of one for each; the regions share theirs in either case.
        l2_norm: scale the features of each branch to unit length in training too; for retrieval they always are.
        neck: ``"bn"`` puts batch norm between the features and the classifier; retrieval then uses its output.
        learn_regions: False leaves out the hard attention and the branch of the regions.
        stem_width: channels of the first convolution.
        width1: channels of the first stage, a multiple of 16 as the other two.
        width2: channels of the second stage.
        width3: channels of the third stage.
        repeats1: blocks in the first stage that keep size and width, between the one that widens and the one that
            halves the size.
        repeats2: the same for the second stage.
        repeats3: the same for the third stage.
        feat_dim_global: width of the embedding of the image.
        feat_dim_local: width of the embedding of the regions.
        classifier_bias: whether the classifiers have a bias.
        logit_scale: factor on the logits.
    """

    block: Block = "inception"
    pooling: Pooling = "avg"
    shared_p: bool = False
    l2_norm: bool = False
    neck: BranchNeck = "none"
    learn_regions: bool = True
    stem_width: int = 32
    width1: int = 128
    width2: int = 256
    width3: int = 384
    repeats1: int = 0
    repeats2: int = 0
    repeats3: int = 0
    feat_dim_global: int = 512
    feat_dim_local: int = 512
    classifier_bias: bool = True
    logit_scale: float = 1.0

    @property
    def widths(self) -> tuple[int, int, int]:
        """Channels of the three stages."""
        return self.width1, self.width2, self.width3

    @property
    def feat_dims(self) -> dict[str, int]:
        """Width of the embedding of each branch that there is, by the name in :class:`~pyreid.models.ModelOutput`."""
        dims = {"global": self.feat_dim_global}
        return dims | {"local": self.feat_dim_local} if self.learn_regions else dims

    @property
    def repeats(self) -> tuple[int, int, int]:
        """Repeated blocks of the three stages."""
        return self.repeats1, self.repeats2, self.repeats3

    def check(self) -> None:
        for name in ("stem_width", "feat_dim_global", "feat_dim_local"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected a positive number")
        for index, (width, repeats) in enumerate(zip(self.widths, self.repeats, strict=True), 1):
            if width < REDUCTION or width % REDUCTION:
                raise ValueError(f"width{index}: got {width}, expected a positive multiple of {REDUCTION}")
            if repeats < 0:
                raise ValueError(f"repeats{index}: got {repeats}, expected 0 or more")
        if self.logit_scale <= 0:
            raise ValueError(f"logit_scale: got {self.logit_scale}, expected a positive number")

    def build(self) -> HACNN:
        return HACNN(self)


@register_model
def hacnn() -> HACNNConfig:
    """HA-CNN: Inception blocks, soft and hard attention, a branch for the image and one for four regions; 160x64."""
    return HACNNConfig()


def region_sizes(height: int, width: int) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Sizes (h, w) of the regions before each stage, for an image of that size.

    3/20 of the height and 7/16 of the width, rounded; each stage of the branch halves it and rounds up. For 160 x 64
    that is 24 x 28, 12 x 14 and 6 x 7.
    """
    first = ((3 * height + 10) // 20, (7 * width + 8) // 16)
    second = _half(first)
    return first, second, _half(second)


class Branch(nn.Module):
    """From feature maps to features: a pool, a linear layer, batch norm and ReLU, unit length if asked for, and a neck.

    Args:
        config: says which pool and neck, and whether to scale to unit length.
        feat_dim: D, width of the features.
        maps: maps of an image, whose pools are put side by side.
    """

    def __init__(self, config: HACNNConfig, feat_dim: int, *, maps: int = 1) -> None:
        super().__init__()
        self.maps = maps
        self.l2_norm = config.l2_norm
        self.pool = make_global_pool(config.pooling, config.width3, shared_p=config.shared_p)
        self.fc = nn.Sequential(
            nn.Linear(maps * pooled_width(config.pooling, config.width3), feat_dim),
            nn.BatchNorm1d(feat_dim),
            nn.ReLU(inplace=True),
        )
        self.neck = make_neck(config.neck, feat_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, D) before and after the neck, at least float32, from maps (N * maps, C, H, W)."""
        pooled = self.pool(x).unflatten(0, (-1, self.maps)).flatten(1)
        features = full_precision(self.fc(pooled))
        if self.l2_norm:
            features = unit_length(features)
        return features, run_widened(self.neck, features)


class HACNN(ReIDModel):
    """HA-CNN and Compact-ReID.

    A stem and three stages, each of which halves the size and ends in harmonious attention: the soft part gates the map
    for the next stage, the hard part says where the four regions lie that the local branch cuts from the input of the
    stage. The local branch adds the regions of a stage to what it made of those before, in one block per stage that all
    regions share. Both branches end in a pool, a linear layer, batch norm and ReLU.

    In training the output has

    - embeddings ``"global"`` (N, ``feat_dim_global``) and ``"local"`` (N, ``feat_dim_local``), of unit length with
      ``l2_norm``, and ``"embedding"``, the two side by side, each of unit length;
    - logits ``"global"`` and ``"local"`` of the two classifiers.

    Without ``learn_regions`` there is no ``"local"``. In evaluation the output is ``"embedding"``.

    Any size from 32 x 16 on is taken: there the third stage has 4 rows, one for each region, and 2 columns. The regions
    are cut at sizes in proportion to the image, see :func:`region_sizes`. Without regions any size is taken. A batch in
    training needs two images or more, for batch norm.

    Weights start from He's normal distribution, the regions at four fixed places.
    """

    config: HACNNConfig

    def __init__(self, config: HACNNConfig) -> None:
        dims = config.feat_dims
        super().__init__(config, embedding_dim=sum(dims.values()), default_input_size=(160, 64))
        if config.learn_regions:
            self.min_input_size = SMALLEST_WITH_REGIONS

        self.stem = _make_stem(config)
        inputs = (config.stem_width, *config.widths[:-1])
        self.global_stages = nn.ModuleList(
            _make_stage(config.block, *layout) for layout in zip(inputs, config.widths, config.repeats, strict=True)
        )
        self.attention = nn.ModuleList(
            HarmoniousAttention(width, regions=config.learn_regions) for width in config.widths
        )
        self.local_stages = nn.ModuleList()
        if config.learn_regions:
            self.local_stages.extend(
                _halving_block(config.block, *layout) for layout in zip(inputs, config.widths, strict=True)
            )

        self.global_branch = Branch(config, dims["global"])
        self.local_branch = Branch(config, dims["local"], maps=REGION_COUNT) if config.learn_regions else None
        self.classifier: nn.ModuleDict | None = None
        if config.num_classes:
            self.classifier = nn.ModuleDict(
                {
                    _layer_name(name): nn.Linear(dim, config.num_classes, bias=config.classifier_bias)
                    for name, dim in dims.items()
                }
            )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Fresh weights of all convolutions, linear layers and regions."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, HardAttention):
                module.reset_parameters()
        for name, parameter in self.named_parameters():
            if name.startswith("classifier.") and name.endswith(".weight"):
                nn.init.normal_(parameter, std=0.001)

    def forward(self, images: Tensor) -> ModelOutput | Tensor:
        """Embed images.

        Args:
            images: (N, 3, H, W) float, at least 32 x 16.

        Returns:
            In training a :class:`ModelOutput`, in evaluation the embedding (N, D), at least float32.
        """
        check_images(images, min_size=self.min_input_size)
        maps = self.feature_maps(images)
        features, necked = {}, {}
        features["global"], necked["global"] = self.global_branch(maps["global"])
        if self.local_branch is not None:
            features["local"], necked["local"] = self.local_branch(maps["local"])
        embedding = torch.cat([unit_length(x) for x in necked.values()], dim=1)
        if not self.training:
            return embedding
        logits = {}
        if self.classifier is not None:
            logits = {
                name: self.config.logit_scale * run_widened(self.classifier[_layer_name(name)], x)
                for name, x in necked.items()
            }
        return ModelOutput({**features, "embedding": embedding}, logits)

    def feature_maps(self, images: Tensor) -> dict[str, Tensor]:
        """The last feature maps of images (N, 3, H, W).

        Returns:
            ``"global"`` (N, C, h, w), and ``"local"`` (4 N, C, h', w'), the regions of an image one after the other.
        """
        sizes = region_sizes(*images.shape[2:])
        x = self.stem(images)
        local: Tensor | None = None
        for index, (stage, attention) in enumerate(zip(self.global_stages, self.attention, strict=True)):
            before = x
            x, centers = attention(stage(x))
            if centers is not None:
                regions = sample_regions(before, centers, size=sizes[index], scale=REGION_SCALE)
                local = self.local_stages[index](regions if local is None else regions + local)
        return {"global": x} if local is None else {"global": x, "local": local}


def _half(size: tuple[int, int]) -> tuple[int, int]:
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def _make_stem(config: HACNNConfig) -> nn.Module:
    if config.block == "inception":
        return ConvBlock(3, config.stem_width, 3, stride=2)
    return ConvBN(3, config.stem_width, 3, stride=2, activation="relu")


def _make_stage(block: Block, in_channels: int, channels: int, repeats: int) -> nn.Sequential:
    """Blocks that widen (one), keep (``repeats``) and halve the size (one)."""
    layers: list[nn.Module]
    if block == "inception":
        layers = [InceptionA(in_channels, channels), *(InceptionA(channels, channels) for _ in range(repeats))]
    else:
        layers = [ShuffleB(in_channels, channels), *(ShuffleA(channels) for _ in range(repeats))]
    return nn.Sequential(*layers, _halving_block(block, channels, channels))


def _halving_block(block: Block, in_channels: int, channels: int) -> nn.Module:
    if block == "inception":
        return InceptionB(in_channels, channels)
    return ShuffleB(in_channels, channels, stride=2)


def _layer_name(branch: str) -> str:
    """Name of a branch's classifier; ``global`` alone is a keyword, which exported graphs cannot have as a name."""
    return f"{branch}_branch"
