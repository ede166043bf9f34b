from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyreid.models import complexity, create_model


class Toy(nn.Module):
    """3x3 stride-2 convolution to 8, depthwise 3x3, a functional 1x1 to 4, pool, linear to 5, and a classifier."""

    default_input_size = (8, 6)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.weight = nn.Parameter(torch.randn(4, 8, 1, 1))
        self.linear = nn.Linear(4, 5)
        self.classifier = nn.Linear(5, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(self.depthwise(self.bn(self.conv(x))), self.weight)
        x = self.linear(x.mean(dim=(2, 3)))
        return self.classifier(x) if self.training else x


def by_hand(height: int, width: int) -> int:
    pixels = -(-height // 2) * -(-width // 2)
    return pixels * (8 * 3 * 9 + 8 * 9 + 4 * 8) + 4 * 5


@pytest.mark.parametrize("size", [(8, 6), (7, 9), (1, 1)])
def test_counts_by_hand(size: tuple[int, int]) -> None:
    result = complexity(Toy(), size)
    assert result.macs == by_hand(*size)
    assert result.flops == 2 * result.macs
    assert result.weight_params == 8 * 3 * 9 + 8 * 9 + 4 * 5
    assert result.params == result.weight_params + 16 + 8 + 32 + 5
    assert result.folded_params == result.weight_params + 8 + 8 + 5
    pixels = -(-size[0] // 2) * -(-size[1] // 2)
    assert result.norm_ops == 2 * 8 * pixels
    assert result.activation_ops == 0
    assert result.macs_and_norms == result.macs + result.norm_ops


class Elementwise(nn.Module):
    """Norms and activations of all kinds, on 3 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.group = nn.GroupNorm(3, 3)
        self.layer = nn.LayerNorm(3)
        self.batch = nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(F.elu_(F.relu(self.group(x))), inplace=True)
        x = F.leaky_relu(F.gelu(F.silu(x + 1)))
        x = x.mean(dim=(2, 3))
        return torch.sigmoid(self.batch(self.layer(x))) * F.hardsigmoid(x).tanh()


def test_norms_and_activations_by_hand() -> None:
    result = complexity(Elementwise(), (4, 5))
    assert result.norm_ops == 2 * (3 * 20 + 3 + 3)
    assert result.activation_ops == 6 * 3 * 20 + 3 * 3
    assert result.macs == 0


def test_activations_inside_the_operators() -> None:
    """SAFR-Small's gates: one map of 64 x 16 x 16 in the stem, one of 64 x 8 x 8 in DBAM, its mask of 64 logits."""
    with torch.device("meta"):
        ours, plain = (create_model("safr_small", **options) for options in ({}, {"global_attention": False}))
        without = create_model("safr_small", where="none", global_attention=False)
    assert complexity(ours, (32, 32)).activation_ops - complexity(plain, (32, 32)).activation_ops == 2 * 64 * 16 * 16
    # the mixing has the ReLU that ends a plain block too; the mask's MLP has 8 hidden units for each of two pools
    expected = 3 * 64 * 8 * 8 + 64 + 2 * 8
    assert complexity(plain, (32, 32)).activation_ops - complexity(without, (32, 32)).activation_ops == expected


@pytest.mark.parametrize(("name", "cost"), [("compact_reid_1x", 0.701e9), ("compact_reid_2x", 1.654e9)])
def test_norms_of_compact_reid(name: str, cost: float) -> None:
    """What Table 1 of Compact-ReID prints, 0.72 and 1.68, is nearest with two operations for a normalised element."""
    with torch.device("meta"):
        result = complexity(create_model(name))
    assert result.macs_and_norms == pytest.approx(cost, rel=5e-4)


def test_classifier_adds_parameters_only() -> None:
    without, included = complexity(Toy()), complexity(Toy(), include_classifier=True)
    assert included.params - without.params == included.weight_params - without.weight_params == 50
    assert included.macs == without.macs == by_hand(8, 6)


def test_the_model_stays_as_it_is() -> None:
    model = Toy()
    model.linear.requires_grad_(False)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    frozen = complexity(model)
    assert frozen == complexity(Toy())  # frozen parameters count
    assert model.training
    assert model.conv.weight.device.type == "cpu"
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_precision_does_not_matter() -> None:
    assert complexity(Toy().double()) == complexity(Toy().bfloat16()) == complexity(Toy())


@pytest.mark.parametrize("size", [(0, 4), (4,), (4.0, 4), "44", (4, 4, 4), 4])
def test_wrong_input_size(size: object) -> None:
    with pytest.raises(ValueError, match=r"input_size: got .*, expected \(height, width\), two positive integers"):
        complexity(Toy(), size)  # type: ignore[arg-type]


def test_missing_input_size() -> None:
    with pytest.raises(ValueError, match="input_size: got None"):
        complexity(nn.Conv2d(3, 4, 1))


def test_default_size_and_calibration_of_rmnet() -> None:
    with_calibration, without = complexity(create_model("rmnet")), complexity(create_model("rmnet", calibration="none"))
    assert with_calibration.macs - without.macs == with_calibration.params - without.params == 256 * 256
    assert without == complexity(create_model("rmnet", calibration="none"), (160, 64))
