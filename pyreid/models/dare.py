"""DaRe, embeddings of four resolutions from one network, and its baselines, TriNets alone and one after the other
("Resource Aware Person Re-identification across Multiple Resolutions"; "In Defense of the Triplet Loss for Person
Re-Identification").

All are trained by the soft-margin triplet loss on the Euclidean distance, so the embeddings keep their length and there
is no identity classifier; ``num_classes`` adds a linear one for recipes that want cross-entropy besides.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyreid.layers.embedding import full_precision, run_widened
from pyreid.models.base import ModelOutput, ReIDModel, check_images
from pyreid.models.config import ModelConfig
from pyreid.models.registry import register_model
from pyreid.models.timm_backbones import has_stages, make_backbone, min_image_size, run_stage, run_stem, stage_widths

INPUT_SIZE = (256, 128)
STAGES = ("stage1", "stage2", "stage3", "stage4")
FUSION = "embedding"
# What the authors' program charges for the exits, at 256 x 128. Their list is that of Caffe's ResNet-50, which has the
# stride of a bottleneck in the first 1x1 convolution and not in the 3x3.
AUTHOR_COSTS_R50 = (523_568_640, 1_150_094_336, 2_060_915_200, 2_542_295_040)
# The baseline's networks in the order in which they run.
ENSEMBLE = {"resnet18": "resnet18.tv_in1k", "resnet34": "resnet34.tv_in1k", "resnet50": "resnet50.tv_in1k"}


def _check_widths(fc_dim: int, embedding_dim: int) -> None:
    for name, value in (("fc_dim", fc_dim), ("embedding_dim", embedding_dim)):
        if value < 1:
            raise ValueError(f"{name}: got {value}, expected 1 or more")


def _classifier(embedding_dim: int, num_classes: int) -> nn.Linear | None:
    if not num_classes:
        return None
    classifier = nn.Linear(embedding_dim, num_classes, bias=False)
    nn.init.normal_(classifier.weight, std=0.001)
    return classifier


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TriNetConfig(ModelConfig):
    """Settings of a TriNet, and what DaRe shares with it.

    Attributes:
        backbone: a timm network, with the tag of the ImageNet weights that ``weights="timm"`` loads.
        fc_dim: width of the fully connected layer before the embedding. DaRe's text says 1204, its authors' code and
            TriNet 1024.
        embedding_dim: width of the embedding.
    """

    backbone: str
    fc_dim: int = 1024
    embedding_dim: int = 128

    def check(self) -> None:
        _check_widths(self.fc_dim, self.embedding_dim)

    def build(self) -> TriNet:
        return TriNet(self)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DaReConfig(ModelConfig):
    """Settings of DaRe.

    Attributes:
        backbone: a timm ResNet or DenseNet, with the tag of the ImageNet weights that ``weights="timm"`` loads.
        fc_dim: width of the fully connected layer before each embedding. The paper's text says 1204, its authors' code
            1024.
        embedding_dim: width of the embeddings.
        fusion_init: initial weight of every stage in the fusion, for example 0.25 for their mean; None draws the
            weights as PyTorch draws those of a linear layer. Their sign is free: the paper's learned ones are negative.
        deep_supervision: show the embeddings of the stages to the losses, not only their fusion (Sect. 5.2 and Fig. 4).
    """

    early_exits: ClassVar[bool] = True

    backbone: str
    fc_dim: int = 1024
    embedding_dim: int = 128
    fusion_init: float | None = None
    deep_supervision: bool = True

    def check(self) -> None:
        _check_widths(self.fc_dim, self.embedding_dim)

    def build(self) -> DaRe:
        return DaRe(self)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TriNetEnsembleConfig(ModelConfig):
    """Settings of the sequential ensemble of TriNets.

    Attributes:
        fc_dim: width of the fully connected layer before each embedding.
        embedding_dim: width of the embeddings.
    """

    early_exits: ClassVar[bool] = True

    fc_dim: int = 1024
    embedding_dim: int = 128

    def check(self) -> None:
        _check_widths(self.fc_dim, self.embedding_dim)

    def build(self) -> TriNetEnsemble:
        return TriNetEnsemble(self)


@register_model
def dare_r50() -> DaReConfig:
    """DaRe on ResNet-50: an embedding after each of its four stages, and their learned weighted sum."""
    return DaReConfig(backbone="resnet50.tv_in1k")


@register_model
def dare_d201() -> DaReConfig:
    """DaRe on DenseNet-201: an embedding after each of its four dense blocks, and their learned weighted sum."""
    return DaReConfig(backbone="densenet201.tv_in1k")


@register_model
def trinet_r18() -> TriNetConfig:
    """TriNet on ResNet-18: one embedding, after the last stage; the first of DaRe's sequential baseline."""
    return TriNetConfig(backbone="resnet18.tv_in1k")


