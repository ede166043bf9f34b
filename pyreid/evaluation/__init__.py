"""Evaluation of re-identification: exact CMC, mAP and mINP by counting, with neither a distance matrix nor a sort."""

from __future__ import annotations

from pyreid.evaluation.comparison import Comparison, Difference, compare
from pyreid.evaluation.confidence import ConfidenceIntervals, Interval, confidence_intervals
from pyreid.evaluation.evaluator import evaluate
from pyreid.evaluation.groups import Breakdown, breakdown
from pyreid.evaluation.presets import list_presets, preset
from pyreid.evaluation.random_gallery import evaluate_random_gallery, random_gallery_split
from pyreid.evaluation.rank_matrix import evaluate_rank
from pyreid.evaluation.repeats import RepeatedResult
from pyreid.evaluation.result import EvaluationResult
from pyreid.evaluation.sharded import evaluate_sharded
from pyreid.evaluation.single_shot import evaluate_single_shot
from pyreid.evaluation.tracks import Tracks, evaluate_tracks, pool_queries, pool_tracks
from pyreid.evaluation.verification import VerificationResult, verify
from pyreid.ops.feature_files import open_features

__all__ = [
    "Breakdown",
    "Comparison",
    "ConfidenceIntervals",
    "Difference",
    "EvaluationResult",
    "Interval",
    "RepeatedResult",
    "Tracks",
    "VerificationResult",
    "breakdown",
    "compare",
    "confidence_intervals",
    "evaluate",
    "evaluate_random_gallery",
    "evaluate_rank",
    "evaluate_sharded",
    "evaluate_single_shot",
    "evaluate_tracks",
    "list_presets",
    "open_features",
    "pool_queries",
    "pool_tracks",
    "preset",
    "random_gallery_split",
    "verify",
]
