"""Evaluation of re-identification: exact CMC, mAP and mINP by counting, with neither a distance matrix nor a sort."""

from __future__ import annotations

from pyreid.evaluation.evaluator import evaluate
from pyreid.evaluation.rank_matrix import evaluate_rank
from pyreid.evaluation.result import EvaluationResult

__all__ = ["EvaluationResult", "evaluate", "evaluate_rank"]