@register_model
def trinet_r34() -> TriNetConfig:
    """TriNet on ResNet-34: one embedding, after the last stage; the second of DaRe's sequential baseline."""
    return TriNetConfig(backbone="resnet34.tv_in1k")


@register_model
def trinet_r50() -> TriNetConfig:
    """TriNet on ResNet-50: one embedding, after the last stage; DaRe without its stages."""
    return TriNetConfig(backbone="resnet50.tv_in1k")


@register_model
def trinet_ensemble() -> TriNetEnsembleConfig:
    """TriNets on ResNet-18, 34 and 50 one after the other, DaRe's "sequential ensemble", to stop at any time."""
    return TriNetEnsembleConfig()


class EmbeddingHead(nn.Module):
    """Average pooling and two fully connected layers, the first with batch norm and ReLU (DaRe, Sect. 3.1).

    Args:
        channels: C, width of the feature map.
        fc_dim: width of the first layer.
        embedding_dim: D, width of the second.
        activate: the map is the sum of a DenseNet's convolutions: normalise and rectify it first.
    """

    def __init__(self, channels: int, *, fc_dim: int, embedding_dim: int, activate: bool = False) -> None:
        super().__init__()
        self.norm = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU()) if activate else nn.Identity()
        self.fc1 = nn.Linear(channels, fc_dim)
        self.bn = nn.BatchNorm1d(fc_dim)
        self.fc2 = nn.Linear(fc_dim, embedding_dim)

    def forward(self, x: Tensor) -> Tensor:
        """The embedding (N, D), at least float32, of a feature map (N, C, H, W)."""
        x = F.adaptive_avg_pool2d(self.norm(x), 1).flatten(1)
        return full_precision(self.fc2(F.relu(self.bn(self.fc1(x)))))


class DaRe(ReIDModel):
    """Deep anytime re-ID on a ResNet or DenseNet.

    ``"stage1"`` to ``"stage4"`` and ``"embedding"``, their weighted sum (eq. 1), are (N, D). The exits of
    :meth:`stages` are the first three stages and the fusion, which needs the whole network.
    """

    config: DaReConfig

    def __init__(self, config: DaReConfig) -> None:
        backbone = make_backbone(config.backbone)
        if not has_stages(backbone):
            raise ValueError(
                f"backbone: got {config.backbone!r}, expected a ResNet or DenseNet, which have four stages"
            )
        super().__init__(
            config,
            embedding_dim=config.embedding_dim,
            default_input_size=INPUT_SIZE,
            timm_backbones={"backbone": config.backbone},
            exit_names=(*STAGES[:-1], FUSION),
        )
        self.min_input_size = (min_image_size(backbone),) * 2
        if config.backbone.partition(".")[0] == "resnet50":
            self.author_costs = {INPUT_SIZE: AUTHOR_COSTS_R50}
        self.backbone = backbone
        is_dense = hasattr(backbone, "features")
        self.heads = nn.ModuleList(
            EmbeddingHead(
                width,
                fc_dim=config.fc_dim,
                embedding_dim=config.embedding_dim,
                activate=is_dense and name != STAGES[-1],
            )
            for name, width in zip(STAGES, stage_widths(backbone), strict=True)
        )
        self.fusion_weight = nn.Parameter(torch.empty(len(STAGES)))
        if config.fusion_init is None:
            bound = len(STAGES) ** -0.5  # of a linear layer or 1x1 convolution from four channels to one
            nn.init.uniform_(self.fusion_weight, -bound, bound)
        else:
            nn.init.constant_(self.fusion_weight, config.fusion_init)
        self.classifier = _classifier(config.embedding_dim, config.num_classes)

    def forward(self, images: Tensor) -> ModelOutput | Tensor:
        """Embed images.

        Args:
            images: (N, 3, H, W) float.

        Returns:
            In training a :class:`ModelOutput`, without the stages if ``deep_supervision`` is off; in evaluation the
            fused embedding (N, D), at least float32.
        """
        embeddings = self.embed_stages(images)
        embedding = embeddings[FUSION]
        if not self.training:
            return embedding
        logits = {} if self.classifier is None else {"id": run_widened(self.classifier, embedding)}
        return ModelOutput(embeddings if self.config.deep_supervision else {FUSION: embedding}, logits)

    def embed_stages(self, images: Tensor) -> dict[str, Tensor]:
        """The embeddings (N, D) of all four stages and their fusion, in either mode."""
        check_images(images, min_size=self.min_input_size)
        embeddings = []
        x = run_stem(self.backbone, images)
        for stage, head in enumerate(self.heads):
            x = run_stage(self.backbone, stage, x)
            embeddings.append(head(x))
        return {**dict(zip(STAGES, embeddings, strict=True)), FUSION: self._fuse(embeddings)}

    def _fuse(self, embeddings: Sequence[Tensor]) -> Tensor:
        # Element by element, because autocast would round the terms of a matrix product to half precision.
        return (torch.stack(list(embeddings), dim=2) * self.fusion_weight).sum(dim=2)

    def _run_exits(self, images: Tensor) -> Iterator[Tensor]:
        embeddings = []
        x = run_stem(self.backbone, images)
        for stage, head in enumerate(self.heads):
            x = run_stage(self.backbone, stage, x)
            embeddings.append(head(x))
            yield embeddings[-1] if stage + 1 < len(STAGES) else self._fuse(embeddings)

    def _run_to_exit(self, images: Tensor, name: str) -> Tensor:
        if name not in STAGES[:-1]:
            return super()._run_to_exit(images, name)
        last = STAGES.index(name)
        x = run_stem(self.backbone, images)
        for stage in range(last + 1):
            x = run_stage(self.backbone, stage, x)
        embedding: Tensor = self.heads[last](x)
        return embedding


