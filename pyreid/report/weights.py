"""Filters that do nothing: the ratio of the largest to the smallest filter of each convolution (RMNet, Fig. 4)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from pyreid.errors import require
from pyreid.report.inspection import save_numbers, write_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class LayerRatio:
    """One convolution.

    Attributes:
        name: dotted name of the module.
        filters: number of filters.
        dead: filters whose weights are all zero.
        largest: mean absolute weight of the largest filter.
        smallest: mean absolute weight of the smallest filter.
        ratio: ``largest / smallest``; infinite where a filter is dead.
    """

    name: str
    filters: int
    dead: int
    largest: float
    smallest: float
    ratio: float


@dataclass(frozen=True, slots=True)
class WeightRatios:
    """The convolutions of a network.

    Attributes:
        layers: in the order of the network's modules.
    """

    layers: tuple[LayerRatio, ...]

    @property
    def dead(self) -> int:
        """Dead filters of all layers."""
        return sum(layer.dead for layer in self.layers)

    @property
    def median(self) -> float:
        """The median ratio of the layers."""
        ordered = sorted(layer.ratio for layer in self.layers)
        middle = len(ordered) // 2
        return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2

    def rows(self) -> list[dict[str, Any]]:
        """A row per layer; an infinite ratio is ``inf``."""
        return [
            {
                "layer": x.name,
                "filters": x.filters,
                "dead": x.dead,
                "largest": x.largest,
                "smallest": x.smallest,
                "ratio": x.ratio,
            }
            for x in self.layers
        ]

    def summary(self) -> dict[str, Any]:
        """All numbers, ready for JSON: an infinite ratio is null, as JSON has no infinity."""
        rows = [{**row, "ratio": _finite(row["ratio"])} for row in self.rows()]
        return {"dead": self.dead, "median_ratio": _finite(self.median), "layers": rows}

    def save(self, path: Path | str) -> None:
        """Write the rows as ``.csv``, or all numbers as ``.json``."""
        save_numbers(path, self.rows(), self.summary())


def weight_ratio(model: nn.Module) -> WeightRatios:
    """For each convolution the mean absolute weight of its largest filter over that of its smallest.

    A high ratio means filters that contribute little (RMNet, Sect. VI). Filters are the output channels; biases do not
    count. A dead filter, all of whose weights are zero, makes the ratio infinite.

    Args:
        model: any network with convolutions; untrained ones have ratios near 1, so look at trained ones.

    Raises:
        ValueError: the network has no convolution, or a weight is NaN or infinite.
    """
    layers = tuple(_measure(name, conv) for name, conv in _convolutions(model))
    if not layers:
        raise ValueError(f"model: {type(model).__name__} has no convolutions")
    return WeightRatios(layers)


def pair_ratios(first: WeightRatios, against: WeightRatios) -> list[tuple[LayerRatio, LayerRatio]]:
    """The convolutions that two networks share by name, in ascending order of the first one's ratio.

    Raises:
        ValueError: they share none.
    """
    others = {layer.name: layer for layer in against.layers}
    pairs = [(layer, others[layer.name]) for layer in first.layers if layer.name in others]
    if not pairs:
        raise ValueError(
            f"against: got {against.layers[0].name} and others, expected convolutions that the first network has too, "
            f"such as {first.layers[0].name}"
        )
    return sorted(pairs, key=lambda pair: pair[0].ratio)


def plot_weight_ratio(
    ratios: WeightRatios,
    path: Path | str | None = None,
    *,
    against: WeightRatios | None = None,
    labels: tuple[str, str] = ("first", "second"),
    title: str = "",
) -> Figure:
    """Draw w_max / w_min of each convolution on a logarithmic axis; infinite ratios are triangles at the upper edge.

    Args:
        ratios: from :func:`weight_ratio`, in the order of the network.
        path: PNG file to write; None writes none.
        against: another network; layers are then those that both have, sorted by the first one's ratio (RMNet, Fig. 4).
        labels: names of the two networks.
        title: written above.

    Raises:
        ValueError: the networks share no convolution, or ``path`` does not end in ``.png``.
        MissingDependencyError: matplotlib is missing.
    """
    require("matplotlib", extra="train")
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    if against is None:
        series = [(labels[0], [layer.ratio for layer in ratios.layers])]
        caption = "convolutions in the order of the network"
    else:
        pairs = pair_ratios(ratios, against)
        series = [(label, [pair[index].ratio for pair in pairs]) for index, label in enumerate(labels)]
        caption = f"convolutions that both have, sorted by the ratio of {labels[0]}"
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots()
    finite = [value for _, values in series for value in values if math.isfinite(value)]
    top = 1.5 * max(finite, default=1.0)
    for index, (label, values) in enumerate(series):
        colour = f"C{index}"
        known = [value if math.isfinite(value) else math.nan for value in values]
        axes.plot(range(1, len(values) + 1), known, marker=".", color=colour, label=label)
        dead = [place for place, value in enumerate(values, 1) if not math.isfinite(value)]
        if dead:
            axes.plot(dead, [top] * len(dead), "^", color=colour, label=f"{label}: infinite, a filter is dead")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel=caption, ylabel="largest / smallest filter, mean |w|", ylim=(0.9, 1.3 * top))
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    write_figure(figure, path)
    return figure


def _convolutions(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            yield name or type(module).__name__, module


def _measure(name: str, conv: Any) -> LayerRatio:
    sizes = conv.weight.detach().double().abs().flatten(1).mean(dim=1).cpu().numpy()
    if not np.isfinite(sizes).all():
        raise ValueError(f"model: NaN or infinite weights in {name}")
    largest, smallest = float(sizes.max()), float(sizes.min())
    return LayerRatio(
        name=name,
        filters=len(sizes),
        dead=int((sizes == 0).sum()),
        largest=largest,
        smallest=smallest,
        ratio=largest / smallest if smallest else math.inf,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
