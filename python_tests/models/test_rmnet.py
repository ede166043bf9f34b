from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pyreid.layers import RMBlock
from pyreid.layers.rm_block import ConvBN
from pyreid.models import RMNet, create_model


def make(**overrides: object) -> RMNet:
    model = create_model("rmnet", **overrides)  # type: ignore[arg-type]
    assert isinstance(model, RMNet)
    return model


def rm_blocks(model: RMNet) -> list[RMBlock]:
    return [block for block in model.blocks if isinstance(block, RMBlock)]


def test_layout_of_table_1() -> None:
    """Channels, repeats and strides of the paper's Table 1, and the sizes that it prints for 160 x 64 input."""
    model = make().eval()
    layout = [
        (b.reduce.conv.in_channels, b.expand.conv.out_channels, b.spatial.conv.stride[0]) for b in rm_blocks(model)
    ]
    assert layout == (
        [(32, 32, 1)] * 4
        + [(32, 64, 2)] + [(64, 64, 1)] * 8
        + [(64, 128, 2)] + [(128, 128, 1)] * 10
        + [(128, 256, 2)] + [(256, 256, 1)] * 11
    )  # fmt: skip
    longest_path = 1 + 3 * len(layout) + 3
    assert longest_path == 112
    x = model.stem(torch.randn(1, 3, 160, 64))
    assert x.shape == (1, 32, 80, 32)
    assert model.blocks(x).shape == (1, 256, 10, 4)


def test_sizes_of_the_deployed_model() -> None:
    """The Open Model Zoo's person-reidentification-retail-0079 has 0.820 M: convolutions plus folded biases."""
    model = make(calibration="none")
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    weights = sum(m.weight.numel() for m in convs)
    assert weights == 810_736
    assert weights + sum(m.out_channels for m in convs) == pytest.approx(0.820e6, rel=1e-3)
    assert all(m.bias is None for m in convs)


def test_embeddings_have_unit_length_and_logits_are_scaled_cosines() -> None:
    model = make(num_classes=6, logit_scale=17.0)
    output = model(torch.randn(3, 3, 64, 32))
    for embedding in output.embeddings.values():
        torch.testing.assert_close(embedding.norm(dim=1), torch.ones(3))
    cosine = torch.cosine_similarity(
        output.embeddings["embedding"][:, None], model.get_parameter("classifier.weight")[None], dim=2
    )
    torch.testing.assert_close(output.logits["id"], 17.0 * cosine)


def test_default_logit_scale_is_30() -> None:
    assert make(num_classes=2).classifier.scale == 30.0  # type: ignore[union-attr]


@pytest.mark.parametrize("calibration", ["conv", "diag", "none"])
def test_calibration_acts_on_the_unit_local_embedding(calibration: str) -> None:
    model = make(calibration=calibration)
    with torch.no_grad():
        for p in model.calibration.parameters():
            p.copy_(torch.randn_like(p))
    output = model(torch.randn(2, 3, 64, 32))
    local, embedding = output.embeddings["local"], output.embeddings["embedding"]
    calibrated = {
        "conv": lambda: local @ model.get_parameter("calibration.weight").T,
        "diag": lambda: local * model.get_parameter("calibration.weight"),
        "none": lambda: local,
    }[calibration]()
    torch.testing.assert_close(embedding, nn.functional.normalize(calibrated))
    assert (
        sum(p.numel() for p in model.calibration.parameters()) == {"conv": 65536, "diag": 256, "none": 0}[calibration]
    )


def test_first_1x1_of_each_bottleneck_starts_orthogonal_and_the_rest_from_he() -> None:
    model = make()
    for block in rm_blocks(model):
        weight = block.reduce.conv.weight.flatten(1)
        torch.testing.assert_close(weight @ weight.T, torch.eye(len(weight)), rtol=0, atol=1e-5)
    for name in ("stem.conv", "head.0.conv", "blocks.35.spatial.conv", "blocks.35.expand.conv", "calibration"):
        weight = model.get_parameter(f"{name}.weight")
        fan_in = weight[0].numel()
        assert weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.12)


def test_dropout_can_be_switched_off_late() -> None:
    model = make(dropout=0.3)
    images = torch.randn(4, 3, 32, 32)
    model(images)
    assert not torch.equal(*(model(images).embeddings["local"] for _ in range(2)))
    model.set_dropout(0.0)
    assert torch.equal(*(model(images).embeddings["local"] for _ in range(2)))
    model.set_dropout(0.3)
    assert not torch.equal(*(model(images).embeddings["local"] for _ in range(2)))
    with pytest.raises(ValueError, match=r"probability: got 1.0, expected a value in \[0.0, 1.0\)"):
        model.set_dropout(1.0)


def test_switches() -> None:
    assert not any(isinstance(m, nn.ELU) for m in make(activation="relu").modules())
    assert not any(isinstance(m, nn.ReLU) for m in make().modules())
    assert isinstance(make(input_bn=False).input_bn, nn.Identity)
    assert isinstance(make().input_bn, nn.BatchNorm2d)


def test_output_equals_that_of_the_network_with_folded_batch_norms() -> None:
    model = make()
    with torch.no_grad():
        for _ in range(2):
            model(torch.randn(4, 3, 64, 32))
    model.eval()
    folded = copy.deepcopy(model)
    count = 0
    for module in folded.modules():
        if isinstance(module, ConvBN):
            module.conv = fuse_conv_bn_eval(module.conv, module.bn)
            module.add_module("bn", nn.Identity())
            count += 1
    assert count == 1 + 3 * 36 + 3 + 2  # stem, blocks, projections of the skips, head
    images = torch.randn(2, 3, 64, 32)
    torch.testing.assert_close(folded(images), model(images), rtol=1e-4, atol=1e-4)