class TriNet(ReIDModel):
    """One embedding after the last stage: the same head and loss as DaRe's, without its stages."""

    config: TriNetConfig

    def __init__(self, config: TriNetConfig) -> None:
        super().__init__(
            config,
            embedding_dim=config.embedding_dim,
            default_input_size=INPUT_SIZE,
            timm_backbones={"backbone": config.backbone},
        )
        self.backbone = make_backbone(config.backbone)
        self.min_input_size = (min_image_size(self.backbone),) * 2
        self.head = EmbeddingHead(
            int(self.backbone.num_features), fc_dim=config.fc_dim, embedding_dim=config.embedding_dim
        )
        self.classifier = _classifier(config.embedding_dim, config.num_classes)

    def forward(self, images: Tensor) -> ModelOutput | Tensor:
        """Embed images.

        Args:
            images: (N, 3, H, W) float.

        Returns:
            In training a :class:`ModelOutput`, in evaluation the embedding (N, D), at least float32.
        """
        embedding = self.embed(images)
        if not self.training:
            return embedding
        return ModelOutput(
            {"embedding": embedding}, {} if self.classifier is None else {"id": run_widened(self.classifier, embedding)}
        )

    def embed(self, images: Tensor) -> Tensor:
        """The embedding (N, D), in either mode."""
        check_images(images, min_size=self.min_input_size)
        embedding: Tensor = self.head(self.backbone(images))
        return embedding


class TriNetEnsemble(ReIDModel):
    """TriNets of growing size, run one after the other; the latest result counts (DaRe, Sect. 5.3.1).

    The embeddings are ``"resnet18"``, ``"resnet34"`` and, from ResNet-50, ``"embedding"``, each (N, D) and each an exit
    of :meth:`stages`. The networks share nothing, so an exit costs all networks up to it. The paper trains them
    separately: ``load_weights(ensemble.nets["resnet18"], path)`` takes a trained ``trinet_r18``.
    """

    config: TriNetEnsembleConfig

    def __init__(self, config: TriNetEnsembleConfig) -> None:
        super().__init__(
            config,
            embedding_dim=config.embedding_dim,
            default_input_size=INPUT_SIZE,
            timm_backbones={f"nets.{name}.backbone": backbone for name, backbone in ENSEMBLE.items()},
            exit_names=(*tuple(ENSEMBLE)[:-1], "embedding"),
        )
        self.nets = nn.ModuleDict(
            {
                name: TriNet(TriNetConfig(backbone=backbone, fc_dim=config.fc_dim, embedding_dim=config.embedding_dim))
                for name, backbone in ENSEMBLE.items()
            }
        )
        self.classifier = _classifier(config.embedding_dim, config.num_classes)

    def forward(self, images: Tensor) -> ModelOutput | Tensor:
        """Embed images by all three networks.

        Args:
            images: (N, 3, H, W) float.

        Returns:
            In training a :class:`ModelOutput`, in evaluation the last network's embedding (N, D), at least float32.
        """
        embeddings = dict(zip(self.exit_names, self._run_exits(images), strict=True))
        embedding = embeddings["embedding"]
        if not self.training:
            return embedding
        return ModelOutput(
            embeddings, {} if self.classifier is None else {"id": run_widened(self.classifier, embedding)}
        )

    def _run_exits(self, images: Tensor) -> Iterator[Tensor]:
        for net in self.nets.values():
            assert isinstance(net, TriNet)
            yield net.embed(images)
