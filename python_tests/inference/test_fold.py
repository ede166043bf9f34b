"""Folded batch norms: the same embeddings, fewer parameters, and nothing folded that must not be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pyreid
from pyreid.errors import ExportError
from pyreid.inference import fold, fold_batch_norm, fold_report
from pyreid.layers.heads import make_head
from python_tests.inference.networks import every_model, shorten_rmnet, small_overrides, small_size, warmed_up


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


class Net(nn.Module):
    """A network of one line, for what the zoo does not have."""

    default_input_size = (8, 8)

    def __init__(self, forward: Any, **modules: nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)
        self.line = forward

    def forward(self, images: Tensor) -> Tensor:
        return self.line(self, images).flatten(1)


def norm(channels: int, kind: type[nn.Module] = nn.BatchNorm2d, **options: Any) -> Any:
    """A batch norm with statistics and weights that change its input."""
    made = kind(channels, **options)
    generator = torch.Generator().manual_seed(3)
    made.running_mean.copy_(torch.randn(channels, generator=generator))
    made.running_var.copy_(torch.rand(channels, generator=generator) + 0.5)
    if made.affine:
        made.weight.data.copy_(torch.randn(channels, generator=generator))
        made.bias.data.copy_(torch.randn(channels, generator=generator))
    return made


def check_same(model: nn.Module, folded: nn.Module, size: tuple[int, int] = (8, 8)) -> None:
    images = torch.randn(3, 3, *size)
    with torch.no_grad():
        expected, found = model.eval()(images), folded(images)
    assert expected.std(dim=0).max() > 1e-3 * expected.abs().max(), "the images should differ"
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("name", every_model())
def test_every_model_keeps_its_embeddings(name: str) -> None:
    model = warmed_up(name, num_classes=3, **small_overrides(name))
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    folded = fold_batch_norm(model, input_size=small_size(name))
    assert model.training
    assert not any(module.training for module in folded.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert type(folded) is type(model)
    check_same(model, folded, small_size(name))
    report = fold_report(model, folded)
    assert report.folded
    assert report.params_after < report.params_before


def test_rmnet_has_the_papers_parameters() -> None:
    model = pyreid.create_model("rmnet", calibration="none", num_classes=7)
    report = fold_report(model, fold_batch_norm(model))
    assert (report.params_before, report.params_after) == (828_790, 819_766)
    assert report.kept == ("input_bn",)
    assert len(report.folded) == 114


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 6, 3, stride=2, padding=1),
        nn.Conv2d(3, 6, 3, padding=1, groups=3, bias=False),
        nn.Conv2d(3, 6, 3, padding="same", dilation=2),
    ],
    ids=["bias", "depthwise", "same padding"],
)
@pytest.mark.parametrize("affine", [True, False])
def test_convolutions(layer: nn.Module, affine: bool) -> None:
    model = Net(lambda net, x: net.bn(net.conv(x)), conv=layer, bn=norm(6, affine=affine))
    folded = fold_batch_norm(model)
    assert fold_report(model, folded).folded == ("bn",)
    check_same(model, folded)


def test_linear_layers() -> None:
    model = Net(
        lambda net, x: net.bn(net.fc(x.flatten(1))), fc=nn.Linear(192, 5, bias=False), bn=norm(5, nn.BatchNorm1d)
    )
    folded = fold_batch_norm(model)
    assert fold_report(model, folded).folded == ("bn",)
    check_same(model, folded)


@pytest.mark.parametrize(
    "line",
    [
        lambda net, x: net.bn(net.conv(x).relu()),
        lambda net, x: net.bn(x) + net.conv(x),
        lambda net, x: net.bn(y := net.conv(x)) + y,
        lambda net, x: net.bn(net.conv(net.conv(x))),
        lambda net, x: net.bn(net.bn(net.conv(x))),
        lambda net, x: net.bn(net.conv(x)) * net.conv.weight.sum(),
        lambda net, x: net.conv(net.bn(x)),
    ],
    ids=["relu between", "beside", "used twice", "conv twice", "norm twice", "weight used", "norm first"],
)
def test_what_is_not_a_pair_stays(line: Any) -> None:
    model = Net(line, conv=nn.Conv2d(3, 3, 3, padding=1), bn=norm(3))
    folded = fold_batch_norm(model)
    assert fold_report(model, folded).kept == ("bn",)
    check_same(model, folded)


@pytest.mark.parametrize("width", [3, 5], ids=["as wide as the channels", "of another width"])
@pytest.mark.parametrize("maps", [False, True])
def test_a_norm_over_another_dimension_than_the_linear_layers_stays(width: int, maps: bool) -> None:
    model = Net(
        lambda net, x: net.bn(net.fc(x if maps else x.flatten(2))),
        fc=nn.Linear(8 if maps else 64, width),
        bn=norm(3, nn.BatchNorm2d if maps else nn.BatchNorm1d),
    )
    folded = fold_batch_norm(model)
    assert fold_report(model, folded).kept == ("bn",)
    check_same(model, folded)


@pytest.mark.parametrize("kind", ["fc_bn_fc", "fc_bn_relu_dropout_fc", "fc_relu_bn_fc"])
def test_heads(kind: Any) -> None:
    head = make_head(kind, 192, 6, extra_fc=True)
    head.bn = norm(6, nn.BatchNorm1d)
    model = Net(lambda net, x: net.head(x.flatten(1)), head=head)
    folded = fold_batch_norm(model)
    assert bool(fold_report(model, folded).folded) is ("fc_bn" in kind)
    check_same(model, folded)


def test_a_norm_with_an_activation_keeps_the_activation() -> None:
    from timm.layers import BatchNormAct2d

    model = Net(
        lambda net, x: net.bn(net.conv(x)), conv=nn.Conv2d(3, 4, 3), bn=norm(4, BatchNormAct2d, act_layer=nn.ReLU)
    )
    folded = fold_batch_norm(model)
    assert fold_report(model, folded).folded == ("bn",)
    check_same(model, folded)


def test_dtype_and_device_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_rmnet(monkeypatch)
    model = pyreid.create_model("rmnet").half()
    folded = fold_batch_norm(model, input_size=(32, 32))
    assert {parameter.dtype for parameter in folded.parameters()} == {torch.float16}


def test_a_wrong_pair_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Net(lambda net, x: net.bn(net.conv(x).relu()), conv=nn.Conv2d(3, 3, 3), bn=norm(3))
    monkeypatch.setattr(fold, "_find_pairs", lambda *_: [("conv", "bn")])
    with pytest.raises(ExportError, match="model: folding its batch norms changes the embedding by"):
        fold_batch_norm(model)


def test_what_cannot_be_traced() -> None:
    model = Net(lambda net, x: net.conv(x) if x.sum() > 0 else x, conv=nn.Conv2d(3, 3, 3))
    with pytest.raises(ExportError, match="model: Net cannot be traced"):
        fold_batch_norm(model)
    with pytest.raises(ValueError, match="size: expected"):
        fold_batch_norm(nn.Conv2d(3, 3, 3))
