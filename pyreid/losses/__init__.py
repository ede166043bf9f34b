"""Losses as modules: ``loss(input, labels) -> scalar``, with embeddings or logits as the input.

Some losses learn centres by an optimiser of their own, or have a margin that grows: :func:`own_optimizer`,
:func:`main_parameters` and :func:`after_step` are what a training loop needs for them (:mod:`pyreid.losses.stepped`).
:class:`WeightedSum` adds up several losses, or one over several exits of a network (deep supervision).
"""

from __future__ import annotations

from pyreid.losses.all_triplets import TripletLoss
from pyreid.losses.am_softmax import AMSoftmaxLoss
from pyreid.losses.arcface import ArcFaceLoss
from pyreid.losses.center import CenterLoss
from pyreid.losses.centers import Centers
from pyreid.losses.glob_push import GlobPushLoss
from pyreid.losses.growing_margin import GrowingMargin
from pyreid.losses.label_smoothing import LabelSmoothingCrossEntropy
from pyreid.losses.push import PushLoss
from pyreid.losses.stepped import SteppedModule, after_step, main_parameters, own_optimizer
from pyreid.losses.triplet import BatchHardTripletLoss, BatchSoftTripletLoss
from pyreid.losses.weighted_sum import WeightedSum

__all__ = [
    "AMSoftmaxLoss",
    "ArcFaceLoss",
    "BatchHardTripletLoss",
    "BatchSoftTripletLoss",
    "CenterLoss",
    "Centers",
    "GlobPushLoss",
    "GrowingMargin",
    "LabelSmoothingCrossEntropy",
    "PushLoss",
    "SteppedModule",
    "TripletLoss",
    "WeightedSum",
    "after_step",
    "main_parameters",
    "own_optimizer",
]
