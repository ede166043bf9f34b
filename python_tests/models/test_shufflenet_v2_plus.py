from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyreid.errors import WeightsError
from pyreid.layers.shuffle_unit import ShuffleUnit
from pyreid.layers.shuffle_xception import ShuffleXception
from pyreid.layers.squeeze_excite import SqueezeExcite
from pyreid.models import ShuffleNetV2Plus, complexity, create_model, load_weights, shufflenet_trunk


def make(size: str = "small", **overrides: object) -> ShuffleNetV2Plus:
    model = create_model(f"shufflenet_v2_plus_{size}", **overrides)  # type: ignore[arg-type]
    assert isinstance(model, ShuffleNetV2Plus)
    return model


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages of one or two units: as varied as all 20, and faster."""
    monkeypatch.setattr(shufflenet_trunk, "STAGE_UNITS", ("3X", "5", "73", "7X"))


@pytest.mark.parametrize(
    ("size", "params", "macs", "exact"),
    [
        ("small", 5.1e6, 156e6, 5_137_116),
        ("medium", 5.6e6, 222e6, 5_679_840),
        ("large", 6.7e6, 360e6, 6_768_220),
    ],
)
def test_sizes_of_the_model_card(size: str, params: float, macs: float, exact: int) -> None:
    """With ImageNet's classifier, as the authors count."""
    with torch.device("meta"):
        model = make(size, num_classes=1000)
    result = complexity(model, (224, 224), include_classifier=True)
    assert result.params == pytest.approx(params, rel=0.02)
    assert result.params == exact
    with_classifier = result.macs + 1280 * 1000
    assert with_classifier == pytest.approx(macs, rel=0.02)
    if size == "small":
        assert with_classifier == pytest.approx(155.85e6, rel=1e-3)


def test_layout() -> None:
    with torch.device("meta"):
        model = make()
        x = model.backbone.stem(torch.empty(1, 3, 224, 224))
        assert x.shape == (1, 16, 112, 112)
        layout, maps = [], []
        for unit in model.backbone.units:
            stride = 1 if unit.shortcut is None else 2
            kinds = {type(module) for module in unit.modules()}
            kernels = {m.kernel_size[0] for m in unit.modules() if isinstance(m, nn.Conv2d)} - {1}
            assert len(kernels) == 1
            assert isinstance(unit, ShuffleUnit | ShuffleXception)
            kind = "X" if isinstance(unit, ShuffleXception) else str(*kernels)
            layout.append((kind, stride, nn.Hardswish in kinds, nn.ReLU in kinds, SqueezeExcite in kinds))
            x = unit(x) if SqueezeExcite not in kinds else unit.eval()(x)
            maps.append(tuple(x.shape[1:]))
    kinds_in_order = "33X555337375537375X7"
    assert "".join(kind for kind, *_ in layout) == kinds_in_order
    assert [stride for _, stride, *_ in layout] == [2, 1, 1, 1] * 2 + [2] + [1] * 7 + [2, 1, 1, 1]
    assert [rest for _, _, *rest in layout] == (
        [[False, True, False]] * 4 + [[True, False, False]] * 4 + [[True, False, True]] * 12
    )
    assert maps == [(36, 56, 56)] * 4 + [(104, 28, 28)] * 4 + [(208, 14, 14)] * 8 + [(416, 7, 7)] * 4
    assert shufflenet_trunk.STAGE_CHANNELS["medium"] == (48, 128, 256, 512)
    assert shufflenet_trunk.STAGE_CHANNELS["large"] == (68, 168, 336, 672)


def test_the_head_of_the_original(short: None) -> None:
    model = make(num_classes=4, dropout=0.0)
    model(torch.randn(4, 3, 64, 64))
    images = torch.randn(3, 3, 64, 64)
    pooled = model.backbone(images).mean(dim=(2, 3))
    output = model(images)
    gate = model.get_submodule("last_se")
    hidden = F.relu(gate.norm(gate.reduce(pooled)))  # type: ignore[operator]
    excited = pooled * F.relu6(gate.expand(hidden) + 3) / 6  # type: ignore[operator]
    expected = F.hardswish(excited @ model.get_parameter("fc.0.weight").T)
    for name in ("features", "embedding"):
        torch.testing.assert_close(output.embeddings[name], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.logits["id"], expected @ model.get_parameter("classifier.weight").T)
    assert model.get_submodule("fc.0").bias is None


