"""The model zoo: ``create_model("safr_small", num_classes=576)``, complexity, weights and the papers' figures."""

from __future__ import annotations

import pyreid.models.compact_reid  # noqa: F401  # registers its models
from pyreid.models.base import Exit, ModelOutput, ReIDModel
from pyreid.models.complexity import Complexity, complexity
from pyreid.models.config import ModelConfig
from pyreid.models.dare import DaRe, DaReConfig, TriNet, TriNetConfig, TriNetEnsemble, TriNetEnsembleConfig
from pyreid.models.figures import PaperFigure, PaperResult
from pyreid.models.hacnn import HACNN, HACNNConfig
from pyreid.models.paper import PaperRow, paper_figures, paper_table
from pyreid.models.registry import create_model, list_models, model_entry, register_model, resolve_config
from pyreid.models.rmnet import RMNet, RMNetConfig
from pyreid.models.safr import SAFR, SAFRConfig
from pyreid.models.safr_micro import SAFRMicro, SAFRMicroConfig
from pyreid.models.shufflenet_v2_plus import ShuffleNetV2Plus, ShuffleNetV2PlusConfig
from pyreid.models.vehicle import VehicleConfig, VehicleNet
from pyreid.models.weights import WeightsReport, load_weights

__all__ = [
    "HACNN",
    "SAFR",
    "Complexity",
    "DaRe",
    "DaReConfig",
    "Exit",
    "HACNNConfig",
    "ModelConfig",
    "ModelOutput",
    "PaperFigure",
    "PaperResult",
    "PaperRow",
    "RMNet",
    "RMNetConfig",
    "ReIDModel",
    "SAFRConfig",
    "SAFRMicro",
    "SAFRMicroConfig",
    "ShuffleNetV2Plus",
    "ShuffleNetV2PlusConfig",
    "TriNet",
    "TriNetConfig",
    "TriNetEnsemble",
    "TriNetEnsembleConfig",
    "VehicleConfig",
    "VehicleNet",
    "WeightsReport",
    "complexity",
    "create_model",
    "list_models",
    "load_weights",
    "model_entry",
    "paper_figures",
    "paper_table",
    "register_model",
    "resolve_config",
]
