"""Building blocks of the models: pooling, attention, necks and heads."""

from __future__ import annotations

from pyreid.layers.cbam import CBAM
from pyreid.layers.channel_mask import ChannelMask
from pyreid.layers.dbam import DBAM
from pyreid.layers.embedding import CosineClassifier
from pyreid.layers.gem import GeM
from pyreid.layers.global_attention import GlobalAttention
from pyreid.layers.harmonious_attention import HarmoniousAttention
from pyreid.layers.heads import make_head
from pyreid.layers.inception_a import InceptionA
from pyreid.layers.inception_b import InceptionB
from pyreid.layers.necks import make_neck
from pyreid.layers.rm_block import RMBlock
from pyreid.layers.shuffle_a import ShuffleA
from pyreid.layers.shuffle_b import ShuffleB
from pyreid.layers.shuffle_xception import ShuffleXception
from pyreid.layers.squeeze_excite import SqueezeExcite

__all__ = [
    "CBAM",
    "DBAM",
    "ChannelMask",
    "CosineClassifier",
    "GeM",
    "GlobalAttention",
    "HarmoniousAttention",
    "InceptionA",
    "InceptionB",
    "RMBlock",
    "ShuffleA",
    "ShuffleB",
    "ShuffleXception",
    "SqueezeExcite",
    "make_head",
    "make_neck",
]