def test_switches(short: None) -> None:
    bare = make(last_se=False, fc=False).eval()
    images = torch.randn(2, 3, 64, 32)
    torch.testing.assert_close(bare(images), bare.backbone(images).mean(dim=(2, 3)))
    assert {name.split(".")[0] for name in bare.state_dict()} == {"backbone"}
    assert {name.split(".")[0] for name in make(last_se=False).state_dict()} == {"backbone", "fc"}
    assert {name.split(".")[0] for name in make(fc=False).state_dict()} == {"backbone", "last_se"}
    assert "neck.weight" in make(neck="ln").state_dict()
    with pytest.raises(ValueError, match=r"dropout: got 1.0, expected a value in \[0.0, 1.0\)"):
        make(dropout=1.0)
    with pytest.raises(ValueError, match="size: got 'tiny', expected one of 'small', 'medium', 'large'"):
        create_model("shufflenet_v2_plus_small", size="tiny")


def test_dropout_touches_the_logits_of_training_alone(short: None) -> None:
    model = make(num_classes=4, dropout=0.5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.eval()
    images = torch.randn(2, 3, 64, 32)
    first, second = model(images), model(images)
    assert torch.equal(first.embeddings["embedding"], second.embeddings["embedding"])
    assert not torch.equal(first.logits["id"], second.logits["id"])
    model.eval()
    assert torch.equal(model(images), model(images))
    torch.testing.assert_close(model(images), first.embeddings["embedding"])
    without = make(num_classes=4, dropout=0.0)
    assert not any(isinstance(module, nn.Dropout) for module in without.modules())


def test_weights_start_from_he() -> None:
    model = make()
    for name in ("backbone.stem.0.conv", "backbone.units.17.branch.0.conv", "backbone.last.0.conv", "fc.0"):
        weight = model.get_parameter(f"{name}.weight")
        assert weight.std().item() == pytest.approx((2 / weight[0].numel()) ** 0.5, rel=0.12)
    depthwise = model.get_parameter("backbone.units.17.branch.2.conv.weight")
    assert depthwise.shape == (208, 1, 5, 5)
    assert depthwise.std().item() == pytest.approx((2 / 25) ** 0.5, rel=0.05)


def test_weights_come_back_and_the_trunk_serves_safr_micro(tmp_path: Path, short: None) -> None:
    saved = make(num_classes=3)
    torch.save(saved.state_dict(), tmp_path / "model.pth")
    model = make(num_classes=5)
    report = load_weights(model, tmp_path / "model.pth")
    assert report.kept == ("classifier.weight",)
    state = saved.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items() if k != "classifier.weight")

    torch.save(saved.backbone.state_dict(), tmp_path / "trunk.pth")
    trunk = create_model("safr_micro").get_submodule("backbone")
    report = load_weights(trunk, tmp_path / "trunk.pth")
    assert report.kept == report.ignored == ()
    assert all(torch.equal(v, trunk.state_dict()[k]) for k, v in saved.backbone.state_dict().items())
    with pytest.raises(WeightsError, match="mis-shaped"):
        load_weights(make("medium"), tmp_path / "model.pth")
    with pytest.raises(WeightsError, match="'timm' needs a model with a timm backbone"):
        make(weights="timm")


def test_bfloat16_autocast_embeds_in_float32(short: None) -> None:
    model = make(num_classes=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(torch.randn(4, 3, 48, 32))
        embedding = model.eval()(torch.randn(2, 3, 48, 32))
    assert output.embeddings["embedding"].dtype == output.embeddings["features"].dtype == torch.float32
    assert embedding.dtype == torch.float32


def test_compiles_without_graph_breaks(short: None) -> None:
    torch._dynamo.reset()
    model = make(num_classes=3, dropout=0.0)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    images = torch.randn(4, 3, 48, 32)
    expected = model(images).embeddings["embedding"]
    model.load_state_dict(state)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(images).embeddings["embedding"], expected, rtol=1e-4, atol=1e-5)
    model.eval()
    torch.testing.assert_close(compiled(images), model(images), rtol=1e-4, atol=1e-5)
