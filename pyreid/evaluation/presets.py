"""Named protocols: the options of :func:`pyreid.evaluate` that repeat what other code computes."""

from __future__ import annotations

from typing import Any

_PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "torchreid": (
        "torchreid: Euclidean distance of the features as they are",
        {"metric": "euclidean", "ap": "step", "no_match": "skip", "max_rank": 50},
    ),
    "fastreid": (
        "fast-reid: cosine distance",
        {"metric": "cosine", "ap": "step", "no_match": "skip", "max_rank": 50},
    ),
    "transreid": (
        "TransReID: Euclidean distance of normalised features, which ranks as the cosine distance does",
        {"metric": "cosine", "ap": "step", "no_match": "skip", "max_rank": 50},
    ),
    "reid-strong-baseline": (
        "reid-strong-baseline: Euclidean distance of normalised features, which ranks as the cosine distance does",
        {"metric": "cosine", "ap": "step", "no_match": "skip", "max_rank": 50},
    ),
    "layumi": (
        "Person_reID_baseline_pytorch: cosine distance and the AP of the Matlab code",
        {"metric": "cosine", "ap": "trapezoid", "no_match": "zero"},
    ),
    "market1501-official": (
        "Matlab code of Market-1501: trapezoid AP, a query without a match counts as 0",
        {"ap": "trapezoid", "no_match": "zero"},
    ),
    "dukemtmc-reid-official": ("that of Market-1501, by the same code", {"ap": "trapezoid", "no_match": "zero"}),
    "cuhk03-np-official": (
        "CUHK03 with 767/700 identities: that of Market-1501, by the same code",
        {"ap": "trapezoid", "no_match": "zero"},
    ),
    "veri776": (
        "image to image, AP of the starter code: the precision at each positive",
        {"ap": "step", "no_match": "skip"},
    ),
    "veri-wild": ("as VeRi-776", {"ap": "step", "no_match": "skip"}),
}


def preset(name: str) -> dict[str, Any]:
    """Options of :func:`pyreid.evaluate` by the name of a protocol.

    ``evaluate(*sets, **preset("market1501-official"))``; ``preset(name) | {"max_rank": 10}`` differs from it. Presets
    of data sets leave the metric to you, as the official code does.

    The same in all of them, as everywhere: gallery images of the query's identity and camera are left out (give the
    cameras), identity -1 is junk, and every other identity counts. What a preset does not repeat is what peers leave to
    chance or get wrong: the order of ties, AP summed in float32, CMC values past the end of the gallery.

    Protocols that draw images or pool them have functions of their own: ``evaluate_single_shot`` (CUHK03 with 100
    identities), ``evaluate_random_gallery`` (VehicleID), ``evaluate_tracks`` (VeRi-776 image to track),
    ``pool_queries`` (multi-query) and ``pool_tracks`` (MARS).

    Raises:
        ValueError: if there is no such preset.
    """
    if name not in _PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(_PRESETS)}, got {name!r}")
    return dict(_PRESETS[name][1])


def list_presets() -> dict[str, str]:
    """What each preset is, by name."""
    return {name: about for name, (about, _) in _PRESETS.items()}
