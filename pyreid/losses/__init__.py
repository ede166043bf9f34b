"""Losses as modules: ``loss(input, labels) -> scalar``."""

from __future__ import annotations

from pyreid.losses.label_smoothing import LabelSmoothingCrossEntropy
from pyreid.losses.triplet import BatchHardTripletLoss, BatchSoftTripletLoss

__all__ = ["BatchHardTripletLoss", "BatchSoftTripletLoss", "LabelSmoothingCrossEntropy"]
