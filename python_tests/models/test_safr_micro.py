from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyreid.layers import DBAM, ChannelMask, GlobalAttention
from pyreid.layers.shuffle_xception import ShuffleXception
from pyreid.models import SAFRMicro, complexity, create_model, load_weights, shufflenet_trunk

NO_ATTENTION = {"where": "none", "global_attention": False, "extra_xception": False}


def make(**overrides: object) -> SAFRMicro:
    model = create_model("safr_micro", **overrides)  # type: ignore[arg-type]
    assert isinstance(model, SAFRMicro)
    return model


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages of one or two units: as varied as all 20, and faster."""
    monkeypatch.setattr(shufflenet_trunk, "STAGE_UNITS", ("3X", "5", "73", "7X"))


def settle(model: SAFRMicro) -> SAFRMicro:
    """The model in evaluation, its batch norms with the averages of some images."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.momentum = None
    with torch.no_grad():
        for _ in range(2):
            model(torch.randn(4, 3, 64, 64))
    return model.eval()


def record(model: nn.Module, names: list[str]) -> dict[str, Tensor]:
    """Filled with the input ``NAME.in`` and the output ``NAME`` of submodules by the next forward pass."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> None:
        model.get_submodule(name).register_forward_hook(
            lambda _, inputs, output: seen.update({name: output, name + ".in": inputs[0]})
        )

    for name in names:
        keep(name)
    return seen


@pytest.mark.parametrize(
    ("overrides", "params", "macs"),
    [
        ({}, 1.404e6, 0.162e9),
        # full convolutions, in the first block only
        ({"preset": "author", "extra_xception": True}, 1.431e6, 0.288e9),
        # as released, without the added unit: 1674 parameters and 4.6 M multiply-accumulates less
        ({"preset": "author"}, 1.431e6 - 1674, 0.288e9 - 4.6e6),
        (NO_ATTENTION, 1.4014e6, 152.1e6),
        ({"neck": "none"}, 1.404e6 - 2 * 1280, 0.162e9),
    ],
)
def test_sizes(overrides: dict[str, object], params: float, macs: float) -> None:
    with torch.device("meta"):
        result = complexity(make(**overrides), (224, 224))
    assert result.params == pytest.approx(params, rel=5e-4)
    assert result.macs == pytest.approx(macs, rel=5e-3)


def test_what_the_additions_weigh() -> None:
    def size(**overrides: object) -> int:
        with torch.device("meta"):
            return sum(p.numel() for p in make(**overrides).parameters())

    plain = size(**NO_ATTENTION)
    assert size(**{**NO_ATTENTION, "extra_xception": True}) - plain == 1674
    assert size(**{**NO_ATTENTION, "global_attention": True}) - plain == 2 * 16 * 9
    assert size(**{**NO_ATTENTION, "where": "first"}) - plain == 2 * 36 * 9 + 2 * 36 * 4
    assert size(**{**NO_ATTENTION, "last_se": True}) - plain == 2 * 1280 * 320 + 2 * 320
    assert size(dropout=0.2) == size()


def test_presets() -> None:
    with torch.device("meta"):
        paper, author = make(), make(preset="author")
    for model, groups, mode, hidden in ((paper, (16, 36), "ste", 4), (author, (1, 1), "soft", 2)):
        assert isinstance(model.global_attention, GlobalAttention)
        assert isinstance(model.dbam, DBAM)
        assert (model.global_attention.conv1.groups, model.dbam.conv1.groups) == groups
        assert model.dbam.mask.mode == mode
        assert model.dbam.mask.reduce.out_features == hidden
    assert isinstance(paper.extra_xception, ShuffleXception)
    assert isinstance(author.extra_xception, nn.Identity)
    assert paper.config == make(preset="paper").config
    assert paper.default_input_size == (224, 224)


def test_the_order_of_the_modules(short: None) -> None:
    model = settle(make())
    names = ["backbone.stem", "global_attention", "dbam", "extra_xception", "backbone.last"]
    seen = record(model, [*names, "backbone.units.0", "backbone.units.1"])
    embedding = model(torch.randn(2, 3, 64, 48))
    assert seen["global_attention.in"] is seen["backbone.stem"]
    assert (seen["global_attention"].abs() <= seen["backbone.stem"].abs()).all()
    assert seen["backbone.units.0.in"] is seen["global_attention"]
    assert seen["dbam.in"] is seen["backbone.units.0"]
    assert seen["extra_xception.in"] is seen["dbam"]
    assert seen["backbone.units.1.in"] is seen["extra_xception"]
    assert seen["dbam"].shape == (2, 36, 16, 12)
    torch.testing.assert_close(embedding, F.layer_norm(seen["backbone.last"].mean(dim=(2, 3)), (1280,)))


def test_a_mask_of_zero_gives_the_plain_network_and_one_the_local_features(
    short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = settle(make())
    plain = make(where="none").eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("dbam.")})
    images = torch.randn(2, 3, 64, 48)
    assert isinstance(model.dbam, DBAM)
    seen = record(model, ["backbone.units.0", "dbam"])
    assert not torch.allclose(model(images), plain(images), atol=1e-3)

    monkeypatch.setattr(ChannelMask, "forward", lambda self, avg, maximum: torch.zeros_like(avg))
    torch.testing.assert_close(model(images), plain(images))
    assert torch.equal(seen["dbam"], seen["backbone.units.0"])

    monkeypatch.setattr(ChannelMask, "forward", lambda self, avg, maximum: torch.ones_like(avg))
    model(images)
    x = seen["backbone.units.0"]
    hidden = F.leaky_relu(F.conv2d(x, model.dbam.conv1.weight, padding=1, groups=36), 0.01)
    gate = torch.sigmoid(F.conv2d(hidden, model.dbam.conv2.weight, padding=1, groups=36))
    torch.testing.assert_close(seen["dbam"], F.relu(gate * x))


@pytest.mark.parametrize("mask", ["soft", "ste"])
def test_dbam_is_the_authors_formula_with_its_gradients(short: None, mask: str) -> None:
    """``m * F_L + (1 - m) * x`` written out, without the operators and without a sum to rectify."""
    model = make(mask=mask).double().train()
    images = torch.randn(3, 3, 48, 48, dtype=torch.float64)
    assert isinstance(model.dbam, DBAM)
    dbam = model.dbam
    unit = model.backbone.units[0]
    weight = torch.randn(3, 36, 12, 12, dtype=torch.float64)
    names = [name for name, _ in model.named_parameters() if name.startswith(("dbam", "backbone.units.0."))]
    parameters = [model.get_parameter(name) for name in names]

    def written_out(x: Tensor) -> Tensor:
        hidden = F.leaky_relu(F.conv2d(x, dbam.conv1.weight, padding=1, groups=36), 0.01)
        local = F.relu(torch.sigmoid(F.conv2d(hidden, dbam.conv2.weight, padding=1, groups=36)) * x)
        m = dbam.mask(local.mean(dim=(2, 3)), local.amax(dim=(2, 3)))[:, :, None, None]
        return m * local + (1 - m) * x

    x = unit(model.backbone.stem(images))
    assert (x == 0).any()  # where the ReLU of the sum could matter
    assert (x >= 0).all()
    ours, theirs = dbam(x, torch.zeros_like(x)), written_out(x)
    torch.testing.assert_close(ours, theirs)
    ours_grad = torch.autograd.grad((ours * weight).sum(), parameters, retain_graph=True)
    theirs_grad = torch.autograd.grad((theirs * weight).sum(), parameters)
    for name, one, other in zip(names, ours_grad, theirs_grad, strict=True):
        torch.testing.assert_close(one, other, msg=lambda text, name=name: f"{name}: {text}")


def test_masks_are_binary_in_evaluation(short: None) -> None:
    model = settle(make())
    seen = record(model, ["dbam.mask"])
    model(torch.randn(8, 3, 64, 64))
    assert seen["dbam.mask"].shape == (8, 36)
    assert set(seen["dbam.mask"].unique().tolist()) == {0.0, 1.0}
    soft = settle(make(mask="soft"))
    seen = record(soft, ["dbam.mask"])
    soft(torch.randn(2, 3, 64, 64))
    assert ((seen["dbam.mask"] > 0) & (seen["dbam.mask"] < 1)).all()


def test_sizes_of_350_and_224_give_one_width() -> None:
    model = make().eval()
    assert model(torch.randn(1, 3, 350, 350)).shape == model(torch.randn(1, 3, 224, 224)).shape == (1, 1280)


@pytest.mark.parametrize("mask", ["ste", "soft", "static_ste", "static_soft"])
@pytest.mark.parametrize("conv", ["depthwise", "full"])
def test_a_step_changes_every_parameter_that_learns(short: None, mask: str, conv: str) -> None:
    model = make(mask=mask, conv=conv, num_classes=4, last_se=True, dropout=0.1)
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert set(model.state_dict()) - set(learning) >= {"neck.bias"}
    before = {name: p.detach().clone() for name, p in learning.items()}
    optimizer = torch.optim.SGD(learning.values(), lr=0.1)
    output = model(torch.randn(4, 3, 48, 48))
    loss = F.cross_entropy(output.logits["id"], torch.arange(4))
    # a direction: the layer norm of the neck would take the gradient of a sum or of a norm away
    (loss + (output.embeddings["features"] * torch.randn(4, 1280)).sum()).backward()
    optimizer.step()
    assert [name for name, p in learning.items() if torch.equal(p, before[name])] == []


def test_switches(short: None) -> None:
    images = torch.randn(2, 3, 64, 64)
    bare = make(**NO_ATTENTION, neck="none").eval()
    torch.testing.assert_close(bare(images), bare.backbone(images).mean(dim=(2, 3)))
    assert {name.split(".")[0] for name in bare.state_dict()} == {"backbone"}
    model = make(last_se=True, num_classes=3)
    assert {name.split(".")[0] for name in model.state_dict()} == {
        "backbone", "global_attention", "dbam", "extra_xception", "last_se", "neck", "classifier",
    }  # fmt: skip
    seen = record(model, ["last_se", "backbone.last"])
    features = model(images).embeddings["features"]
    torch.testing.assert_close(seen["last_se.in"].flatten(1), seen["backbone.last"].mean(dim=(2, 3)))
    torch.testing.assert_close(features, seen["last_se"].flatten(1))
    assert isinstance(make(dropout=0.25).dropout, nn.Dropout)


@pytest.mark.parametrize("neck", ["none", "bn", "ln", "gn", "in", "l2"])
def test_necks(short: None, neck: str) -> None:
    output = make(neck=neck, num_classes=2)(torch.randn(3, 3, 32, 32))
    assert output.embeddings["embedding"].shape == (3, 1280)
    assert torch.equal(output.embeddings["embedding"], output.embeddings["features"]) == (neck == "none")


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ({"preset": "mine"}, ValueError, "preset: got 'mine', expected 'paper' or 'author'"),
        ({"where": "all"}, ValueError, "where: got 'all', expected one of 'none', 'first'"),
        ({"ratio": 0}, ValueError, "ratio: got 0, expected 1 or more"),
        ({"ratio": 37}, ValueError, "ratio: got 37, expected 1 to 36"),
        ({"dropout": -0.1}, ValueError, r"dropout: got -0.1, expected a value in \[0.0, 1.0\)"),
        ({"extra_xception": 1}, TypeError, "extra_xception: got 1 of type int, expected bool"),
    ],
)
def test_wrong_values_are_named(override: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(**override)


def test_weights_come_back(tmp_path: Path, short: None) -> None:
    saved = make(num_classes=3)
    torch.save(saved.state_dict(), tmp_path / "micro.pt")
    model = make(num_classes=3, weights=str(tmp_path / "micro.pt"))
    assert all(torch.equal(v, saved.state_dict()[k]) for k, v in model.state_dict().items())
    report = load_weights(make(num_classes=4), tmp_path / "micro.pt")
    assert report.kept == report.ignored == ("classifier.weight",)


def test_bfloat16_autocast_stays_near_full_precision(short: None) -> None:
    model = settle(make(mask="soft", num_classes=4))
    images = torch.randn(4, 3, 64, 64)
    full = model(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(images)
        output = model.train()(images)
        loss = F.cross_entropy(output.logits["id"], torch.arange(4))
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert low.dtype == output.embeddings["embedding"].dtype == torch.float32
    assert torch.cosine_similarity(low, full).min() > 0.98


def test_compiles_without_graph_breaks(short: None) -> None:
    torch._dynamo.reset()
    model = make(num_classes=3)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    images = torch.randn(4, 3, 48, 32)
    expected = model(images)
    model.load_state_dict(state)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    output = compiled(images)
    torch.testing.assert_close(output.logits["id"], expected.logits["id"], rtol=1e-4, atol=1e-5)
    output.logits["id"].square().sum().backward()
    assert model.backbone.stem[0].conv.weight.grad is not None
    model.eval()
    torch.testing.assert_close(compiled(images), model(images), rtol=1e-4, atol=1e-5)
