from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pyreid.layers import RMBlock


@pytest.mark.parametrize("size", [(8, 6), (7, 5), (1, 1), (2, 9)])
@pytest.mark.parametrize("stride", [1, 2])
def test_any_size(size: tuple[int, int], stride: int) -> None:
    block = RMBlock(8, 8, stride=stride, activation="elu", dropout=0.0)
    assert block(torch.randn(2, 8, *size)).shape == (2, 8, -(-size[0] // stride), -(-size[1] // stride))


def test_the_skip_is_the_identity_at_stride_1() -> None:
    block = RMBlock(8, 8, activation="elu", dropout=0.0).eval()
    torch.nn.init.zeros_(block.expand.bn.weight)
    x = torch.randn(2, 8, 5, 4)
    torch.testing.assert_close(block(x.clone()), F.elu(x))


def test_the_skip_pools_and_projects_at_stride_2() -> None:
    block = RMBlock(8, 12, stride=2, activation="relu", dropout=0.0).eval()
    torch.nn.init.zeros_(block.expand.bn.weight)
    x = torch.randn(2, 8, 6, 4)
    weight = block.skip.get_parameter("1.conv.weight")
    expected = F.relu(F.conv2d(F.max_pool2d(x, 2), weight) / (1 + 1e-5) ** 0.5)
    torch.testing.assert_close(block(x), expected)


def test_dropout_acts_on_the_branch_only() -> None:
    block = RMBlock(8, 8, activation="relu", dropout=0.999999)
    x = torch.rand(2, 8, 5, 4)
    torch.testing.assert_close(block(x), x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "gelu"}, "activation: got 'gelu', expected one of 'elu', 'relu'"),
        ({"stride": 3}, "stride: got 3, expected 1 or 2"),
        ({"dropout": 1.0}, r"dropout: got 1.0, expected a value in \[0, 1\)"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RMBlock(8, 8, **({"activation": "elu", "dropout": 0.0} | options))  # type: ignore[arg-type]


def test_wrong_widths() -> None:
    with pytest.raises(ValueError, match="out_channels: got 10, expected a positive multiple of 4"):
        RMBlock(10, 10, activation="elu", dropout=0.0)
    with pytest.raises(ValueError, match="out_channels: got 8, expected 4 at stride 1"):
        RMBlock(4, 8, activation="elu", dropout=0.0)
