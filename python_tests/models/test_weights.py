from __future__ import annotations

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from pyreid.errors import MissingDependencyError, WeightsError
from pyreid.models import create_model, load_weights

State = dict[str, Tensor]


def same(first: nn.Module, second: nn.Module, *, prefix: str = "") -> bool:
    theirs = second.state_dict()
    return all(torch.equal(v, theirs[k]) for k, v in first.state_dict().items() if k.startswith(prefix))


def save(state: object, path: Path) -> Path:
    if path.suffix == ".safetensors":
        assert isinstance(state, dict)
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".safetensors"])
def test_a_saved_model_comes_back(tmp_path: Path, suffix: str) -> None:
    saved = create_model("rmnet", num_classes=3)
    path = save(saved.state_dict(), tmp_path / f"model{suffix}")
    model = create_model("rmnet", num_classes=3, weights=str(path))
    assert same(saved, model)
    report = load_weights(model, path)
    assert report.part == "model"
    assert set(report.loaded) == set(saved.state_dict())
    assert report.kept == report.ignored == ()
    assert report.path == path


def test_a_report_is_printed_in_a_few_names(tmp_path: Path) -> None:
    path = save(create_model("cw_mobilenet_v3_small", num_classes=3).state_dict(), tmp_path / "model.pt")
    report = load_weights(create_model("cw_mobilenet_v3_small"), path)
    names = list(report.loaded)
    assert repr(report) == (
        f"WeightsReport(path='{path}', part='model', loaded={len(names)} names ({names[0]}, {names[1]}, {names[2]} and "
        f"{len(names) - 3} more), kept=0 names, ignored=2 names (classifier.weight, classifier.bias))"
    )


def test_what_is_no_file_of_weights(tmp_path: Path) -> None:
    model = create_model("cw_mobilenet_v3_small")
    with pytest.raises(TypeError, match=r"weights: got .* OrderedDict, expected the path .*; a state dict goes into"):
        load_weights(model, model.state_dict())  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match=r"is a folder, expected a file that ends in \.pt, "):
        load_weights(model, tmp_path)
    path = save(model.state_dict(), tmp_path / "model.pt")
    with pytest.raises(ValueError, match="part: got 'whole', expected 'model', 'backbone' or None"):
        load_weights(model, path, part="whole")  # type: ignore[arg-type]
    with torch.device("meta"), pytest.raises(WeightsError, match="cannot be loaded into VehicleNet on the meta device"):
        create_model("cw_mobilenet_v3_small", weights=path)


