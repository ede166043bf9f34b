"""Inference: embeddings of images from a model, in memory or streamed into a file."""

from __future__ import annotations

from pyreid.inference.embedding import Flip
from pyreid.inference.extraction import extract_to_file, read_paths
from pyreid.inference.extractor import FeatureExtractor
from pyreid.inference.images import ImageInput

__all__ = ["FeatureExtractor", "Flip", "ImageInput", "extract_to_file", "read_paths"]
