"""Inference: embeddings of images from a model or its exported form, in memory or streamed into a file; export."""

from __future__ import annotations

from pyreid.inference.embedding import Flip
from pyreid.inference.export import ExportReport, export_onnx, export_openvino
from pyreid.inference.exported import ExportedInfo, ExportedModel, open_exported
from pyreid.inference.extraction import Extraction, extract_to_file, read_paths
from pyreid.inference.extractor import FeatureExtractor
from pyreid.inference.fold import FoldReport, fold_batch_norm, fold_report
from pyreid.inference.images import ImageInput
from pyreid.inference.parity import Parity, Tolerance
from pyreid.inference.quantize import ComparedImages, QuantizeReport, quantize_int8

__all__ = [
    "ComparedImages",
    "ExportReport",
    "ExportedInfo",
    "ExportedModel",
    "Extraction",
    "FeatureExtractor",
    "Flip",
    "FoldReport",
    "ImageInput",
    "Parity",
    "QuantizeReport",
    "Tolerance",
    "export_onnx",
    "export_openvino",
    "extract_to_file",
    "fold_batch_norm",
    "fold_report",
    "open_exported",
    "quantize_int8",
    "read_paths",
]
