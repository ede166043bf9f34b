from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyreid.layers import DBAM, ChannelMask, GlobalAttention
from pyreid.models import create_model
from pyreid.models.timm_resnet import STAGES, make_resnet, residual_branch


def dbam_places(**overrides: object) -> list[str]:
    with torch.device("meta"):
        model = create_model("safr_small", **overrides)  # type: ignore[arg-type]
    return list(model.dbam)  # type: ignore[arg-type]


def test_where() -> None:
    assert dbam_places(where="none") == []
    assert dbam_places() == dbam_places(where="first") == ["layer1_0"]
    assert dbam_places(where="stage_first") == ["layer1_0", "layer2_0", "layer3_0", "layer4_0"]
    assert dbam_places(where="all") == [f"layer{stage}_{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]


def test_presets() -> None:
    paper, author = create_model("safr_small"), create_model("safr_small", preset="author")
    for model, groups, mode, hidden in ((paper, 64, "ste", 8), (author, 1, "soft", 4)):
        dbam = model.get_submodule("dbam.layer1_0")
        attention = model.get_submodule("global_attention")
        assert isinstance(dbam, DBAM)
        assert isinstance(attention, GlobalAttention)
        assert dbam.conv1.groups == dbam.conv2.groups == attention.conv1.groups == attention.conv2.groups == groups
        assert dbam.mask.mode == mode
        assert dbam.mask.reduce.out_features == hidden
    assert paper.config == create_model("safr_small", preset="paper").config


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_residual_branch_is_timm_s_block_taken_apart(name: str) -> None:
    backbone = make_resnet(name)
    x = torch.randn(2, 64, 9, 7)
    for stage in STAGES:
        for block in getattr(backbone, stage):
            with torch.no_grad():
                for module in block.modules():
                    if isinstance(module, nn.BatchNorm2d):
                        nn.init.uniform_(module.weight, 0.5, 1.0)
            block.eval()
            branch, identity = residual_branch(block, x.clone())
            expected = block(x.clone())
            assert torch.equal(F.relu(branch + identity), expected)
            assert not torch.equal(branch, torch.zeros_like(branch))
            x = expected


@pytest.mark.parametrize("name", ["safr_small", "safr_baseline"])
def test_without_attention_it_is_timm_s_network(name: str) -> None:
    model = create_model(name, where="none", global_attention=False, neck="none").eval()
    images = torch.randn(2, 3, 64, 40)
    expected = model.get_submodule("backbone").forward_features(images).mean(dim=(2, 3))  # type: ignore[operator]
    torch.testing.assert_close(model(images), expected)


def test_a_mask_of_zero_gives_the_plain_network(monkeypatch: pytest.MonkeyPatch) -> None:
    attentive = create_model("safr_small", where="all", global_attention=False).eval()
    plain = create_model("safr_small", where="none", global_attention=False).eval()
    plain.load_state_dict({k: v for k, v in attentive.state_dict().items() if not k.startswith("dbam.")})
    monkeypatch.setattr(ChannelMask, "forward", lambda self, avg, maximum: torch.zeros_like(avg))
    images = torch.randn(2, 3, 64, 40)
    torch.testing.assert_close(attentive(images), plain(images))


def test_attention_comes_between_conv1_and_bn1() -> None:
    model = create_model("safr_small").eval()
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> None:
        module = model.get_submodule(name)
        module.register_forward_hook(lambda _, inputs, output: seen.update({name: output, name + ".in": inputs[0]}))

    for name in ("backbone.conv1", "global_attention", "backbone.bn1"):
        keep(name)
    model(torch.randn(1, 3, 32, 32))
    assert seen["global_attention.in"] is seen["backbone.conv1"]
    assert seen["backbone.bn1.in"] is seen["global_attention"]
    assert (seen["global_attention"].abs() <= seen["backbone.conv1"].abs()).all()


def test_features_lie_before_the_neck() -> None:
    model = create_model("safr_small", num_classes=4)
    output = model(torch.randn(3, 3, 64, 64))
    features, embedding = output.embeddings["features"], output.embeddings["embedding"]
    assert (features >= 0).all()  # an average of rectified maps
    torch.testing.assert_close(embedding, F.layer_norm(features, (512,)))
    assert torch.equal(output.logits["id"], F.linear(embedding, model.get_parameter("classifier.weight")))
    assert model.get_submodule("classifier").bias is None


def test_sizes_of_350_and_224_give_one_width() -> None:
    model = create_model("safr_small").eval()
    assert model(torch.randn(1, 3, 350, 350)).shape == model(torch.randn(1, 3, 224, 224)).shape == (1, 512)


@pytest.mark.parametrize("mask", ["ste", "soft", "static_ste", "static_soft"])
@pytest.mark.parametrize("conv", ["depthwise", "full"])
def test_attention_learns_through_every_mask(mask: str, conv: str) -> None:
    model = create_model("safr_small", mask=mask, conv=conv, backbone="resnet10t")
    # a trained network: timm starts the last scale of each branch at 0, and then DBAM sees zeros only
    nn.init.ones_(model.get_parameter("backbone.layer1.0.bn2.weight"))
    model(torch.randn(2, 3, 32, 32)).embeddings["embedding"].square().sum().backward()
    model.zero_grad()
    target = torch.randn(2, 512)
    (model(torch.randn(2, 3, 32, 32)).embeddings["embedding"] * target).sum().backward()
    names = [name for name, _ in model.named_parameters() if name.startswith("dbam.layer1_0.mask")]
    assert names
    for name in names:
        grad = model.get_parameter(name).grad
        assert grad is not None
        assert grad.abs().sum() > 0, name


@pytest.mark.parametrize("neck", ["none", "bn", "ln", "gn", "in", "l2"])
def test_necks(neck: str) -> None:
    model = create_model("safr_small", neck=neck, num_classes=2, backbone="resnet10t")
    assert model(torch.randn(3, 3, 32, 32)).embeddings["embedding"].shape == (3, 512)


def test_gem_pooling_is_that_of_the_last_feature_map() -> None:
    model = create_model("safr_small", backbone="resnet10t", pooling="gem", neck="none").eval()
    exponents = model.get_parameter("pool.p")
    assert exponents.shape == (512,)
    with torch.no_grad():
        exponents.uniform_(1, 5)
    images = torch.randn(2, 3, 64, 96)
    features = model.feature_map(images)  # type: ignore[operator]
    expected = features.clamp(min=1e-6).pow(exponents[:, None, None]).mean(dim=(2, 3)).pow(1 / exponents)
    torch.testing.assert_close(model(images), expected)
