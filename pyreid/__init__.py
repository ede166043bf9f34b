"""pyreid: fused operators, exact evaluation, models and training for person and vehicle re-identification.

``import pyreid`` is light: names are imported when they are first used, and timm, torchvision and Lightning only by
the parts that need them.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyreid import cli, data, evaluation, inference, layers, losses, models, ops, report, retrieval, training
    from pyreid._build_info import BuildInfo, info
    from pyreid.evaluation import EvaluationResult, evaluate
    from pyreid.inference import FeatureExtractor
    from pyreid.models import create_model, list_models
    from pyreid.retrieval.gallery import Gallery
    from pyreid.retrieval.k_reciprocal import KReciprocal, k_reciprocal
    from pyreid.retrieval.search import search

__version__ = _version("pyreid")

_MODULES = {
    "cli",
    "data",
    "evaluation",
    "inference",
    "layers",
    "losses",
    "models",
    "ops",
    "report",
    "retrieval",
    "training",
}
_NAMES = {
    "BuildInfo": "pyreid._build_info",
    "EvaluationResult": "pyreid.evaluation",
    "FeatureExtractor": "pyreid.inference",
    "Gallery": "pyreid.retrieval",
    "KReciprocal": "pyreid.retrieval",
    "create_model": "pyreid.models",
    "evaluate": "pyreid.evaluation",
    "info": "pyreid._build_info",
    "k_reciprocal": "pyreid.retrieval",
    "list_models": "pyreid.models",
    "search": "pyreid.retrieval",
}
__all__ = [
    "BuildInfo",
    "EvaluationResult",
    "FeatureExtractor",
    "Gallery",
    "KReciprocal",
    "__version__",
    "cli",
    "create_model",
    "data",
    "evaluate",
    "evaluation",
    "inference",
    "info",
    "k_reciprocal",
    "layers",
    "list_models",
    "losses",
    "models",
    "ops",
    "report",
    "retrieval",
    "search",
    "training",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"pyreid.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'pyreid' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
