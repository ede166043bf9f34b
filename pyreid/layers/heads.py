"""Embedding heads between the pooled features and the identity classifier (coursework, Sect. 6 and Table 9)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal, get_args

from torch import nn

Head = Literal[
    "none",
    "vanilla",
    "fc_relu_dropout_bn_fc",
    "fc_relu_bn_fc",
    "fc_bn_relu_dropout_fc",
    "fc_bn_relu_fc",
    "fc_bn_fc",
]


def make_head(kind: Head, in_dim: int, dim: int, *, dropout: float = 0.5, extra_fc: bool = False) -> nn.Sequential:
    """A fresh head from features (N, in_dim) to the embedding (N, dim), which the losses, the classifier and retrieval
    see.

    A design's name lists its layers. The first ``fc`` maps to ``dim``; the last is the identity classifier, as in the
    authors' code, and so no part of the head, unless ``extra_fc`` makes it a layer of its own in front of the
    classifier, as the text says.

    Args:
        kind: one of the six designs, ``"vanilla"`` being a fully connected layer alone; or ``"none"``: the features are
            the embedding.
        in_dim: width of the features.
        dim: D, width of the embedding; without a head it is ``in_dim`` whatever this says.
        dropout: probability, for the designs that have a dropout.
        extra_fc: end with another fully connected layer, dim to dim.

    Raises:
        ValueError: unknown kind, a width below 1, a probability outside [0, 1), or an extra layer without a head.
    """
    if kind not in get_args(Head):
        raise ValueError(f"head: got {kind!r}, expected one of {', '.join(map(repr, get_args(Head)))}")
    if dim < 1:
        raise ValueError(f"embedding_dim: got {dim}, expected 1 or more")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout: got {dropout}, expected a value in [0, 1)")
    if kind == "none":
        if extra_fc:
            raise ValueError("extra_fc: got True, expected False without a head")
        return nn.Sequential()
    layers: OrderedDict[str, nn.Module] = OrderedDict(fc=nn.Linear(in_dim, dim))
    for name in () if kind == "vanilla" else kind.split("_")[1:-1]:
        layers[name] = _make_layer(name, dim, dropout)
    if extra_fc:
        layers["extra_fc"] = nn.Linear(dim, dim)
    return nn.Sequential(layers)


def _make_layer(name: str, dim: int, dropout: float) -> nn.Module:
    if name == "bn":
        return nn.BatchNorm1d(dim)
    return nn.ReLU() if name == "relu" else nn.Dropout(dropout)
