from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyreid.layers import GeM, InceptionA, InceptionB, ShuffleA
from pyreid.layers.conv_block import ConvBlock
from pyreid.layers.regions import sample_regions
from pyreid.models import HACNN, complexity, create_model, load_weights
from pyreid.models.hacnn import region_sizes

# Narrow and without repeats: what is tested here does not depend on widths.
SMALL: dict[str, object] = {
    "stem_width": 8, "width1": 16, "width2": 32, "width3": 48, "feat_dim_global": 24, "feat_dim_local": 20
}  # fmt: skip


def make(name: str = "hacnn", **overrides: object) -> HACNN:
    model = create_model(name, **overrides)  # type: ignore[arg-type]
    assert isinstance(model, HACNN)
    return model


def small(**overrides: object) -> HACNN:
    """A narrow network whose batch norms have seen data, in evaluation mode."""
    model = make(**(SMALL | overrides))
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None
    with torch.no_grad():
        for _ in range(2):
            model(torch.randn(4, 3, 64, 32))
    return model.eval()


def test_size_of_the_published_network() -> None:
    with torch.device("meta"):
        model = make(num_classes=751)
    alone, trained = complexity(model), complexity(model, include_classifier=True)
    assert alone.params == pytest.approx(2.929e6, rel=2e-4)
    assert trained.params == alone.params + 2 * (512 * 751 + 751)
    assert trained.params == pytest.approx(3.700e6, rel=2e-4)
    assert alone.macs == pytest.approx(0.544e9, rel=5e-3)


def test_layout() -> None:
    with torch.device("meta"):
        model = make()
        maps = model.eval().feature_maps(torch.empty(2, 3, 160, 64))
    assert maps["global"].shape == (2, 384, 10, 4)
    assert maps["local"].shape == (8, 384, 3, 4)
    assert isinstance(model.stem, ConvBlock)
    for stage in model.global_stages:
        assert [type(block) for block in stage.children()] == [InceptionA, InceptionB]
    assert [type(block) for block in model.local_stages] == [InceptionB] * 3


def test_regions_in_proportion_to_the_image() -> None:
    assert region_sizes(160, 64) == ((24, 28), (12, 14), (6, 7))
    assert region_sizes(320, 128) == ((48, 56), (24, 28), (12, 14))
    assert region_sizes(32, 16) == ((5, 7), (3, 4), (2, 2))
    assert region_sizes(161, 63) == ((24, 28), (12, 14), (6, 7))


@pytest.mark.parametrize("size", [(31, 16), (32, 15)])
def test_too_small_images_are_refused(size: tuple[int, int]) -> None:
    model = small()
    assert model.min_input_size == (32, 16)
    assert model(torch.randn(1, 3, 32, 16)).shape == (1, 44)
    with pytest.raises(ValueError, match=rf"images: got {size[0]} x {size[1]} pixels .*, expected at least 32 x 16"):
        model(torch.randn(1, 3, *size))


@pytest.mark.parametrize("size", [(160, 64), (49, 39)])
@pytest.mark.parametrize("block", ["inception", "shuffle"])
def test_forward_pass_written_out(block: str, size: tuple[int, int]) -> None:
    """Region by region, as HA-CNN describes it, with regions that differ from image to image."""
    model = small(block=block)
    for attention in model.attention:
        nn.init.normal_(attention.get_parameter("hard.fc.weight"), std=0.5)
    images = torch.randn(2, 3, *size)
    x, locals_ = model.stem(images), [torch.zeros(())] * 4
    for index, wanted in enumerate(region_sizes(*size)):
        stage_input = x
        x = model.global_stages[index](x)
        attention = model.attention[index]
        centers = attention.get_submodule("hard")(x)
        assert centers[0].sub(centers[1]).abs().max() > 1e-3
        x = x * attention.get_submodule("soft")(x)
        for region in range(4):
            crop = sample_regions(stage_input, centers[:, region : region + 1], size=wanted, scale=(0.25, 1.0))
            locals_[region] = model.local_stages[index](crop + locals_[region])
    whole = model.get_submodule("global_branch.fc")(x.mean(dim=(2, 3)))
    parts = model.get_submodule("local_branch.fc")(torch.cat([local.mean(dim=(2, 3)) for local in locals_], dim=1))
    expected = torch.cat((F.normalize(whole), F.normalize(parts)), dim=1)
    torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-5)


def training_output(model: HACNN) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """What evaluation returns, and embeddings and logits of the same computation in training."""
    images = torch.randn(3, 3, 48, 32)
    expected = model(images)
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    output = model(images)
    return expected, output.embeddings, output.logits


@pytest.mark.parametrize("neck", ["none", "bn"])
@pytest.mark.parametrize("l2_norm", [False, True])
def test_features_embedding_and_logits(l2_norm: bool, neck: str) -> None:
    model = small(num_classes=5, l2_norm=l2_norm, neck=neck, logit_scale=3.0)
    evaluated, embeddings, logits = training_output(model)
    assert {key: tuple(value.shape) for key, value in embeddings.items()} == {
        "global": (3, 24), "local": (3, 20), "embedding": (3, 44)
    }  # fmt: skip
    halves = []
    for name in ("global", "local"):
        features = embeddings[name]
        assert (features >= 0).all()
        assert torch.allclose(features.norm(dim=1), torch.ones(3)) == l2_norm
        necked = model.get_submodule(f"{name}_branch.neck")(features)
        assert torch.equal(necked, features) == (neck == "none")
        halves.append(F.normalize(necked))
        layer = model.get_submodule(f"classifier.{name}_branch")
        torch.testing.assert_close(logits[name], 3.0 * layer(necked))
    torch.testing.assert_close(embeddings["embedding"], torch.cat(halves, dim=1))
    torch.testing.assert_close(evaluated, embeddings["embedding"])
    torch.testing.assert_close(evaluated[:, :24].norm(dim=1), torch.ones(3))
    torch.testing.assert_close(evaluated[:, 24:].norm(dim=1), torch.ones(3))


