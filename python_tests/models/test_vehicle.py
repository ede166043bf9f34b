from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyreid.layers import CBAM, SqueezeExcite
from pyreid.models import complexity, create_model
from pyreid.models.timm_backbones import run_stage, run_stem
from pyreid.models.vehicle import StageFusion, VehicleNet

TINY = "test_resnet"
WIDTHS = (32, 48, 192, 96)


def make(name: str = "cw_resnet18", **overrides: object) -> VehicleNet:
    model = create_model(name, **overrides)  # type: ignore[arg-type]
    assert isinstance(model, VehicleNet)
    return model


def tiny(**overrides: object) -> VehicleNet:
    return make(**{"backbone": TINY, "embedding_dim": 16, **overrides})


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("cw_mobilenet_v3_small", 2.110e6),
        ("cw_resnet18", 12.294e6),
        ("cw_se_resnet18", 12.339e6),
        ("cw_se_resnet18_concat", 12.994e6),
        ("cw_se_resnet18_add", 12.470e6),
        ("cw_resnet18_cbam", 12.338e6),
        ("cw_resnet18_cbam_concat", 12.994e6),
        ("cw_se_resnet18_gconcat", 14.141e6),
        ("cw_se_resnext50", 28.202e6),
    ],
)
def test_sizes_with_a_head_of_1024_and_the_classifier_of_veri_776(name: str, params: float) -> None:
    with torch.device("meta"):
        model = make(name, num_classes=576)
    assert model.embedding_dim == 1024
    found = complexity(model, include_classifier=True)
    assert found.params == pytest.approx(params, rel=1e-4, abs=500)
    assert model.default_input_size == (224, 224)


@pytest.mark.parametrize(
    ("name", "macs"),
    [("cw_mobilenet_v3_small", 0.056e9), ("cw_se_resnext50", 4.234e9), ("cw_resnet50", 4.087e9 + 2048 * 1024)],
)
def test_costs_at_224(name: str, macs: float) -> None:
    with torch.device("meta"):
        assert complexity(make(name)).macs == pytest.approx(macs, rel=1e-2)


def test_the_pooled_map_goes_through_the_head() -> None:
    model = make("cw_mobilenet_v3_small", num_classes=4).eval()
    images = torch.randn(2, 3, 64, 48)
    features = model.backbone.forward_features(images).mean(dim=(2, 3))
    assert features.shape == (2, 576)
    torch.testing.assert_close(model(images), model.head(features))
    output = model.train()(images)
    assert tuple(output.embeddings) == ("embedding",)
    embedding = output.embeddings["embedding"]
    assert (embedding >= 0).all()
    assert 0.5 < (embedding == 0).float().mean() < 0.95  # rectified and, as the triplet loss sees it, dropped out
    assert torch.equal(output.logits["id"], model.classifier(embedding))  # type: ignore[misc]


def test_plain_resnet_is_timm_s() -> None:
    model = tiny(head="none").eval()
    images = torch.randn(2, 3, 48, 32)
    assert model.embedding_dim == 96
    torch.testing.assert_close(model(images), model.backbone.forward_features(images).mean(dim=(2, 3)))


@pytest.mark.parametrize(("attention", "kind"), [("se", SqueezeExcite), ("cbam", CBAM)])
def test_attention_acts_once_after_each_stage(attention: str, kind: type[nn.Module]) -> None:
    model = tiny(attention=attention, head="none").eval()
    assert [type(block) for block in model.attention] == [kind] * 4
    images = torch.randn(2, 3, 48, 32)
    x = run_stem(model.backbone, images)
    for stage, block in enumerate(model.attention):
        x = block(run_stage(model.backbone, stage, x))
    torch.testing.assert_close(model(images), x.mean(dim=(2, 3)))
    assert not torch.allclose(model(images), model.backbone(images).mean(dim=(2, 3)), rtol=0.1)


def maps(height: int = 13, width: int = 6) -> list[Tensor]:
    sizes = [(height, width)]
    for _ in range(3):
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    return [torch.randn(2, channels, *size) for channels, size in zip(WIDTHS, sizes, strict=True)]


@pytest.mark.parametrize("size", [(13, 6), (8, 8), (1, 1)])
@pytest.mark.parametrize("conv", ["1x1", "3x3"])
def test_fusion_brings_every_map_to_the_last_one_s_size(conv: str, size: tuple[int, int]) -> None:
    x = maps(*size)
    for kind, factor in (("concat", 2), ("add", 1), ("global_concat", 4)):
        fusion = StageFusion(WIDTHS, kind, conv=conv, norm=False)  # type: ignore[arg-type]
        assert fusion.out_channels == 96 * factor
        assert fusion(x).shape == (2, 96 * factor, *x[-1].shape[2:])


