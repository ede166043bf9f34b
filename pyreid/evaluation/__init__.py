"""Evaluation of re-identification: exact CMC, mAP and mINP by counting, with neither a distance matrix nor a sort."""

from __future__ import annotations

from pyreid.evaluation.comparison import Comparison, Difference, compare
from pyreid.evaluation.confidence import ConfidenceIntervals, Interval, confidence_intervals
from pyreid.evaluation.evaluator import evaluate
from pyreid.evaluation.groups import Breakdown, breakdown
from pyreid.evaluation.rank_matrix import evaluate_rank
from pyreid.evaluation.result import EvaluationResult
from pyreid.evaluation.verification import VerificationResult, verify

__all__ = [
    "Breakdown",
    "Comparison",
    "ConfidenceIntervals",
    "Difference",
    "EvaluationResult",
    "Interval",
    "VerificationResult",
    "breakdown",
    "compare",
    "confidence_intervals",
    "evaluate",
    "evaluate_rank",
    "verify",
]