@pytest.mark.parametrize("bias", [True, False])
def test_classifiers(bias: bool) -> None:
    with torch.device("meta"):
        names = {name for name, _ in make(num_classes=3, classifier_bias=bias).named_parameters()}
    found = {name for name in names if name.startswith("classifier.")}
    expected = {f"classifier.{branch}_branch.weight" for branch in ("global", "local")}
    assert found == (
        expected | {f"classifier.{branch}_branch.bias" for branch in ("global", "local")} if bias else expected
    )


def test_weights_of_another_number_of_identities_load(tmp_path: Path) -> None:
    first, second = small(num_classes=3), small(num_classes=7)
    torch.save(first.state_dict(), tmp_path / "weights.pt")
    report = load_weights(second, tmp_path / "weights.pt")
    assert set(report.kept) == {f"classifier.{b}_branch.{p}" for b in ("global", "local") for p in ("weight", "bias")}
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(first(images), second(images))


def test_without_regions_there_is_one_branch_for_any_size() -> None:
    model = small(learn_regions=False, num_classes=4)
    assert model.embedding_dim == 24
    assert model.min_input_size == (1, 1)
    assert model(torch.randn(1, 3, 1, 1)).shape == (1, 24)
    _, embeddings, logits = training_output(model)
    assert (list(embeddings), list(logits)) == (["global", "embedding"], ["global"])
    assert not any("hard" in name or "local" in name for name in model.state_dict())


@pytest.mark.parametrize(("pooling", "factor"), [("gem", 1), ("avg", 1), ("max", 1), ("avg_max", 2)])
def test_pooling(pooling: str, factor: int) -> None:
    model = small(pooling=pooling)
    assert model.get_parameter("global_branch.fc.0.weight").shape == (24, 48 * factor)
    assert model.get_parameter("local_branch.fc.0.weight").shape == (20, 4 * 48 * factor)
    assert [isinstance(model.get_submodule(f"{branch}_branch.pool"), GeM) for branch in ("global", "local")] == [
        pooling == "gem"
    ] * 2


@pytest.mark.parametrize("shared", [True, False])
def test_gem_exponents(shared: bool) -> None:
    model = small(pooling="gem", shared_p=shared)
    for branch in ("global", "local"):
        assert model.get_parameter(f"{branch}_branch.pool.p").tolist() == [3.0] * (1 if shared else 48)


def test_widths_and_repeats() -> None:
    model = make(**SMALL, block="shuffle", repeats1=2, repeats3=1)
    repeats = [sum(isinstance(block, ShuffleA) for block in stage.children()) for stage in model.global_stages]
    assert repeats == [2, 0, 1]
    x = torch.randn(2, 3, 32, 32)
    widths = []
    for stage in (model.stem, *model.global_stages):
        x = stage(x)
        widths.append(x.shape[1])
    assert widths == [8, 16, 32, 48]


def test_initial_weights() -> None:
    model = make(num_classes=400)
    for name in (
        "stem.conv",
        "global_stages.1.0.branches.0.1.conv",
        "local_stages.2.branches.1.2.conv",
        "local_branch.fc.0",
    ):
        weight = model.get_parameter(f"{name}.weight")
        assert weight.std().item() == pytest.approx((2 / weight[0].numel()) ** 0.5, rel=0.1)
        assert not model.get_parameter(f"{name}.bias").any()
    for branch in ("global", "local"):
        assert model.get_parameter(f"classifier.{branch}_branch.weight").std().item() == pytest.approx(0.001, rel=0.05)
        assert not model.get_parameter(f"classifier.{branch}_branch.bias").any()
    for attention in model.attention:
        assert not attention.get_parameter("hard.fc.weight").any()
        assert attention.get_parameter("hard.fc.bias").tolist() == [0, -0.75, 0, -0.25, 0, 0.25, 0, 0.75]


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ({"block": "residual"}, ValueError, "block: got 'residual', expected one of 'inception', 'shuffle'"),
        ({"pooling": "sum"}, ValueError, "pooling: got 'sum', expected one of 'gem', 'avg', 'max', 'avg_max'"),
        ({"neck": "ln"}, ValueError, "neck: got 'ln', expected one of 'none', 'bn'"),
        ({"width2": 40}, ValueError, "width2: got 40, expected a positive multiple of 16"),
        ({"width3": 0}, ValueError, "width3: got 0, expected a positive multiple of 16"),
        ({"repeats1": -1}, ValueError, "repeats1: got -1, expected 0 or more"),
        ({"stem_width": 0}, ValueError, "stem_width: got 0, expected a positive number"),
        ({"feat_dim_local": -5}, ValueError, "feat_dim_local: got -5, expected a positive number"),
        ({"logit_scale": 0.0}, ValueError, "logit_scale: got 0.0, expected a positive number"),
        ({"l2_norm": 1}, TypeError, "l2_norm: got 1 of type int, expected bool"),
    ],
)
def test_wrong_values(override: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(**override)
