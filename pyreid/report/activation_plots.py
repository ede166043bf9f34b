"""Pictures of :mod:`pyreid.report.activations`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyreid.errors import require
from pyreid.report.activations import ActivationDensity, AttentionMaps, FeatureMaps, normalise_map
from pyreid.report.inspection import write_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMED_LAYERS = 24  # more names than that are not readable below an axis
_CELL = 1.7  # inches of a map
_Picture = tuple[Any, dict[str, Any]]  # and the limits of its colours


def plot_activation_density(
    densities: ActivationDensity | Mapping[str, ActivationDensity], path: Path | str | None = None, *, title: str = ""
) -> Figure:
    """Draw the density of each layer on the left and of each stage on the right (SAFR, Fig. 4).

    Args:
        densities: of one network, or of several by their names.
        path: PNG file to write; None writes none.
        title: written above.

    Raises:
        ValueError: there is no density, or ``path`` does not end in ``.png``.
        MissingDependencyError: matplotlib is missing.
    """
    require("matplotlib", extra="train")
    from matplotlib.figure import Figure

    named = {"": densities} if isinstance(densities, ActivationDensity) else dict(densities)
    if not named:
        raise ValueError("densities: expected at least one, got none")
    figure = Figure(figsize=(13, 5), layout="constrained")
    tolerances = sorted({density.tolerance for density in named.values()})
    counted = " or ".join(f"|a| > {tolerance:g}" for tolerance in tolerances)
    figure.suptitle(title)
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    stages = list(dict.fromkeys(stage for density in named.values() for stage in density.stages))
    for name, density in named.items():
        values = [layer.density for layer in density.layers]
        left.plot(range(1, len(values) + 1), values, marker=".", label=name)
        means = density.stages
        shown = [stage for stage in stages if stage in means]
        right.plot([stages.index(stage) for stage in shown], [means[s] for s in shown], marker="o", label=name)
    first = next(iter(named.values()))
    names = [layer.name for layer in first.layers]
    if len(names) <= _NAMED_LAYERS and all([x.name for x in d.layers] == names for d in named.values()):
        left.set_xticks(range(1, len(names) + 1), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=7)
    else:
        left.set_xlabel("layer, in the order of data flow")
    if len(named) == 1:
        _mark_stages(left, first)
    right.set_xticks(range(len(stages)), stages, rotation=30 if len(stages) > 6 else 0)
    right.set_xlabel("mean over the layers of a stage")
    left.set_ylabel(f"fraction of activations with {counted}")
    for axes in (left, right):
        axes.set_ylim(0, 1.1)
        axes.grid(alpha=0.3)
        if len(named) > 1:
            axes.legend()
    write_figure(figure, path)
    return figure


def plot_attention_maps(maps: AttentionMaps, path: Path | str | None = None, *, title: str = "") -> Figure:
    """Draw a row per image: the image, and the map before and after attention on one scale of colours (SAFR, Fig. 3).

    Args:
        maps: from :func:`~pyreid.report.attention_maps`.
        path: PNG file to write; None writes none.
        title: written above.

    Raises:
        ValueError: ``path`` does not end in ``.png``.
        MissingDependencyError: matplotlib is missing.
    """
    rows: list[list[_Picture]] = []
    for name in maps.before:
        for image, before, after in zip(maps.images, maps.before[name], maps.after[name], strict=True):
            low, high = min(before.min(), after.min()), max(before.max(), after.max())
            scale = {"vmin": low, "vmax": high if high > low else low + 1}
            rows.append([(image, {}), (before, scale), (after, scale)])
    headings = ["image", "before attention", "after attention"]
    figure = _grid(rows, headings, [""] * len(rows), title, maps.images.shape[1:3], bars=True)
    write_figure(figure, path)
    return figure


def plot_feature_maps(maps: FeatureMaps, path: Path | str | None = None, *, image: int = 0, title: str = "") -> Figure:
    """Draw the maps of the stages, each normalised to 0..1 by itself (coursework, Fig. 1).

    Means over channels make a row per image and a column per stage. Channels make a row per stage, of one image.

    Args:
        maps: from :func:`~pyreid.report.feature_maps`.
        path: PNG file to write; None writes none.
        image: which image's channels to draw.
        title: written above.

    Raises:
        ValueError: there is no such image, or ``path`` does not end in ``.png``.
        MissingDependencyError: matplotlib is missing.
    """
    if not 0 <= image < len(maps.images):
        raise ValueError(f"image: got {image}, expected 0 to {len(maps.images) - 1}")
    sizes = {stage: f"{stage}\n{x.shape[2]} x {x.shape[3]}" for stage, x in maps.maps.items()}
    rows: list[list[_Picture]]
    if maps.is_mean:
        rows = [
            [(picture, {}), *((normalise_map(x[index, 0]), {}) for x in maps.maps.values())]
            for index, picture in enumerate(maps.images)
        ]
        headings, labels = ["image", *sizes.values()], [""] * len(rows)
    else:
        shown: list[list[_Picture]] = [[(normalise_map(x), {}) for x in stage[image]] for stage in maps.maps.values()]
        rows = [[(maps.images[image] if row == 0 else None, {}), *pictures] for row, pictures in enumerate(shown)]
        headings = ["image", *(f"channel {index}" for index in range(max(map(len, rows)) - 1))]
        labels = list(sizes.values())
    figure = _grid(rows, headings, labels, title, maps.images.shape[1:3])
    write_figure(figure, path)
    return figure


def _mark_stages(axes: Any, density: ActivationDensity) -> None:
    """Stages as bands of two shades, with their names at the upper edge."""
    stages = [layer.stage for layer in density.layers]
    begins = [index for index, stage in enumerate(stages) if index == 0 or stage != stages[index - 1]]
    for band, (begin, end) in enumerate(zip(begins, [*begins[1:], len(stages)], strict=True)):
        if band % 2 == 0:
            axes.axvspan(begin + 0.5, end + 0.5, color="black", alpha=0.05, linewidth=0)
        axes.text((begin + end + 1) / 2, 1.05, stages[begin], ha="center", va="bottom", fontsize=8)


def _grid(
    rows: list[list[_Picture]],
    headings: list[str],
    labels: list[str],
    title: str,
    size: tuple[int, int],
    *,
    bars: bool = False,
) -> Figure:
    """Pictures in rows, of the images' aspect ratio."""
    require("matplotlib", extra="train")
    from matplotlib.figure import Figure

    aspect = size[0] / size[1]
    width = _CELL / max(aspect, 1.0) ** 0.5
    columns = len(headings)
    figure = Figure(
        figsize=(max(columns * (width + (0.5 if bars else 0.15)) + 0.8, 4.5), len(rows) * width * aspect + 1.0),
        layout="constrained",
    )
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for row, pictures in enumerate(rows):
        for column in range(columns):
            cell = axes[row, column]
            cell.set_xticks([])
            cell.set_yticks([])
            if column >= len(pictures):
                cell.axis("off")
                continue
            picture, scale = pictures[column]
            if picture is None:
                cell.set_frame_on(False)
                continue
            # stretched to the image's shape, so that maps and image lie on each other
            drawn = cell.imshow(picture, extent=(0, size[1], size[0], 0), interpolation="nearest", **scale)
            if row == 0:
                cell.set_title(headings[column], fontsize=8)
        if labels[row]:
            axes[row, 0].set_ylabel(labels[row], fontsize=8)
        if bars:
            figure.colorbar(drawn, ax=axes[row, 1:], shrink=0.8).ax.tick_params(labelsize=7)
    return figure