WRAPPERS: dict[str, Callable[[State], object]] = {
    "DataParallel": lambda state: {f"module.{k}": v for k, v in state.items()},
    "compiled in DDP": lambda state: {f"module._orig_mod.{k}": v for k, v in state.items()},
    "nested": lambda state: {"epoch": 3, "state_dict": state},
    "nested as model": lambda state: {"model": state, "optimizer": {"lr": 0.1}},
    "Lightning": lambda state: {
        "epoch": 1,
        "state_dict": {f"model.{k}": v for k, v in state.items()} | {"center_loss.centers": torch.zeros(3, 256)},
    },
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers_are_taken_off(tmp_path: Path, wrapper: str) -> None:
    saved = create_model("rmnet", num_classes=3)
    path = save(WRAPPERS[wrapper](saved.state_dict()), tmp_path / "model.pt")
    model = create_model("rmnet", num_classes=3)
    report = load_weights(model, path)
    assert same(saved, model)
    assert report.ignored == (("center_loss.centers",) if wrapper == "Lightning" else ())


@pytest.mark.parametrize(("in_file", "in_model"), [(3, 0), (0, 3), (3, 4)])
def test_the_classifier_may_differ(tmp_path: Path, in_file: int, in_model: int) -> None:
    path = save(create_model("rmnet", num_classes=in_file).state_dict(), tmp_path / "model.pt")
    model = create_model("rmnet", num_classes=in_model)
    before = None if model.classifier is None else model.get_parameter("classifier.weight").clone()
    report = load_weights(model, path)
    assert report.ignored == (("classifier.weight",) if in_file else ())
    assert report.kept == (("classifier.weight",) if in_model else ())
    if before is not None:
        assert torch.equal(model.get_parameter("classifier.weight"), before)


def test_what_does_not_fit_is_listed_and_nothing_is_loaded(tmp_path: Path) -> None:
    state = create_model("rmnet").state_dict()
    del state["stem.conv.weight"], state["calibration.weight"]
    state["neck.weight"] = torch.zeros(3)
    state["blocks.0.expand.conv.weight"] = torch.zeros(32, 9, 1, 1)
    path = save(state, tmp_path / "other.pt")
    model = create_model("rmnet")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        load_weights(model, path)
    assert str(caught.value) == (
        f"weights: {path} does not fit RMNet (model): 2 missing: stem.conv.weight, calibration.weight; "
        "1 unexpected: neck.weight; "
        "1 mis-shaped: blocks.0.expand.conv.weight has (32, 9, 1, 1) instead of (32, 8, 1, 1)"
    )
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_long_lists_are_cut(tmp_path: Path) -> None:
    path = save(create_model("safr_small").state_dict(), tmp_path / "resnet.pt")
    with pytest.raises(
        WeightsError, match=r"does not fit RMNet \(model\): 575 missing: input_bn.weight, .* and 565 more; 128"
    ):
        load_weights(create_model("rmnet"), path)


def test_older_files_without_batch_counters(tmp_path: Path) -> None:
    saved = create_model("rmnet")
    state = {k: v for k, v in saved.state_dict().items() if not k.endswith("num_batches_tracked")}
    model = create_model("rmnet")
    report = load_weights(model, save(state, tmp_path / "model.pt"))
    assert "input_bn.num_batches_tracked" in report.kept
    assert torch.equal(model.get_parameter("stem.conv.weight"), saved.get_parameter("stem.conv.weight"))


def test_imagenet_weights_of_the_backbone(tmp_path: Path) -> None:
    imagenet = timm.create_model("resnet18", num_classes=10)
    path = save(imagenet.state_dict(), tmp_path / "resnet18.pth")
    model = create_model("safr_small", num_classes=4)
    report = load_weights(model, path)
    assert report.part == "backbone"
    assert report.ignored == ("fc.weight", "fc.bias")
    assert "neck.weight" in report.kept
    assert "classifier.weight" in report.kept
    assert all(name.startswith("backbone.") for name in report.loaded)
    theirs = imagenet.state_dict()
    assert all(torch.equal(v, theirs[k]) for k, v in model.get_submodule("backbone").state_dict().items())


def test_a_foreign_backbone_is_refused(tmp_path: Path) -> None:
    path = save(timm.create_model("resnet34").state_dict(), tmp_path / "resnet34.pth")
    with pytest.raises(WeightsError, match=r"does not fit SAFR \(backbone\): \d+ unexpected: layer1.2.conv1.weight"):
        create_model("safr_small", weights=path)
    with pytest.raises(WeightsError, match="part='backbone', but RMNet has no timm backbone"):
        load_weights(create_model("rmnet"), path, part="backbone")


def test_timm_s_own_loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``weights="timm"``, with timm reading its file from the disk in place of the network."""
    imagenet = timm.create_model("resnet18.tv_in1k")
    path = save(imagenet.state_dict(), tmp_path / "resnet18.pth")
    create = timm.create_model

    def from_disk(name: str, *, pretrained: bool, **options: Any) -> nn.Module:
        overlay = {"file": str(path)} if pretrained else None
        return create(name, pretrained=pretrained, pretrained_cfg_overlay=overlay, **options)

    monkeypatch.setattr(timm, "create_model", from_disk)
    model = create_model("safr_small", weights="timm")
    theirs = imagenet.state_dict()
    assert all(torch.equal(v, theirs[k]) for k, v in model.get_submodule("backbone").state_dict().items())


def test_timm_without_network_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def offline(name: str, *, pretrained: bool, **options: Any) -> nn.Module:
        if pretrained:
            raise OSError("We couldn't connect to 'https://huggingface.co'.\nCheck your internet connection.")
        return create(name, pretrained=pretrained, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(WeightsError) as caught:
        create_model("safr_small", weights="timm")
    assert str(caught.value) == (
        "weights: timm cannot get the ImageNet weights of resnet18.tv_in1k "
        "(We couldn't connect to 'https://huggingface.co'.); "
        "without the network give the path of a weights file, or for fresh values weights=None (--weights none, in a "
        "recipe model.weights=null)"
    )


def test_timm_weights_need_a_timm_backbone() -> None:
    with pytest.raises(WeightsError, match="'timm' needs a model with a timm backbone, and RMNet has none"):
        create_model("rmnet", weights="timm")


def test_unreadable_files(tmp_path: Path) -> None:
    def message(path: Path) -> str:
        with pytest.raises(WeightsError) as caught:
            create_model("rmnet", weights=path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert message(tmp_path / "none.pt") == f"weights: no such file: {tmp_path / 'none.pt'}"
    (tmp_path / "a.onnx").write_bytes(b"x")
    assert "ends in '.onnx', expected one of .pt, .pth, .ckpt, .safetensors" in message(tmp_path / "a.onnx")
    for name in ("a.pt", "b.safetensors"):
        (tmp_path / name).write_bytes(b"not weights at all")
    assert f"{tmp_path / 'a.pt'} is damaged, cut off, or holds more than plain tensors" in message(tmp_path / "a.pt")
    assert "is not a readable safetensors file" in message(tmp_path / "b.safetensors")
    assert "holds an object of type Tensor" in message(save(torch.zeros(2), tmp_path / "tensor.pt"))
    assert "holds a mapping with the keys epoch, lr, expected" in message(
        save({"epoch": 1, "lr": 0.1}, tmp_path / "log.pt")
    )
    # a pickled object is code, which weights_only refuses
    assert "is damaged, cut off, or holds more than plain tensors" in message(
        save({"model": nn.Linear(1, 1)}, tmp_path / "object.pt")
    )


def test_safetensors_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(create_model("rmnet").state_dict(), tmp_path / "model.safetensors")
    original = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "safetensors":
            raise ModuleNotFoundError("No module named 'safetensors'")
        return original(name, *args, **kwargs)

    import importlib

    import_module = importlib.import_module
    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr(
        importlib, "import_module", lambda name, *a: without(name) if name == "safetensors" else import_module(name, *a)
    )
    with pytest.raises(
        MissingDependencyError, match=r"safetensors cannot be imported .* pip install 'pyreid\[train\]'"
    ):
        create_model("rmnet", weights=path)


def refused(state: object, path: Path) -> str:
    """The one line with which a file of these values is refused; the model stays as it was."""
    model = create_model("rmnet")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    torch.save(state, path)
    with pytest.raises(WeightsError) as caught:
        load_weights(model, path)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_variance_below_zero(tmp_path: Path) -> None:
    state = create_model("rmnet").state_dict()
    state["stem.bn.running_var"][3] = -0.25
    path = tmp_path / "w.pt"
    expected = f"weights: {path} holds -0.25 in stem.bn.running_var, expected variances of 0 or more"
    assert refused(state, path) == expected


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_integers_in_place_of_weights(dtype: torch.dtype, tmp_path: Path) -> None:
    state = create_model("rmnet").state_dict()
    state["stem.conv.weight"] = torch.ones(32, 3, 3, 3, dtype=dtype)
    path = tmp_path / "w.pt"
    name = str(dtype).removeprefix("torch.")
    assert refused(state, path) == (f"weights: {path} holds {name} values in stem.conv.weight, expected floating-point")


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(("value", "kind"), [([1.0, 2.0], "list"), (3, "int"), ({"a": 1}, "dict"), (None, "NoneType")])
def test_values_that_are_no_tensors(value: object, kind: str, nested: bool, tmp_path: Path) -> None:
    state: dict[Any, Any] = {**create_model("rmnet").state_dict(), "stem.conv.weight": value}
    path = tmp_path / "w.pt"
    message = refused({"epoch": 4, "state_dict": state} if nested else state, path)
    assert message.startswith(f"weights: {path} holds {kind} under 'stem.conv.weight' among its tensors, expected")
    assert "a name of type int under 7" in refused({**create_model("rmnet").state_dict(), 7: torch.zeros(1)}, path)


def test_float_counters_and_half_precision_load(tmp_path: Path) -> None:
    """A half-precision copy of a model, and counters that an average of weights has made real."""
    saved = create_model("rmnet").half()
    state = {k: v.float() if k.endswith("num_batches_tracked") else v for k, v in saved.state_dict().items()}
    torch.save(state, tmp_path / "w.pt")
    model = create_model("rmnet", weights=tmp_path / "w.pt")
    assert torch.equal(model.get_parameter("stem.conv.weight"), saved.get_parameter("stem.conv.weight").float())


@pytest.mark.parametrize(("value", "match"), [(torch.nan, "NaN or infinite values"), (1j, "complex numbers")])
def test_values_that_are_no_weights(value: complex, match: str, tmp_path: Path) -> None:
    model = create_model("rmnet")
    state = model.state_dict()
    name = next(key for key, tensor in state.items() if tensor.is_floating_point())
    state[name] = state[name] + torch.tensor(value)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=f"{match} in {name}"):
        load_weights(create_model("rmnet"), tmp_path / "w.pt")
