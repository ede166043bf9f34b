"""How a data set is evaluated, said in strings: this floor does not import :mod:`pyreid.evaluation`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Function = Literal["evaluate", "evaluate_random_gallery", "evaluate_tracks", "pool_tracks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """A rule of evaluation; its names are those of :mod:`pyreid.evaluation`.

    Attributes:
        name: what the rule is called, for example ``"image to track"``.
        function: what computes it. ``"evaluate"`` ranks gallery images for query images; ``"evaluate_tracks"`` ranks
            gallery tracks, by their nearest image; ``"pool_tracks"`` pools both sides' tracks and then evaluates;
            ``"evaluate_random_gallery"`` takes query and gallery as one set, and draws one gallery image of each
            identity, ``repeats`` times.
        camera_filter: whether gallery images of the query's identity and camera are left out.
        ap: definition of AP, ``"step"`` or ``"trapezoid"``.
        no_match: whether a query without a match is skipped or counts as 0; a random gallery has none.
        preset: the name in :func:`pyreid.evaluation.list_presets` that has these ``ap`` and ``no_match``; None if none
            is named after the data set.
        repeats: random galleries to average over.
        pooling: how the images of a track become one feature, ``"mean"`` or ``"max"``.
    """

    name: str = "image to image"
    function: Function = "evaluate"
    camera_filter: bool = True
    ap: Literal["step", "trapezoid"] = "step"
    no_match: Literal["skip", "zero"] = "skip"
    preset: str | None = None
    repeats: int = 1
    pooling: Literal["mean", "max"] = "mean"

    def __str__(self) -> str:
        parts = [self.name, f"{self.ap} AP"]
        if self.function == "evaluate_random_gallery":
            return ", ".join([*parts, f"mean of {self.repeats} random galleries of one image per identity, no cameras"])
        if self.function == "pool_tracks":
            parts.append(f"{self.pooling} of a track's images")
        parts.append("other cameras only" if self.camera_filter else "no camera filter")
        parts.append("a query without a match is skipped" if self.no_match == "skip" else "no match counts as 0")
        return ", ".join(parts)
