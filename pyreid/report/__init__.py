"""Pictures of results: training curves and rank lists; and of what lies inside a network."""

from __future__ import annotations

from pyreid.report.activation_plots import plot_activation_density, plot_attention_maps, plot_feature_maps
from pyreid.report.activations import (
    ActivationDensity,
    AttentionMaps,
    FeatureMaps,
    LayerDensity,
    activation_density,
    attention_maps,
    feature_maps,
)
from pyreid.report.curves import plot_training
from pyreid.report.rank_lists import RankList, draw_rank_lists, make_rank_lists
from pyreid.report.weights import LayerRatio, WeightRatios, pair_ratios, plot_weight_ratio, weight_ratio

__all__ = [
    "ActivationDensity",
    "AttentionMaps",
    "FeatureMaps",
    "LayerDensity",
    "LayerRatio",
    "RankList",
    "WeightRatios",
    "activation_density",
    "attention_maps",
    "draw_rank_lists",
    "feature_maps",
    "make_rank_lists",
    "pair_ratios",
    "plot_activation_density",
    "plot_attention_maps",
    "plot_feature_maps",
    "plot_training",
    "plot_weight_ratio",
    "weight_ratio",
]
