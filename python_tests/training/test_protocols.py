"""Every data set by its own rule, from files to metrics, against a plain evaluation by sorting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pyreid.data import ReIDDataset, list_datasets, load_dataset, synthesize
from pyreid.data.protocol import Protocol
from pyreid.data.registry import get_layout, list_layouts
from pyreid.evaluation import EvaluationResult, RepeatedResult, preset, random_gallery_split
from pyreid.inference.images import ImageInput
from pyreid.retrieval import KReciprocal
from pyreid.training.features import TestFeatures, evaluate_features, extract_test_features
from pyreid.training.preflight import check_matches
from pyreid.training.protocols import evaluate_protocol
from pyreid.training.recipe import EvaluationSettings

LOOK = ImageInput((16, 8), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
SIZES = {"num_train_ids": 2, "num_test_ids": 8, "images_per_id": 6, "num_cameras": 4, "size": (32, 16)}
NAMES = [name for name in list_datasets() if name not in ("vehicleid_3200", "vehicleid_6000", "vehicleid_13164")]


class Colours(nn.Module):
    """The mean colours of a grid: tells identities apart a little."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(images, (4, 2)).flatten(1)


def features_of(dataset: ReIDDataset) -> TestFeatures:
    return extract_test_features(Colours(), dataset, images=LOOK)  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=NAMES)
def dataset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ReIDDataset:
    root = tmp_path_factory.mktemp(request.param) / "set"
    return synthesize(request.param, root, **SIZES, workers=1)  # type: ignore[arg-type]


def plain(
    distances: np.ndarray,
    ids: tuple[np.ndarray, np.ndarray],
    cameras: tuple[np.ndarray, np.ndarray] | None,
    protocol: Protocol,
) -> tuple[float, float]:
    """mAP and rank-1 by sorting, query by query."""
    precisions, firsts = [], []
    for row, own, query in zip(distances, ids[0], range(len(distances)), strict=True):
        kept = ids[1] != -1
        if cameras is not None:
            kept &= (ids[1] != own) | (cameras[1] != cameras[0][query])
        hits = (ids[1][kept] == own)[np.argsort(row[kept], kind="stable")]
        if not hits.any():
            if protocol.no_match == "zero":
                precisions.append(0.0)
                firsts.append(0.0)
            continue
        at = np.flatnonzero(hits)
        after = np.arange(1, len(at) + 1) / (at + 1)
        before = np.where(at > 0, np.arange(len(at)) / np.maximum(at, 1), 1.0)
        precisions.append(float(np.mean(after if protocol.ap == "step" else (before + after) / 2)))
        firsts.append(float(hits[0]))
    return float(np.mean(precisions)), float(np.mean(firsts))


