from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pyreid import models
from pyreid.models import registry
from pyreid.models.rmnet import RMNetConfig


def test_lists_the_zoo_in_natural_order(monkeypatch: pytest.MonkeyPatch) -> None:
    assert models.list_models() == [
        "compact_reid_1x",
        "compact_reid_2x",
        "cw_mobilenet_v3_small",
        "cw_resnet18",
        "cw_resnet18_cbam",
        "cw_resnet18_cbam_concat",
        "cw_resnet50",
        "cw_se_resnet18",
        "cw_se_resnet18_add",
        "cw_se_resnet18_concat",
        "cw_se_resnet18_gconcat",
        "cw_se_resnext50",
        "dare_d201",
        "dare_r50",
        "hacnn",
        "rmnet",
        "safr_baseline",
        "safr_large",
        "safr_medium",
        "safr_micro",
        "safr_small",
        "shufflenet_v2_plus_large",
        "shufflenet_v2_plus_medium",
        "shufflenet_v2_plus_small",
        "trinet_ensemble",
        "trinet_r18",
        "trinet_r34",
        "trinet_r50",
    ]
    assert models.list_models("safr_*l") == ["safr_small"]
    assert models.list_models("resnet*") == []
    entry = models.model_entry("rmnet")
    monkeypatch.setattr(registry, "_ENTRIES", dict.fromkeys(["net_x10", "net_x2", "net", "net_x2b"], entry))
    assert models.list_models() == ["net", "net_x2", "net_x2b", "net_x10"]


def test_registers_a_function_under_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_ENTRIES", {})

    @models.register_model
    def tiny_rmnet(activation: str = "relu") -> RMNetConfig:
        """A first line.

        And a second.
        """
        return RMNetConfig(activation=activation, calibration="none")  # type: ignore[arg-type]

    entry = models.model_entry("tiny_rmnet")
    assert entry.summary == "A first line."
    assert entry.options[0] == "activation"
    assert models.resolve_config("tiny_rmnet", activation="elu", dropout=0.5, num_classes=3) == RMNetConfig(
        activation="elu", calibration="none", dropout=0.5, num_classes=3
    )
    with pytest.raises(ValueError, match="'tiny_rmnet' is registered twice"):
        models.register_model(tiny_rmnet)


def test_a_model_needs_a_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent() -> RMNetConfig:
        return RMNetConfig()

    monkeypatch.setattr(registry, "_ENTRIES", {})
    with pytest.raises(ValueError, match="'silent' has no docstring"):
        models.register_model(silent)


def test_unknown_name_offers_close_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown name 'safr_smal'; did you mean safr_small or "):
        models.create_model("safr_smal")
    with pytest.raises(ValueError, match=r"unknown name 'zzz'; expected one of .*compact_reid_1x, .*safr_baseline"):
        models.create_model("zzz")
    with pytest.raises(ValueError, match=r"unknown name 'runs/first'; .* pyreid.FeatureExtractor opens runs"):
        models.create_model("runs/first")


def test_names_and_weights_of_another_type() -> None:
    with pytest.raises(TypeError, match="model: got 5 of type int, expected a name"):
        models.create_model(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="pattern: got None of type NoneType, expected str"):
        models.list_models(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="weights: got an object of type int, expected the path of a file"):
        models.create_model("cw_mobilenet_v3_small", weights=5)  # type: ignore[arg-type]


def test_unknown_override_is_named_with_the_allowed_ones() -> None:
    with pytest.raises(
        ValueError, match=r"model rmnet: unknown override 'drop_out', 'x'; expected any of input_bn, activ"
    ):
        models.create_model("rmnet", drop_out=0.1, x=1)
    with pytest.raises(ValueError, match=r"'pretrained'; expected .*, logit_scale beside num_classes and weights$"):
        models.create_model("rmnet", pretrained=True)
    # the baseline has no attention, and so no presets of it
    with pytest.raises(ValueError, match=r"model safr_baseline: unknown override 'preset'"):
        models.create_model("safr_baseline", preset="author")


@pytest.mark.parametrize(
    ("name", "override", "error", "message"),
    [
        ("rmnet", {"activation": "gelu"}, ValueError, "activation: got 'gelu', expected one of 'elu', 'relu'"),
        ("rmnet", {"activation": np.array(["elu", "relu"])}, ValueError, r"activation: got array.* expected one of"),
        ("rmnet", {"dropout": 1.0}, ValueError, r"dropout: got 1.0, expected a value in \[0.0, 1.0\)"),
        ("rmnet", {"dropout": "0.1"}, TypeError, "dropout: got '0.1' of type str, expected float"),
        ("rmnet", {"dropout": float("nan")}, ValueError, "dropout: got nan, expected a finite number"),
        ("rmnet", {"input_bn": 1}, TypeError, "input_bn: got 1 of type int, expected bool"),
        ("rmnet", {"logit_scale": 0}, ValueError, "logit_scale: got 0, expected a positive number"),
        ("rmnet", {"num_classes": -1}, ValueError, "num_classes: got -1, expected 0"),
        ("rmnet", {"num_classes": 2.0}, TypeError, "num_classes: got 2.0 of type float, expected int"),
        ("safr_small", {"preset": "mine"}, ValueError, "preset: got 'mine', expected 'paper' or 'author'"),
        ("safr_small", {"where": "last"}, ValueError, "where: got 'last', expected one of 'none', 'first'"),
        ("safr_small", {"ratio": 0}, ValueError, "ratio: got 0, expected 1 or more"),
        ("safr_small", {"ratio": 65}, ValueError, r"ratio: got 65, expected 1 to 64"),
        ("safr_small", {"ratio": True}, TypeError, "ratio: got True of type bool, expected int"),
        ("safr_small", {"backbone": "resnet1"}, ValueError, "backbone: timm has no model 'resnet1'"),
        ("safr_small", {"backbone": "vit_tiny_patch16_224"}, ValueError, "backbone: "),
    ],
)
def test_wrong_values_are_named(name: str, override: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        models.create_model(name, **override)  # type: ignore[arg-type]


def test_overrides_beat_the_preset_and_configs_are_frozen() -> None:
    config = models.resolve_config("safr_large", preset="author", mask="static_ste")
    assert isinstance(config, models.SAFRConfig)
    assert (config.where, config.conv, config.mask, config.ratio) == ("first", "full", "static_ste", 16)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.ratio = 3  # type: ignore[misc]


def test_options_are_described_with_defaults_and_choices() -> None:
    options = {option.name: option for option in models.model_entry("safr_small").describe_options()}
    assert options["preset"].default == "paper"
    assert options["mask"].default == "ste"
    assert options["mask"].values == "ste, soft, static_ste, static_soft"
    assert options["ratio"].values == "int"
    assert "num_classes" not in options


def test_a_parameter_with_the_name_of_a_field_is_one_option() -> None:
    options = models.model_entry("compact_reid_2x").options
    assert options.count("block") == 1
    assert len(set(options)) == len(options)
    (block,) = (o for o in models.model_entry("compact_reid_2x").describe_options() if o.name == "block")
    assert (block.default, block.values) == ("shuffle", "inception, shuffle")
