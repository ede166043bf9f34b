"""ImageNet weights in models with timm backbones, of every architecture and of several at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from pyreid.errors import WeightsError
from pyreid.models import ReIDModel, create_model, load_weights
from pyreid.models import dare as dare_module
from pyreid.models.timm_backbones import make_backbone
from pyreid.models.weights import load_timm_weights

# model -> (its overrides, timm's network, what the network has besides the backbone)
ARCHITECTURES: dict[str, tuple[dict[str, str], str, set[str]]] = {
    "trinet_r18": ({}, "resnet18", {"fc.weight", "fc.bias"}),
    "dare_d201": ({"backbone": "densenet121"}, "densenet121", {"classifier.weight", "classifier.bias"}),
    "cw_mobilenet_v3_small": (
        {},
        "mobilenetv3_small_100",
        {"conv_head.weight", "conv_head.bias", "classifier.weight", "classifier.bias"},
    ),
    "cw_se_resnext50": ({}, "seresnext50_32x4d", {"fc.weight", "fc.bias"}),
}
# A ResNet-18's names are a part of a ResNet-34's; the third is a small one with bottlenecks.
SMALL_ENSEMBLE = {"resnet18": "resnet18", "resnet34": "resnet34", "resnet50": "test_resnet"}


def save(state: dict[str, Tensor], path: Path) -> Path:
    torch.save(state, path)
    return path


def check_backbone(model: nn.Module, state: dict[str, Tensor], *, path: str = "backbone") -> None:
    """Every tensor of the backbone is the one of that name in ``state``."""
    backbone = model.get_submodule(path).state_dict()
    assert backbone
    for name, value in backbone.items():
        assert torch.equal(value, state[name]), name


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_file_with_timm_s_whole_network(name: str, tmp_path: Path) -> None:
    overrides, network, left_over = ARCHITECTURES[name]
    state = timm.create_model(network, num_classes=10).state_dict()
    model = create_model(name, num_classes=4, **overrides)
    report = load_weights(model, save(state, tmp_path / "w.pth"))
    assert report.part == "backbone"
    assert set(report.ignored) == left_over
    assert set(report.loaded) == {f"backbone.{key}" for key in model.get_submodule("backbone").state_dict()}
    assert not [key for key in report.kept if key.startswith("backbone.")]
    assert "classifier.weight" in report.kept
    check_backbone(model, state)


@pytest.mark.parametrize("name", ["trinet_r18", "dare_d201", "cw_mobilenet_v3_small"])
def test_file_without_the_classifier(name: str, tmp_path: Path) -> None:
    overrides, network, _ = ARCHITECTURES[name]
    state = make_backbone(network).state_dict()
    model = create_model(name, weights=save(state, tmp_path / "w.pth"), **overrides)
    check_backbone(model, state)


@pytest.mark.parametrize(
    ("name", "broken"),
    [("cw_mobilenet_v3_small", "conv_stem.weight"), ("dare_d201", "features.norm5.weight"), ("trinet_r18", "bn1.bias")],
)
def test_all_but_the_classifier_is_strict(name: str, broken: str, tmp_path: Path) -> None:
    overrides, network, _ = ARCHITECTURES[name]
    model = create_model(name, **overrides)
    before = snapshot(model)
    state = timm.create_model(network).state_dict()
    value = state.pop(broken)
    with pytest.raises(WeightsError, match=rf"\(backbone\): 1 missing: {broken}$"):
        load_weights(model, save(state, tmp_path / "missing.pth"))
    state |= {broken: value, "extra.weight": value}
    with pytest.raises(WeightsError, match=r"\(backbone\): 1 unexpected: extra.weight$"):
        load_weights(model, save(state, tmp_path / "unexpected.pth"))
    del state["extra.weight"]
    state[broken] = value[:-1]
    with pytest.raises(WeightsError, match=rf"\(backbone\): 1 mis-shaped: {broken} has "):
        load_weights(model, save(state, tmp_path / "shape.pth"))
    assert all(torch.equal(now, before[key]) for key, now in model.state_dict().items())


@pytest.mark.parametrize(("name", "network"), [("trinet_r18", "resnet18"), ("dare_d201", "densenet121")])
def test_torchvision_s_files(name: str, network: str, tmp_path: Path) -> None:
    state = torchvision.models.get_model(network, weights=None).state_dict()
    model = create_model(name, weights=save(state, tmp_path / "w.pth"), **ARCHITECTURES[name][0])
    check_backbone(model, state)


def test_torchvision_s_older_densenet_names(tmp_path: Path) -> None:
    """The files that torchvision offers for download still have ``norm.1`` for ``norm1``."""
    state = torchvision.models.densenet121(weights=None).state_dict()
    old = {}
    for key, value in state.items():
        for layer in ("norm1", "norm2", "conv1", "conv2"):
            if "denselayer" in key:
                key = key.replace(layer, f"{layer[:-1]}.{layer[-1]}")
        old[key] = value
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    model = create_model("dare_d201", backbone="densenet121", weights=save(old, tmp_path / "w.pth"))
    check_backbone(model, state)


def test_torchvision_s_mobilenet_has_other_names(tmp_path: Path) -> None:
    state = torchvision.models.mobilenet_v3_small(weights=None).state_dict()
    with pytest.raises(WeightsError, match="does not fit VehicleNet"):
        create_model("cw_mobilenet_v3_small", weights=save(state, tmp_path / "w.pth"))


@pytest.fixture
def ensemble(monkeypatch: pytest.MonkeyPatch) -> ReIDModel:
    monkeypatch.setattr(dare_module, "ENSEMBLE", SMALL_ENSEMBLE)
    return create_model("trinet_ensemble", num_classes=3)


def test_each_file_finds_its_network_in_an_ensemble(ensemble: ReIDModel, tmp_path: Path) -> None:
    states = {net: timm.create_model(network).state_dict() for net, network in SMALL_ENSEMBLE.items()}
    for net, state in states.items():
        path = f"nets.{net}.backbone"
        report = load_weights(ensemble, save(state, tmp_path / f"{net}.pth"))
        assert report.part == "backbone"
        assert all(name.startswith(path) for name in report.loaded)
        assert set(report.loaded) | set(report.kept) == set(ensemble.state_dict())
    for net, state in states.items():
        check_backbone(ensemble, state, path=f"nets.{net}.backbone")


def test_a_file_that_fits_no_network_of_an_ensemble(ensemble: ReIDModel, tmp_path: Path) -> None:
    state = timm.create_model("resnet34").state_dict()
    del state["layer3.5.bn2.weight"]
    with pytest.raises(WeightsError, match=r"\(nets.resnet34.backbone\): 1 missing: layer3.5.bn2.weight$"):
        load_weights(ensemble, save(state, tmp_path / "w.pth"))


def test_a_trained_trinet_goes_into_the_ensemble(ensemble: ReIDModel, tmp_path: Path) -> None:
    trained = create_model("trinet_r18", num_classes=7)
    report = load_weights(ensemble.get_submodule("nets.resnet18"), save(trained.state_dict(), tmp_path / "r18.pt"))
    assert report.part == "model"
    assert report.ignored == ("classifier.weight",)
    images = torch.randn(2, 3, 32, 32)
    first = next(ensemble.eval().stages(images))
    assert torch.equal(first.embedding, trained.eval()(images))


def test_a_saved_ensemble_comes_back(ensemble: ReIDModel, tmp_path: Path) -> None:
    other = create_model("trinet_ensemble", num_classes=3)
    assert load_weights(other, save(ensemble.state_dict(), tmp_path / "model.pt")).part == "model"
    check_backbone(other, ensemble.state_dict(), path="")


def from_disk(monkeypatch: pytest.MonkeyPatch, files: dict[str, Path]) -> None:
    """Let timm read these files in place of the network; others cannot be had."""
    create = timm.create_model

    def make(name: str, *, pretrained: bool, **options: Any) -> nn.Module:
        if pretrained and name not in files:
            raise OSError("no network")
        return create(  # type: ignore[no-any-return]
            name,
            pretrained=pretrained,
            pretrained_cfg_overlay={"file": str(files[name])} if pretrained else None,
            **options,
        )

    monkeypatch.setattr(timm, "create_model", make)


def test_timm_s_own_loading_of_mobilenet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name = "mobilenetv3_small_100.lamb_in1k"
    state = timm.create_model(name).state_dict()
    from_disk(monkeypatch, {name: save(state, tmp_path / "w.pth")})
    check_backbone(create_model("cw_mobilenet_v3_small", weights="timm"), state)


def test_timm_s_own_loading_of_all_networks_or_of_none(
    ensemble: ReIDModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    states = {network: timm.create_model(network).state_dict() for network in SMALL_ENSEMBLE.values()}
    files = {network: save(state, tmp_path / f"{network}.pth") for network, state in states.items()}
    last = files.pop("test_resnet")
    before = snapshot(ensemble)
    with monkeypatch.context() as context:
        from_disk(context, files)
        with pytest.raises(WeightsError, match=r"timm cannot get the ImageNet weights of test_resnet \(no network\)"):
            load_timm_weights(ensemble)
    assert all(torch.equal(value, before[key]) for key, value in ensemble.state_dict().items())
    from_disk(monkeypatch, files | {"test_resnet": last})
    reports = load_timm_weights(ensemble)
    assert [str(report.path) for report in reports] == list(SMALL_ENSEMBLE.values())
    for net, network in SMALL_ENSEMBLE.items():
        check_backbone(ensemble, states[network], path=f"nets.{net}.backbone")
