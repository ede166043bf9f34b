"""``pyreid inspect``: pictures and numbers of what lies inside a network."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pyreid.cli.image_size import parse_size

if TYPE_CHECKING:
    from rich.table import Table

    from pyreid.inference.opening import Opened
    from pyreid.report import ActivationDensity, AttentionMaps, FeatureMaps, WeightRatios

SHOWN_IMAGES, SHOWN_LAYERS = 4, 8


class What(str, Enum):
    density = "density"
    attention = "attention"
    features = "features"
    weights = "weights"


COMPARED = (What.density, What.weights)


def inspect(
    model: Annotated[
        str, typer.Argument(metavar="MODEL|RUN", help="A model of 'pyreid models', or the folder of a run.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder that gets the pictures and inspection.json.")],
    weights: Annotated[
        str | None, typer.Option(help="Weights file; 'timm' for ImageNet's. (Default: a run's best, or fresh ones.)")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override of a named model, such as activation=relu."),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(help="Folder, pattern, list or image; may be repeated. (Default: four drawn images.)"),
    ] = None,
    what: Annotated[
        list[What] | None, typer.Option(help="What to look at; may be repeated. (Default: all that there is.)")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="MODEL|RUN", help="Another model to draw beside it, for density and weights."),
    ] = None,
    against_weights: Annotated[str | None, typer.Option(help="Weights of that model, as --weights.")] = None,
    against_settings: Annotated[
        list[str] | None, typer.Option("--against-set", metavar="KEY=VALUE", help="Override of it, as --set.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0.0, help="Activations up to this count as zero; for ELU or hard swish about 0.01.")
    ] = 0.0,
    channels: Annotated[
        int | None, typer.Option(min=1, help="Draw so many channels of the first image, not means over channels.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="HEIGHTxWIDTH of the images. (Default: the run's, or the model's.)")
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Write the numbers of each picture as .csv too.")] = False,
) -> None:
    """Draw what lies inside a network: activation density, attention, feature maps, sizes of filters.

    density counts the activations of each layer that are not zero (SAFR, Fig. 4), over all images. attention shows maps
    before and after global attention (SAFR, Fig. 3), and features the output of the stages, both of the first four
    images. weights is the ratio of the largest to the smallest filter of each convolution (RMNet, Fig. 4). Files of the
    same names in the folder are replaced.

    Example: pyreid inspect rmnet --weights elu.pt --what weights --against rmnet --against-set activation=relu
    --against-weights relu.pt --out inside
    """
    wanted = list(dict.fromkeys(what)) if what else None
    input_size = parse_size(size)
    if against is None and (against_weights is not None or against_settings):
        raise typer.BadParameter("--against-weights and --against-set go with --against")
    if against is not None and wanted and not set(wanted) & set(COMPARED):
        raise typer.BadParameter(f"--against goes with --what {' or '.join(kind.value for kind in COMPARED)}")
    if math.isinf(tolerance) or math.isnan(tolerance):
        raise typer.BadParameter(f"--tolerance: expected a finite number, got {tolerance}")
    from pyreid.errors import require

    require("matplotlib", extra="train")
    from pyreid._files import write_json
    from pyreid.inference import read_paths
    from pyreid.report import pair_ratios, weight_ratio
    from pyreid.report.activations import check_attention, has_attention

    paths = read_paths(images) if images else None
    first = _open(model, weights, settings or [], "--weights")
    second = None if against is None else _open(against, against_weights, against_settings or [], "--against-weights")
    if wanted is None:
        wanted = [kind for kind in What if kind != What.attention or has_attention(first.network)]
    # before the first picture is drawn
    if What.attention in wanted:
        check_attention(first.network)
    if second is not None and What.weights in wanted:
        pair_ratios(weight_ratio(first.network), weight_ratio(second.network))
    job = _Job(out, first, second, paths, input_size or first.images.size, tolerance, channels, csv)
    found: dict[str, Any] = {
        "model": model,
        "against": against,
        "images": [str(path) for path in paths] if paths else "drawn",
        "size": list(job.size),
    }
    tables = []
    for kind in wanted:
        numbers, table = _STEPS[kind](job)
        found[kind.value] = numbers
        tables.append(table)
    write_json(out / "inspection.json", found)
    _print(tables)
    files = ", ".join(["inspection.json", *(f"{kind.value}.png" for kind in wanted)])
    print(f"{out}: {files}" + (", and a .csv of each picture" if csv else ""))


@dataclass(frozen=True)
class _Job:
    """What the command was asked for."""

    out: Path
    first: Opened
    second: Opened | None
    paths: list[Path] | None
    size: tuple[int, int]
    tolerance: float
    channels: int | None
    csv: bool

    @property
    def title(self) -> str:
        """Above the pictures; where there are two networks a legend names them."""
        return self.first.label if self.second is None else ""

    def images(self, opened: Opened, count: int | None = None) -> Any:
        """The images, normalised for a network as they are asked for; drawn ones where none were given."""
        from pyreid.data.transforms import eval_transform
        from pyreid.inference.images import ImageItems
        from pyreid.inference.sample_images import sample_images

        items = self.paths if self.paths is not None else sample_images(SHOWN_IMAGES, self.size)
        return ImageItems(items[:count], eval_transform(self.size, mean=opened.images.mean, std=opened.images.std))

    def save(self, kind: What, result: Any, against: Any = None) -> dict[str, Any]:
        """The numbers for inspection.json, and the .csv where it was asked for."""
        if self.csv:
            result.save(self.out / f"{kind.value}.csv")
        numbers: dict[str, Any] = result.summary()
        if against is None:
            return numbers
        if self.csv:
            against.save(self.out / f"{kind.value}_against.csv")
        return {**numbers, "against": against.summary()}


def _density(job: _Job) -> tuple[dict[str, Any], Table]:
    from pyreid.report import activation_density, plot_activation_density

    opened = [job.first] if job.second is None else [job.first, job.second]
    densities = [activation_density(one.network, job.images(one), tolerance=job.tolerance) for one in opened]
    named = dict(zip(_labels(job), densities, strict=False)) if job.second else densities[0]
    plot_activation_density(named, job.out / "density.png", title=job.title)
    numbers = job.save(What.density, *densities)
    return numbers, _density_table(job, densities)


def _density_table(job: _Job, densities: list[ActivationDensity]) -> Table:
    table = _table("activation density", "stage", "layers", *_labels(job)[: len(densities)])
    for stage in dict.fromkeys(stage for density in densities for stage in density.stages):
        layers = sum(layer.stage == stage for layer in densities[0].layers)
        shares = [density.stages.get(stage) for density in densities]
        table.add_row(stage, str(layers), *("-" if share is None else f"{share:.3f}" for share in shares))
    return table


def _attention(job: _Job) -> tuple[dict[str, Any], Table]:
    from pyreid.report import attention_maps, plot_attention_maps

    maps: AttentionMaps = attention_maps(job.first.network, job.images(job.first, SHOWN_IMAGES))
    plot_attention_maps(maps, job.out / "attention.png", title=job.first.label)
    table = _table("global attention, mean over channels", "image", "before", "after")
    for row in maps.rows():
        ranges = (f"{row[f'{when}_min']:.3g} to {row[f'{when}_max']:.3g}" for when in ("before", "after"))
        table.add_row(str(row["image"] + 1), *ranges)
    return job.save(What.attention, maps), table


def _features(job: _Job) -> tuple[dict[str, Any], Table]:
    from pyreid.report import feature_maps, plot_feature_maps

    maps: FeatureMaps = feature_maps(job.first.network, job.images(job.first, SHOWN_IMAGES), channels=job.channels)
    plot_feature_maps(maps, job.out / "features.png", title=job.first.label)
    table = _table("feature maps", "stage", "channels", "size", "layer")
    for stage, found in maps.maps.items():
        height, width = found.shape[2:]
        table.add_row(stage, str(maps.widths[stage]), f"{height}x{width}", maps.layers[stage])
    return job.save(What.features, maps), table


def _weights(job: _Job) -> tuple[dict[str, Any], Table]:
    from pyreid.report import plot_weight_ratio, weight_ratio

    ratios = weight_ratio(job.first.network)
    other = None if job.second is None else weight_ratio(job.second.network)
    labels = _labels(job)
    plot_weight_ratio(ratios, job.out / "weights.png", against=other, labels=(labels[0], labels[-1]), title=job.title)
    numbers = job.save(What.weights, ratios, other)
    return numbers, _weights_table(labels, ratios, other)


def _weights_table(labels: list[str], ratios: WeightRatios, other: WeightRatios | None) -> Table:
    table = _table("largest / smallest filter", "convolution", "filters", *labels)
    others = {} if other is None else {layer.name: f"{layer.ratio:.2f}" for layer in other.layers}
    for layer in sorted(ratios.layers, key=lambda layer: -layer.ratio)[:SHOWN_LAYERS]:
        table.add_row(
            layer.name, str(layer.filters), f"{layer.ratio:.2f}", *([others.get(layer.name, "-")] if other else [])
        )
    both = [ratios] if other is None else [ratios, other]
    table.add_row(f"median of {len(ratios.layers)}", "", *(f"{found.median:.2f}" for found in both))
    table.add_row("dead filters", "", *(str(found.dead) for found in both))
    return table


_STEPS = {What.density: _density, What.attention: _attention, What.features: _features, What.weights: _weights}


def _labels(job: _Job) -> list[str]:
    """Names of the networks, told apart where they are the same."""
    if job.second is None:
        return [job.first.label]
    labels = [job.first.label, job.second.label]
    return labels if labels[0] != labels[1] else [labels[0], f"{labels[1]} (against)"]


def _table(title: str, *headings: str) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    for index, heading in enumerate(headings):
        table.add_column(escape(heading), justify="left" if index == 0 or heading == "layer" else "right")
    return table


def _print(tables: list[Table]) -> None:
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False)
    for table in tables:
        console.print(table)


def _open(name: str, weights: str | None, settings: list[str], option: str) -> Opened:
    import warnings

    import yaml

    from pyreid.inference.opening import find_run, open_model

    overrides: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not (key and equals):
            raise typer.BadParameter(f"--set: expected KEY=VALUE, got {setting}")
        overrides[key] = yaml.safe_load(value)
    if weights is None and find_run(name) is None:
        warnings.warn(f"model: {name} has fresh weights; pass {option}", stacklevel=2)
    opened = open_model(name, weights, overrides=overrides, partial="warn")
    return replace(opened, label=" ".join([opened.label, *settings]))
