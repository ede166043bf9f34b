"""Weights for embeddings: a file that leaves the head random is an error, or a warning where it was asked for."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import timm
import torch

import pyreid
from pyreid.errors import WeightsError
from pyreid.inference.weights import load_embedding_weights
from pyreid.models import load_weights, timm_backbones

NAME = "cw_mobilenet_v3_small"


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "imagenet.pth"
    torch.manual_seed(0)
    torch.save(timm.create_model("mobilenetv3_small_100").state_dict(), path)
    return path


def test_a_backbone_alone_is_an_error_that_changes_nothing(imagenet: Path) -> None:
    message = (
        r"imagenet\.pth holds a backbone, and nothing for head\.fc\.weight, .* expected weights of the whole network"
    )
    with pytest.raises(WeightsError, match=message):
        pyreid.FeatureExtractor(NAME, weights=imagenet)
    model = pyreid.create_model(NAME)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match=message):
        pyreid.FeatureExtractor(model, weights=imagenet)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_who_loads_the_backbone_gets_its_features(imagenet: Path) -> None:
    model = pyreid.create_model(NAME)
    load_weights(model, imagenet)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pyreid.FeatureExtractor(model)
        headless = pyreid.create_model(NAME, head="none", num_classes=3)
        pyreid.FeatureExtractor(headless, weights=imagenet)  # all there is but the classifier
    assert torch.equal(headless.backbone.conv_stem.weight, model.backbone.conv_stem.weight)


def test_whole_networks_without_the_classifier_are_taken(tmp_path: Path) -> None:
    torch.save(pyreid.create_model("rmnet", num_classes=4).state_dict(), tmp_path / "w.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pyreid.FeatureExtractor("rmnet", weights=tmp_path / "w.pt")
        pyreid.FeatureExtractor(pyreid.create_model("rmnet", num_classes=9), weights=tmp_path / "w.pt")


def test_timm_says_what_stays_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    original = timm_backbones.make_backbone
    monkeypatch.setattr(timm_backbones, "make_backbone", lambda name, pretrained=False: original(name))  # no download
    with pytest.warns(UserWarning, match=r"weights: timm holds a backbone, and nothing for head\.fc\.weight"):
        pyreid.FeatureExtractor(NAME, weights="timm")


def test_partial_weights_warn_where_they_may(imagenet: Path) -> None:
    with pytest.warns(UserWarning, match="these keep their fresh values"):
        load_embedding_weights(pyreid.create_model(NAME), imagenet, partial="warn")
