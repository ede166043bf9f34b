"""Looking inside networks: exact numbers on tiny ones, the right layers of the zoo's, and nothing left behind."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from pyreid.inference.sample_images import sample_images
from pyreid.layers import GlobalAttention
from pyreid.models import create_model, list_models
from pyreid.report import (
    activation_density,
    attention_maps,
    feature_maps,
    pair_ratios,
    plot_activation_density,
    plot_attention_maps,
    plot_feature_maps,
    plot_weight_ratio,
    weight_ratio,
)
from pyreid.report.activations import normalise_map
from pyreid.report.inspection import save_numbers

SOME = ["rmnet", "safr_small", "safr_micro", "compact_reid_1x", "dare_r50", "cw_se_resnet18_concat"]


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(1))


def conv(weights: list[float], *, inputs: int = 1) -> nn.Conv2d:
    """1x1 without bias; each filter has the same weight for all inputs."""
    layer = nn.Conv2d(inputs, len(weights), 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weights)[:, None, None, None].expand_as(layer.weight))
    return layer


def tiny(activation: nn.Module | None = None) -> nn.Sequential:
    """Four channels of 1, -1, 2 and 0 times the sum of the input's channels."""
    return nn.Sequential(conv([1.0, -1.0, 2.0, 0.0], inputs=3), activation or nn.ReLU(inplace=True))


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_density_counts_exactly() -> None:
    images = torch.ones(2, 3, 2, 2)
    images[1] = 0
    images[1, :, 0, 0] = -1
    density = activation_density(tiny(), images)
    (layer,) = density.layers
    # the first image: two of four channels, four pixels; the second: one channel at one pixel
    assert (layer.name, layer.active, layer.elements) == ("1", 9, 32)
    assert layer.density == 9 / 32
    assert (density.images, density.stages) == (2, {"1": 9 / 32})


def test_density_with_a_tolerance_is_strict() -> None:
    images = torch.full((1, 3, 1, 1), 1 / 3)  # channels of 1, -1, 2 and 0
    leaky = tiny(nn.LeakyReLU(0.25))
    values = {tolerance: activation_density(leaky, images, tolerance=tolerance) for tolerance in (0.0, 0.25, 0.5, 2.5)}
    assert [density.layers[0].active for density in values.values()] == [3, 2, 2, 0]
    assert activation_density(tiny(nn.Sigmoid()), images).layers[0].density == 1