def distances_of(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    return np.linalg.norm(query.astype(float)[:, None] - gallery.astype(float)[None], axis=2)


def cameras_of(features: TestFeatures) -> tuple[np.ndarray, np.ndarray] | None:
    if features.query_cams is None or features.gallery_cams is None:
        return None
    return features.query_cams, features.gallery_cams


def test_metrics_are_those_of_a_plain_evaluation(dataset: ReIDDataset) -> None:
    features = features_of(dataset)
    protocol = dataset.protocol
    result = evaluate_protocol(features, protocol)
    ids = features.query_ids, features.gallery_ids
    cameras = cameras_of(features)
    # What is left of the cameras is what the protocol wants of them.
    assert (cameras is not None) == protocol.camera_filter
    if protocol.function == "evaluate":
        expected = plain(distances_of(features.query, features.gallery), ids, cameras, protocol)
    elif protocol.function == "pool_tracks":
        assert features.query_tracks is not None
        assert features.gallery_tracks is not None
        sides = []
        for rows, tracks, own, views in (
            (features.query, features.query_tracks, ids[0], features.query_cams),
            (features.gallery, features.gallery_tracks, ids[1], features.gallery_cams),
        ):
            numbers = sorted(set(tracks.tolist()))
            first = [int(np.flatnonzero(tracks == number)[0]) for number in numbers]
            assert views is not None
            means = np.stack([rows[tracks == number].mean(0) for number in numbers])
            sides.append((means, own[first], views[first]))
        (query, query_ids, query_cams), (gallery, gallery_ids, gallery_cams) = sides
        assert len(query) < len(features.query)
        expected = plain(distances_of(query, gallery), (query_ids, gallery_ids), (query_cams, gallery_cams), protocol)
    else:
        assert isinstance(result, RepeatedResult)
        rows, labels = np.concatenate([features.query, features.gallery]), np.concatenate(ids)
        scores = []
        for repeat in range(10):
            queries, gallery = random_gallery_split(labels, repeat=repeat)
            assert len(gallery) == len(set(labels.tolist()))
            scores.append(
                plain(distances_of(rows[queries], rows[gallery]), (labels[queries], labels[gallery]), None, protocol)
            )
        expected = tuple(np.mean(scores, axis=0))  # type: ignore[assignment]
        assert result.map_std > 0
    assert result.map == pytest.approx(expected[0], abs=1e-9)
    assert result.rank(1) == pytest.approx(expected[1], abs=1e-9)
    assert 0 < result.map < 1, "a test of features that are always right would see little"


def test_preflight_accepts_every_data_set(dataset: ReIDDataset) -> None:
    check_matches(dataset)


@pytest.mark.parametrize("layout", list_layouts(), ids=lambda layout: layout.name)
def test_presets_say_the_same(layout: object) -> None:
    for protocol in (layout.protocol, *layout.alternatives):  # type: ignore[attr-defined]
        if protocol.preset is not None:
            options = preset(protocol.preset)
            assert (options["ap"], options["no_match"]) == (protocol.ap, protocol.no_match)


def test_image_to_track_takes_the_nearest_image(tmp_path: Path) -> None:
    dataset = synthesize("veri776", tmp_path / "set", **SIZES, workers=1)  # type: ignore[arg-type]
    features = features_of(dataset)
    (protocol,) = dataset.alternatives
    result = evaluate_protocol(features, protocol)
    assert isinstance(result, EvaluationResult)
    assert features.gallery_tracks is not None
    numbers = sorted(set(features.gallery_tracks.tolist()))
    assert result.settings["num_gallery"] == len(numbers) < len(features.gallery)
    images = distances_of(features.query, features.gallery)
    nearest = np.stack([images[:, features.gallery_tracks == number].min(1) for number in numbers], axis=1)
    first = [int(np.flatnonzero(features.gallery_tracks == number)[0]) for number in numbers]
    assert features.query_cams is not None
    assert features.gallery_cams is not None
    expected = plain(
        nearest,
        (features.query_ids, features.gallery_ids[first]),
        (features.query_cams, features.gallery_cams[first]),
        protocol,
    )
    assert result.map == pytest.approx(expected[0], abs=1e-9)
    assert result.map != evaluate_protocol(features, dataset.protocol).map


def test_own_images_without_cameras_find_images_of_the_same_place(tmp_path: Path) -> None:
    made = synthesize("csv", tmp_path / "set", **SIZES, workers=1)  # type: ignore[arg-type]
    lines = (tmp_path / "set" / "dataset.csv").read_text().splitlines()
    without = [",".join(line.split(",")[i] for i in (0, 1, 3)) for line in lines]
    (tmp_path / "set" / "dataset.csv").write_text("\n".join(without) + "\n")
    (tmp_path / "set" / "synthetic.json").unlink()
    blind = load_dataset("csv", tmp_path / "set")
    features = features_of(blind)
    assert features.query_cams is None
    assert features.gallery_cams is None
    check_matches(blind)
    result = evaluate_protocol(features, blind.protocol)
    ids = features.query_ids, features.gallery_ids
    expected = plain(distances_of(features.query, features.gallery), ids, None, blind.protocol)
    assert result.map == pytest.approx(expected[0], abs=1e-9)
    # The recipe's own evaluation sees no cameras either; with them, the metrics are others.
    assert evaluate_features(features, EvaluationSettings()).map == pytest.approx(expected[0], abs=1e-9)
    assert evaluate_protocol(features_of(made), made.protocol).map < result.map


def test_reranking_and_options_reach_the_evaluation(tmp_path: Path) -> None:
    dataset = synthesize("mars", tmp_path / "set", **SIZES, workers=1)  # type: ignore[arg-type]
    features = features_of(dataset)
    simple = evaluate_protocol(features, dataset.protocol, metric="cosine", max_rank=7)
    assert isinstance(simple, EvaluationResult)
    assert (simple.settings["metric"], len(simple.cmc)) == ("cosine", 7)
    reranked = evaluate_protocol(features, dataset.protocol, rerank=KReciprocal(k1=4, k2=2))
    assert reranked.map != simple.map


def test_what_a_protocol_cannot_do_is_said(tmp_path: Path) -> None:
    dataset = synthesize("vehicleid_800", tmp_path / "set", **SIZES, workers=1)  # type: ignore[arg-type]
    features = features_of(dataset)
    with pytest.raises(ValueError, match="rerank: the protocol 'random gallery' has no re-ranking"):
        evaluate_protocol(features, dataset.protocol, rerank=KReciprocal())
    for protocol in (get_layout("mars").protocol, *get_layout("veri776").alternatives):
        with pytest.raises(ValueError, match="needs tracks, which the data set does not have"):
            evaluate_protocol(features, protocol)
    repeats = evaluate_protocol(features, dataset.protocol, seed=1)
    assert repeats.map != evaluate_protocol(features, dataset.protocol, seed=2).map
