"""The convolution block of HA-CNN ("Harmonious Attention Network for Person Re-Identification")."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


class ConvBlock(nn.Sequential):
    """Convolution with a bias, padded to keep the size at stride 1, batch norm and ReLU.

    The bias has no effect in training, where batch norm takes it away again; it is there because HA-CNN's published
    size counts it.
    """

    conv: nn.Conv2d
    bn: nn.BatchNorm2d

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1) -> None:
        conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2)
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv=conv, bn=nn.BatchNorm2d(out_channels), act=nn.ReLU(inplace=True)
        )
        super().__init__(layers)
