"""RMNet: more than a hundred light residual layers, 0.81 M parameters ("Fast and Accurate Person Re-Identification with
RMNet"). One network serves both models of the paper: "light" is 160 x 64 input, "strong" 384 x 128.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor, nn

from pyreid.layers.embedding import CosineClassifier, run_widened, unit_length
from pyreid.layers.rm_block import Activation, ConvBN, RMBlock
from pyreid.models.base import ModelOutput, ReIDModel, check_images
from pyreid.models.config import ModelConfig, check_range
from pyreid.models.registry import register_model

Calibration = Literal["conv", "diag", "none"]

# (channels, number of stride-1 blocks after the block that brings the width to these channels): RMNet, Table 1
STAGES = ((32, 4), (64, 8), (128, 10), (256, 11))
HIDDEN_DIM = 512


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RMNetConfig(ModelConfig):
    """Settings of RMNet.

    Attributes:
        input_bn: batch norm on the three input channels.
        activation: ``"elu"`` or ``"relu"`` (RMNet, Fig. 4 compares them).
        dropout: probability in the residual branches; the paper switches it off late in training, see
            :meth:`RMNet.set_dropout`.
        calibration: the last layer, from the local to the global embedding: ``"conv"`` a full matrix, ``"diag"`` a
            factor per channel, ``"none"`` leaves it out (the deployed models have none, the paper's sizes count
            none).
        logit_scale: factor on the cosine similarities, s of AM-Softmax.
    """

    input_bn: bool = True
    activation: Activation = "elu"
    dropout: float = 0.1
    calibration: Calibration = "conv"
    logit_scale: float = 30.0

    def check(self) -> None:
        check_range("dropout", self.dropout, low=0.0, high=1.0, include_high=False)
        if self.logit_scale <= 0:
            raise ValueError(f"logit_scale: got {self.logit_scale}, expected a positive number")

    def build(self) -> RMNet:
        return RMNet(self)


@register_model
def rmnet() -> RMNetConfig:
    """RMNet: 112 light convolutions, local and calibrated global embedding; 160x64 ("light") or 384x128 ("strong")."""
    return RMNetConfig()


class ChannelScale(nn.Module):
    """A learned factor per channel, 1 at first: a diagonal matrix on (N, D)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class RMNet(ReIDModel):
    """RMNet with its two-step head.

    Global max-pool, 1x1 to 512, 1x1 to 256 gives the local-structure embedding; the calibration layer turns its unit
    vector into the global embedding, again of unit length. Training returns embeddings ``"local"`` and ``"embedding"``,
    both (N, 256) of unit length, and logits ``"id"``, ``logit_scale`` times the cosine to each identity's weight.

    Weights start orthogonal in the first 1x1 of each bottleneck and from He's normal distribution elsewhere.
    """

    config: RMNetConfig

    def __init__(self, config: RMNetConfig) -> None:
        width = STAGES[-1][0]
        super().__init__(config, embedding_dim=width, default_input_size=(160, 64))
        self.input_bn = nn.BatchNorm2d(3) if config.input_bn else nn.Identity()
        self.stem = ConvBN(3, STAGES[0][0], 3, stride=2, activation=config.activation)
        self.blocks = nn.Sequential(*_make_blocks(config))
        self.head = nn.Sequential(
            ConvBN(width, HIDDEN_DIM, 1, activation=config.activation), ConvBN(HIDDEN_DIM, width, 1)
        )
        self.calibration: nn.Module = nn.Identity()
        if config.calibration == "conv":
            self.calibration = nn.Linear(width, width, bias=False)
        elif config.calibration == "diag":
            self.calibration = ChannelScale(width)
        self.classifier: CosineClassifier | None = None
        if config.num_classes:
            self.classifier = CosineClassifier(width, config.num_classes, scale=config.logit_scale)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Fresh convolution weights, as the paper starts them (RMNet, Sect. V)."""
        first_of_bottleneck = {id(block.reduce.conv) for block in self.blocks if isinstance(block, RMBlock)}
        for module in self.modules():
            if not isinstance(module, nn.Conv2d | nn.Linear):
                continue
            if id(module) in first_of_bottleneck:
                nn.init.orthogonal_(module.weight)
            else:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def set_dropout(self, probability: float) -> None:
        """Set the dropout of every block; 0 switches it off, as the paper does in the late phase of training.

        Args:
            probability: in [0, 1).

        Raises:
            ValueError: the probability is outside [0, 1).
        """
        check_range("probability", probability, low=0.0, high=1.0, include_high=False)
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = float(probability)

    def forward(self, images: Tensor) -> ModelOutput | Tensor:
        """Embed images.

        Args:
            images: (N, 3, H, W) float.

        Returns:
            In training a :class:`ModelOutput`, in evaluation the unit embedding (N, 256), at least float32.
        """
        check_images(images)
        x = self.blocks(self.stem(self.input_bn(images)))
        # amax, because the backward pass of adaptive_max_pool2d is not deterministic on CUDA
        x = self.head(x.amax(dim=(2, 3), keepdim=True))
        local = unit_length(x.flatten(1))
        embedding = local if self.config.calibration == "none" else unit_length(run_widened(self.calibration, local))
        if not self.training:
            return embedding
        logits = {} if self.classifier is None else {"id": self.classifier(embedding)}
        return ModelOutput({"local": local, "embedding": embedding}, logits)


def _make_blocks(config: RMNetConfig) -> list[RMBlock]:
    blocks: list[RMBlock] = []
    previous = STAGES[0][0]
    for channels, repeats in STAGES:
        if channels != previous:
            blocks.append(RMBlock(previous, channels, stride=2, activation=config.activation, dropout=config.dropout))
        blocks += [
            RMBlock(channels, channels, activation=config.activation, dropout=config.dropout) for _ in range(repeats)
        ]
        previous = channels
    return blocks
