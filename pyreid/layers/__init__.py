"""Building blocks of the models: pooling, attention, necks and heads."""

from __future__ import annotations

from pyreid.layers.channel_mask import ChannelMask
from pyreid.layers.dbam import DBAM
from pyreid.layers.embedding import CosineClassifier
from pyreid.layers.gem import GeM
from pyreid.layers.global_attention import GlobalAttention
from pyreid.layers.necks import make_neck
from pyreid.layers.rm_block import RMBlock

__all__ = ["DBAM", "ChannelMask", "CosineClassifier", "GeM", "GlobalAttention", "RMBlock", "make_neck"]