def test_density_of_an_activation_before_the_next_layer_overwrites_it() -> None:
    class Overwrites(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.fill_(7)

    images = torch.ones(1, 3, 2, 2)
    assert activation_density(nn.Sequential(tiny(), Overwrites()), images).layers[0].density == 0.5
    maps = feature_maps(nn.Sequential(tiny(), Overwrites()), images, channels=4)
    np.testing.assert_allclose(maps.maps["0"][0, :, 0, 0], [3, 0, 6, 0])


def test_a_module_that_runs_twice_is_one_layer_and_order_is_that_of_the_data() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.late = nn.ReLU()
            self.early = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.late(self.early(self.early(x) - 1))

    density = activation_density(Twice(), torch.ones(1, 3, 1, 1))
    assert [(layer.name, layer.active, layer.elements) for layer in density.layers] == [("early", 3, 6), ("late", 0, 3)]


def test_many_images_are_counted_in_batches() -> None:
    seen = []

    class Notes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(len(x))
            return x

    density = activation_density(nn.Sequential(Notes(), tiny()), torch.ones(70, 3, 1, 1))
    assert seen == [32, 32, 6]
    assert (density.images, density.layers[0].elements, density.layers[0].density) == (70, 280, 0.5)


@pytest.mark.parametrize("name", list_models())
def test_every_model_has_a_stem_and_stages(name: str, images: Tensor) -> None:
    model = create_model(name)
    density = activation_density(model, images)
    stages = list(density.stages)
    maps = feature_maps(model, images)
    three = name.startswith(("hacnn", "compact"))
    numbered = [f"stage{number}" for number in range(1, 4 if three else 5)]
    if name == "trinet_ensemble":
        assert stages == [f"{net}/{s}" for net in ("resnet18", "resnet34", "resnet50") for s in ("stem", *numbered)]
        numbered = [f"{net}/{stage}" for net in ("resnet18", "resnet34", "resnet50") for stage in numbered]
    else:
        assert [stage for stage in stages if not stage.startswith("local")] == ["stem", *numbered]
    assert list(maps.maps) == numbered
    assert all(0 < layer.density <= 1 for layer in density.layers)
    assert len({layer.name for layer in density.layers}) == len(density.layers)
    assert hooks(model) == 0
    assert model.training


@pytest.mark.parametrize(
    ("name", "count", "names"),
    [
        ("safr_small", 9, ["backbone.act1", "dbam.layer1_0", "backbone.layer1.1", "backbone.layer2.0"]),
        ("safr_micro", 24, ["backbone.stem", "global_attention", "backbone.units.0", "dbam", "extra_xception"]),
        ("rmnet", 37, ["stem", "blocks.0", "blocks.1"]),
        ("compact_reid_1x", 34, ["stem", "global_stages.0.0", "global_stages.0.1"]),
        ("dare_d201", 99, ["backbone.features.norm0", "backbone.features.denseblock1.denselayer1.norm2"]),
        ("cw_mobilenet_v3_small", 13, ["backbone.bn1", "backbone.blocks.0.0.bn1", "backbone.blocks.1.0.bn2"]),
        ("safr_large", 17, ["backbone.act1", *(f"dbam.layer1_{index}" for index in range(3)), "dbam.layer2_0"]),
    ],
)
def test_layers_of_the_zoo(name: str, count: int, names: list[str], images: Tensor) -> None:
    layers = activation_density(create_model(name), images).layers
    assert len(layers) == count
    assert [layer.name for layer in layers[: len(names)]] == names


def test_stages_of_rmnet_are_those_of_the_paper(images: Tensor) -> None:
    layers = activation_density(create_model("rmnet"), images).layers
    sizes = {
        stage: [layer.stage for layer in layers].count(stage) for stage in ("stage1", "stage2", "stage3", "stage4")
    }
    assert sizes == {"stage1": 4, "stage2": 9, "stage3": 11, "stage4": 12}


def test_densities_are_those_of_the_maps(images: Tensor) -> None:
    """The stages' last layers, counted from the maps that the other function gives."""
    model = create_model("safr_small")
    density = {layer.name: layer.density for layer in activation_density(model, images).layers}
    maps = feature_maps(model, images, channels=10_000)
    for stage, values in maps.maps.items():
        assert values.shape[1] == maps.widths[stage]
        assert density[maps.layers[stage]] == np.count_nonzero(values) / values.size


@pytest.mark.parametrize("name", SOME)
def test_all_four_in_evaluation_mode_leave_the_model_as_it_was(name: str, images: Tensor) -> None:
    model = create_model(name, num_classes=3).train()
    model.get_submodule(next(iter(dict(model.named_children())))).eval()
    modes = [module.training for module in model.modules()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    assert activation_density(model, images) == activation_density(model, images)
    first, second = feature_maps(model, images), feature_maps(model, images)
    for stage in first.maps:
        np.testing.assert_array_equal(first.maps[stage], second.maps[stage])
    assert weight_ratio(model) == weight_ratio(model)
    if name.startswith("safr"):
        attention_maps(model, images)
    assert [module.training for module in model.modules()] == modes
    assert hooks(model) == 0
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_no_gradients_are_recorded() -> None:
    recorded = []

    class Notes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            recorded.append((x.requires_grad, self.training))
            return x

    activation_density(nn.Sequential(tiny(), Notes()), torch.ones(1, 3, 1, 1))
    assert recorded == [(False, False)]


def test_hooks_and_modes_are_restored_after_an_error() -> None:
    class Breaks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("broken")

    model = nn.Sequential(tiny(), GlobalAttention(4), Breaks())
    kept = model[0].register_forward_hook(lambda *_: None)
    for look in (activation_density, feature_maps, attention_maps):
        with pytest.raises(RuntimeError, match="broken"):
            look(model, torch.ones(1, 3, 2, 2))  # type: ignore[operator]
        assert model.training
        assert hooks(model) == 1
    kept.remove()


def test_attention_maps_are_means_before_and_after() -> None:
    model = nn.Sequential(tiny(), GlobalAttention(4))
    with torch.no_grad():
        model[1].conv2.weight.zero_()  # the gate is sigmoid(0) everywhere
    images = torch.rand(3, 3, 4, 2)
    maps = attention_maps(model, images)
    expected = 0.75 * images.sum(1)
    np.testing.assert_allclose(maps.before["1"], expected, rtol=1e-5)
    np.testing.assert_allclose(maps.after["1"], expected / 2, rtol=1e-5)
    assert len(maps.rows()) == 3


@pytest.mark.parametrize(("name", "size"), [("safr_small", (32, 16)), ("safr_micro", (32, 16))])
def test_attention_maps_of_the_zoo(name: str, size: tuple[int, int], images: Tensor) -> None:
    maps = attention_maps(create_model(name), images)
    assert maps.before["global_attention"].shape == maps.after["global_attention"].shape == (2, *size)
    assert not np.array_equal(maps.before["global_attention"], maps.after["global_attention"])


@pytest.mark.parametrize("name", ["rmnet", "safr_baseline", "compact_reid_1x"])
def test_models_without_attention_are_told_which_have_it(name: str, images: Tensor) -> None:
    with pytest.raises(
        ValueError, match=r"has no global attention; models that have: safr_large, safr_medium, safr_micro, safr_small$"
    ):
        attention_maps(create_model(name), images)


def test_feature_maps_of_chosen_stages_and_channels(images: Tensor) -> None:
    model = create_model("cw_se_resnet18_concat").eval()
    maps = feature_maps(model, images, stages=["stage3", "stage1"], channels=5)
    assert {stage: x.shape for stage, x in maps.maps.items()} == {"stage3": (2, 5, 4, 2), "stage1": (2, 5, 16, 8)}
    assert maps.layers == {"stage3": "backbone.layer3.1", "stage1": "backbone.layer1.1"}
    with torch.no_grad():
        stem = model.backbone.maxpool(model.backbone.act1(model.backbone.bn1(model.backbone.conv1(images))))
        expected = model.backbone.layer1(stem)
    np.testing.assert_array_equal(maps.maps["stage1"], expected[:, :5].numpy())
    mean = feature_maps(model, images, stages=["stage1"]).maps["stage1"]
    np.testing.assert_allclose(mean, expected.mean(1, keepdim=True).numpy(), rtol=1e-5)


def test_maps_of_a_densenet_are_whole_dense_blocks(images: Tensor) -> None:
    maps = feature_maps(create_model("dare_d201"), images)
    assert maps.widths == {"stage1": 256, "stage2": 512, "stage3": 1792, "stage4": 1920}


def test_normalised_maps() -> None:
    np.testing.assert_array_equal(normalise_map(np.array([[1, 3], [2, 5]], np.float32)), [[0, 0.5], [0.25, 1]])
    np.testing.assert_array_equal(normalise_map(np.full((2, 2), 3, np.float32)), np.zeros((2, 2)))


def test_weight_ratios_are_exact() -> None:
    model = nn.Sequential(conv([0.5, -2.0, 1.0]), nn.ReLU(), conv([3.0, 3.0], inputs=3), nn.Linear(2, 2))
    layers = weight_ratio(model).layers
    assert [(layer.name, layer.filters, layer.ratio, layer.dead) for layer in layers] == [
        ("0", 3, 4, 0),
        ("2", 2, 1, 0),
    ]
    with torch.no_grad():  # the mean of absolute weights, not the absolute mean
        model[2].weight[0] = torch.tensor([1.0, -1.0, 4.0])[:, None, None]
    last = weight_ratio(model).layers[1]
    assert (last.largest, last.smallest, last.ratio) == (3, 2, 1.5)


def test_dead_filters_are_infinite_and_written(tmp_path: Path) -> None:
    ratios = weight_ratio(nn.Sequential(conv([1.0, 0.0, 0.0]), conv([0.0], inputs=3), conv([1.0, 2.0])))
    assert [layer.ratio for layer in ratios.layers] == [math.inf, math.inf, 2]
    assert [layer.dead for layer in ratios.layers] == [2, 1, 0]
    assert (ratios.dead, ratios.median) == (3, math.inf)
    ratios.save(tmp_path / "w.json")
    ratios.save(tmp_path / "w.csv")
    saved = json.loads((tmp_path / "w.json").read_text())
    assert [layer["ratio"] for layer in saved["layers"]] == [None, None, 2.0]
    with (tmp_path / "w.csv").open() as file:
        assert [row["ratio"] for row in csv.DictReader(file)] == ["inf", "inf", "2.0"]


@pytest.mark.parametrize("name", SOME)
def test_weight_ratios_of_the_zoo(name: str) -> None:
    model = create_model(name)
    ratios = weight_ratio(model)
    assert len(ratios.layers) == sum(isinstance(module, nn.Conv2d) for module in model.modules())
    assert all(1 <= layer.ratio < 1000 for layer in ratios.layers)


def test_pairs_are_sorted_by_the_first() -> None:
    first = weight_ratio(nn.ModuleDict({"a": conv([1.0, 3.0]), "b": conv([1.0, 2.0]), "only": conv([1.0])}))
    second = weight_ratio(nn.ModuleDict({"b": conv([1.0, 9.0]), "a": conv([1.0, 5.0])}))
    assert [(x.name, x.ratio, y.ratio) for x, y in pair_ratios(first, second)] == [("b", 2, 9), ("a", 3, 5)]
    with pytest.raises(ValueError, match="against: got 0 and others, expected convolutions that the first network has"):
        pair_ratios(first, weight_ratio(nn.Sequential(conv([1.0]))))


def test_relu_against_elu_is_drawn_in_the_order_of_relu(tmp_path: Path) -> None:
    relu, elu = (weight_ratio(create_model("rmnet", activation=name)) for name in ("relu", "elu"))
    figure = plot_weight_ratio(relu, tmp_path / "w.png", against=elu, labels=("ReLU", "ELU"))
    lines = {line.get_label(): list(line.get_ydata()) for line in figure.axes[0].get_lines()}
    assert lines["ReLU"] == sorted(layer.ratio for layer in relu.layers)
    assert sorted(lines["ELU"]) == sorted(layer.ratio for layer in elu.layers)
    with Image.open(tmp_path / "w.png") as image:
        assert image.size == (1200, 540)


def test_plot_of_dead_filters(tmp_path: Path) -> None:
    ratios = weight_ratio(nn.Sequential(conv([1.0, 4.0]), conv([1.0, 0.0])))
    figure = plot_weight_ratio(ratios, tmp_path / "w.png", labels=("net", ""))
    finite, dead = figure.axes[0].get_lines()
    assert finite.get_ydata()[0] == 4
    assert (list(dead.get_xdata()), dead.get_label()) == ([2], "net: infinite, a filter is dead")
    plot_weight_ratio(weight_ratio(nn.Sequential(conv([0.0]))), tmp_path / "all.png")


@pytest.mark.parametrize("name", SOME)
def test_pictures_and_files_of_the_zoo(name: str, images: Tensor, tmp_path: Path) -> None:
    model = create_model(name)
    density = activation_density(model, images)
    maps = feature_maps(model, images)
    plot_activation_density(density, tmp_path / "density.png", title=name)
    plot_feature_maps(maps, tmp_path / "features.png")
    plot_feature_maps(feature_maps(model, images, channels=2), tmp_path / "channels.png", image=1)
    plot_weight_ratio(weight_ratio(model), tmp_path / "weights.png")
    if name.startswith("safr"):
        attention = attention_maps(model, images)
        plot_attention_maps(attention, tmp_path / "attention.png")
        attention.save(tmp_path / "attention.csv")
        attention.save(tmp_path / "attention.json")
    for result, kind in ((density, "density"), (maps, "features")):
        result.save(tmp_path / f"{kind}.csv")
        result.save(tmp_path / f"{kind}.json")
    for path in tmp_path.glob("*.png"):
        with Image.open(path) as image:
            assert min(image.size) > 100
            assert image.format == "PNG"
    saved = json.loads((tmp_path / "density.json").read_text())
    assert [layer["density"] for layer in saved["layers"]] == [layer.density for layer in density.layers]
    with (tmp_path / "density.csv").open() as file:
        assert [float(row["density"]) for row in csv.DictReader(file)] == [layer.density for layer in density.layers]
    assert not list(tmp_path.glob(".*"))


def test_density_figure_holds_the_numbers(images: Tensor) -> None:
    found = {name: activation_density(create_model(name), images) for name in ("safr_baseline", "safr_large")}
    figure = plot_activation_density(found)
    left, right = figure.axes
    for line, by_stage, density in zip(left.get_lines(), right.get_lines(), found.values(), strict=True):
        assert list(line.get_ydata()) == [layer.density for layer in density.layers]
        assert list(by_stage.get_ydata()) == list(density.stages.values())


def test_files_and_arrays_are_taken_as_by_the_extractor(tmp_path: Path) -> None:
    model = create_model("rmnet")
    arrays = sample_images(2, (40, 20))
    paths = []
    for index, array in enumerate(arrays):
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(array).save(paths[-1])
    from_files, from_arrays = feature_maps(model, paths), feature_maps(model, arrays)
    np.testing.assert_array_equal(from_files.maps["stage4"], from_arrays.maps["stage4"])
    assert from_files.images.shape == (2, 160, 64, 3)
    same_size = feature_maps(model, sample_images(1, (160, 64)))
    np.testing.assert_allclose(same_size.images[0] * 255, sample_images(1, (160, 64))[0], atol=1e-3)


def test_errors(images: Tensor, tmp_path: Path) -> None:
    model = tiny()
    for wrong in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"tolerance: got .*, expected 0 or more"):
            activation_density(model, images, tolerance=wrong)
    with pytest.raises(ValueError, match="images: expected at least one, got none"):
        activation_density(model, [])
    with pytest.raises(ValueError, match=r"images: item 1: got shape \(3, 5, 4\), the first has \(3, 4, 4\)"):
        activation_density(model, [torch.ones(3, 4, 4), torch.ones(3, 5, 4)])
    with pytest.raises(ValueError, match="model: NaN or infinite activations in 1"):
        activation_density(model, torch.full((1, 3, 2, 2), math.inf))
    with pytest.raises(ValueError, match="model: Linear has neither blocks that are known nor activation modules"):
        activation_density(nn.Linear(2, 2), images)
    with pytest.raises(ValueError, match=r"stages: got stage9, expected some of stage1, stage2, stage3, stage4"):
        feature_maps(create_model("rmnet"), images, stages=["stage1", "stage9"])
    with pytest.raises(ValueError, match="stages: got none, expected some of"):
        feature_maps(create_model("rmnet"), images, stages=[])
    with pytest.raises(ValueError, match="channels: got 0, expected at least 1"):
        feature_maps(model, images, channels=0)
    with pytest.raises(ValueError, match="model: Linear has no convolutions"):
        weight_ratio(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="model: NaN or infinite weights in 0"):
        weight_ratio(nn.Sequential(conv([1.0, math.nan])))
    with pytest.raises(ValueError, match="image: got 2, expected 0 to 1"):
        plot_feature_maps(feature_maps(model, images), image=2)
    with pytest.raises(ValueError, match="densities: expected at least one, got none"):
        plot_activation_density({})
    with pytest.raises(ValueError, match=r"path: expected a file that ends in \.png, got .*x\.jpg"):
        plot_feature_maps(feature_maps(model, images), tmp_path / "x.jpg")
    with pytest.raises(ValueError, match=r"path: expected a file that ends in \.csv or \.json, got .*x\.txt"):
        save_numbers(tmp_path / "x.txt", [], {})
    assert not list(tmp_path.iterdir())
