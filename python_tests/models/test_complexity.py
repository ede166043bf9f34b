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
