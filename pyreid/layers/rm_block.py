"""The RM-block, the residual bottleneck of RMNet (RMNet, Sect. III and Fig. 2)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal, get_args

from torch import Tensor, nn

from pyreid.layers.checks import check_map, check_width

Activation = Literal["elu", "relu"]


def make_activation(name: Activation) -> nn.Module:
    """A fresh in-place ELU or ReLU.

    Raises:
        ValueError: another name.
    """
    if name not in get_args(Activation):
        raise ValueError(f"activation: got {name!r}, expected one of {', '.join(map(repr, get_args(Activation)))}")
    return nn.ELU(inplace=True) if name == "elu" else nn.ReLU(inplace=True)


class ConvBN(nn.Sequential):
    """Bias-free convolution, padded to keep the size at stride 1, batch norm and, if asked for, an activation."""

    conv: nn.Conv2d
    bn: nn.BatchNorm2d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        activation: Activation | None = None,
    ) -> None:
        conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2, groups=groups, bias=False
        )
        layers: OrderedDict[str, nn.Module] = OrderedDict(conv=conv, bn=nn.BatchNorm2d(out_channels))
        if activation is not None:
            layers["act"] = make_activation(activation)
        super().__init__(layers)


class RMBlock(nn.Module):
    """1x1 reduce, depthwise 3x3, 1x1 expand, dropout, plus the skip, then the activation.

    The bottleneck has ``out_channels / 4`` channels. At stride 2 the skip is a 2x2 max-pool and a 1x1 projection; the
    pool rounds up, as the padded convolution of the branch does, so that odd sizes work.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output, a multiple of 4; equal to ``in_channels`` at stride 1.
        stride: 1 or 2.
        activation: ``"elu"`` (the paper's) or ``"relu"``.
        dropout: probability of zeroing an element of the residual branch in training, in [0, 1).

    Raises:
        ValueError: an option does not fit; in the forward pass a map of another shape.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, activation: Activation, dropout: float
    ) -> None:
        super().__init__()
        check_width("in_channels", in_channels)
        if out_channels < 4 or out_channels % 4:
            raise ValueError(f"out_channels: got {out_channels}, expected a positive multiple of 4")
        if stride not in (1, 2):
            raise ValueError(f"stride: got {stride}, expected 1 or 2")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout: got {dropout}, expected a value in [0, 1)")
        if stride == 1 and in_channels != out_channels:
            raise ValueError(f"out_channels: got {out_channels}, expected {in_channels} at stride 1")
        inner = out_channels // 4
        self.reduce = ConvBN(in_channels, inner, 1, activation=activation)
        self.spatial = ConvBN(inner, inner, 3, stride=stride, groups=inner, activation=activation)
        self.expand = ConvBN(inner, out_channels, 1)
        self.dropout = nn.Dropout(dropout)
        self.skip: nn.Module = nn.Identity()
        if stride == 2:
            pool = nn.MaxPool2d(2, stride=2, ceil_mode=True)
            self.skip = nn.Sequential(pool, ConvBN(in_channels, out_channels, 1))
        self.act = make_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """From (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        check_map(x, self.reduce.conv.in_channels)
        branch = self.dropout(self.expand(self.spatial(self.reduce(x))))
        return self.act(branch + self.skip(x))