def test_fusion_values() -> None:
    x = maps()
    concat = StageFusion(WIDTHS, "concat", conv="1x1", norm=False)
    weight = concat.get_parameter("projections.0.0.weight")
    third = F.conv2d(x[2][:, :, ::2, ::2], weight)  # a strided 1x1 convolution sees every second pixel
    torch.testing.assert_close(concat(x), torch.cat((third, x[3]), dim=1))
    add = StageFusion(WIDTHS, "add", conv="1x1", norm=False)
    add.load_state_dict(concat.state_dict())
    torch.testing.assert_close(add(x), third + x[3])
    everything = StageFusion(WIDTHS, "global_concat", conv="1x1", norm=False)
    strides = [projection[0].stride[0] for projection in everything.projections]  # type: ignore[index]
    assert strides == [8, 4, 2]
    expected = [
        F.conv2d(m[:, :, ::stride, ::stride], everything.get_parameter(f"projections.{i}.0.weight"))
        for i, (m, stride) in enumerate(zip(x[:3], strides, strict=True))
    ]
    torch.testing.assert_close(everything(x), torch.cat((*expected, x[3]), dim=1))


def test_the_authors_stacks_of_3x3() -> None:
    model = tiny(fusion="global_concat", fusion_conv="3x3")
    assert model.fusion is not None
    shapes = [
        [
            (m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0])
            for m in p.modules()
            if isinstance(m, nn.Conv2d)
        ]
        for p in model.fusion.projections
    ]
    # the stem has 32 channels; stage 3 keeps its 1x1 convolution
    assert shapes == [
        [(32, 48, 3, 2), (48, 192, 3, 2), (192, 96, 3, 2)],
        [(48, 192, 3, 2), (192, 96, 3, 2)],
        [(192, 96, 1, 2)],
    ]
    images = torch.randn(2, 3, 48, 32)
    for module in model.modules():  # timm starts residual branches at 0, and stage 1 would be the stem
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    seen: list[Tensor] = []
    model.fusion.projections[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.eval()(images)
    torch.testing.assert_close(seen[0], run_stem(model.backbone, images))


@pytest.mark.parametrize("fusion", ["concat", "add", "global_concat"])
def test_networks_with_fusion(fusion: str) -> None:
    plain, normed = tiny(fusion=fusion, attention="se"), tiny(fusion=fusion, attention="se", fusion_norm=True)
    assert not [m for m in plain.fusion.modules() if isinstance(m, nn.BatchNorm2d)]  # type: ignore[union-attr]
    norms = [m for m in normed.fusion.modules() if isinstance(m, nn.BatchNorm2d)]  # type: ignore[union-attr]
    assert len(norms) == (3 if fusion == "global_concat" else 1)
    images = torch.randn(3, 3, 33, 17)
    output = normed(images).embeddings["embedding"]
    assert output.shape == (3, 16)
    output.square().sum().backward()
    assert all(p.grad is not None for p in normed.parameters())


def test_classifier_bias_and_extra_layer() -> None:
    assert tiny(num_classes=3, classifier_bias=False).classifier.bias is None  # type: ignore[union-attr]
    model = tiny(num_classes=3, extra_fc=True)
    assert model.classifier.bias is not None  # type: ignore[union-attr]
    output = model(torch.randn(4, 3, 32, 32))
    assert (output.embeddings["embedding"] < 0).any()  # the extra layer comes after the ReLU
    assert model.head[-1].in_features == 16


@pytest.mark.parametrize("dim", [128, 256, 512, 1024])
def test_embedding_sizes_of_table_4(dim: int) -> None:
    with torch.device("meta"):
        model = make("cw_mobilenet_v3_small", embedding_dim=dim, head="vanilla", num_classes=576)
        assert model(torch.empty(2, 3, 64, 64)).embeddings["embedding"].shape == (2, dim)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"attention": "sge"}, "attention: got 'sge', expected one of 'none', 'se', 'cbam'"),
        ({"head": "fc"}, "head: got 'fc', expected one of 'none'"),
        ({"embedding_dim": 0}, "embedding_dim: got 0, expected 1 or more"),
        ({"dropout": 1.0}, r"dropout: got 1.0, expected a value in \[0.0, 1.0\)"),
        ({"fusion_conv": "3x3", "fusion": "add"}, "fusion_conv: got '3x3' with fusion 'add', expected fusion 'global_"),
        ({"fusion_norm": True}, "fusion_norm: got True with fusion 'none', expected a fusion"),
        ({"head": "none", "extra_fc": True}, "extra_fc: got True with head 'none', expected a head"),
        (
            {"backbone": "densenet121", "fusion": "concat"},
            "backbone: got 'densenet121', expected a ResNet for fusion",
        ),
        (
            {"backbone": "mobilenetv3_small_050", "attention": "se"},
            "backbone: got 'mobilenetv3_small_050', expected one with stages for attention or fusion",
        ),
    ],
)
def test_wrong_settings(overrides: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        {"attention": "se", "fusion": "global_concat"},
        {"attention": "cbam", "fusion": "add", "fusion_norm": True},
        {"backbone": "mobilenetv3_small_050"},
    ],
)
def test_compiles_without_graph_breaks(overrides: dict[str, object]) -> None:
    torch._dynamo.reset()
    model = tiny(num_classes=3, dropout=0.0, **overrides)
    images = torch.randn(2, 3, 32, 32)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    compiled(images).logits["id"].square().sum().backward()
    model.eval()
    torch.testing.assert_close(compiled(images), model(images), rtol=1e-4, atol=1e-5)
