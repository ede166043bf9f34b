from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pyreid.layers import DBAM, ChannelMask, GlobalAttention
from pyreid.layers.channel_mask import straight_through
from pyreid.layers.global_attention import gate_conv
from pyreid.ops import masked_mix, spatial_gate


@pytest.mark.parametrize("conv", ["depthwise", "full"])
@pytest.mark.parametrize("size", [(7, 5), (1, 1), (1, 8)])
def test_global_attention(conv: str, size: tuple[int, int]) -> None:
    layer = GlobalAttention(6, conv=conv)  # type: ignore[arg-type]
    x = 3 * torch.randn(2, 6, *size)
    out = layer(x)
    assert (out.abs() <= x.abs()).all()
    assert (out * x >= 0).all()
    expected = x * torch.sigmoid(layer.conv2(F.leaky_relu(layer.conv1(x), 0.01)))
    torch.testing.assert_close(out, expected)
    assert layer.conv1.bias is layer.conv2.bias is None
    assert layer.conv1.weight.shape == (6, 1 if conv == "depthwise" else 6, 3, 3)


def test_gate_by_loops() -> None:
    """The depthwise gate of one channel, written out."""
    layer = DBAM(2, ratio=1)
    x = torch.randn(1, 2, 4, 3)
    local, avg, maximum = spatial_gate(x, layer.conv1.weight, layer.conv2.weight)

    def convolve(plane: list[list[float]], kernel: Tensor) -> list[list[float]]:
        rows, columns = len(plane), len(plane[0])
        return [
            [
                sum(
                    float(kernel[dr + 1, dc + 1]) * plane[r + dr][c + dc]
                    for dr in (-1, 0, 1)
                    for dc in (-1, 0, 1)
                    if 0 <= r + dr < rows and 0 <= c + dc < columns
                )
                for c in range(columns)
            ]
            for r in range(rows)
        ]

    for channel in range(2):
        plane = x[0, channel].tolist()
        hidden = convolve(plane, layer.conv1.weight[channel, 0].detach())
        hidden = [[value if value > 0 else 0.01 * value for value in row] for row in hidden]
        gate = torch.tensor(convolve(hidden, layer.conv2.weight[channel, 0].detach()))
        expected = (x[0, channel] / (1 + torch.exp(-gate))).clamp(min=0)
        torch.testing.assert_close(local[0, channel], expected)
        torch.testing.assert_close(avg[0, channel], expected.mean())
        torch.testing.assert_close(maximum[0, channel], expected.max())


@pytest.mark.parametrize("shape", [(5,), (3, 5)])
def test_masked_mix_at_both_ends(shape: tuple[int, ...]) -> None:
    local, x, identity = (torch.randn(3, 5, 4, 2) for _ in range(3))
    assert torch.equal(masked_mix(local, x, identity, torch.zeros(shape)), F.relu(x + identity))
    assert torch.equal(masked_mix(local, x, identity, torch.ones(shape)), local)
    mask = torch.rand(shape)
    expected = torch.empty_like(local)
    for n in range(3):
        for c in range(5):
            m = mask[c] if mask.dim() == 1 else mask[n, c]
            expected[n, c] = m * local[n, c] + (1 - m) * (x[n, c] + identity[n, c]).clamp(min=0)
    torch.testing.assert_close(masked_mix(local, x, identity, mask), expected)


@pytest.mark.parametrize("conv", ["depthwise", "full"])
@pytest.mark.parametrize("mask", ["ste", "soft", "static_ste", "static_soft"])
def test_dbam_lies_between_local_and_global(conv: str, mask: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = DBAM(16, conv=conv, mask=mask)  # type: ignore[arg-type]
    x, identity = torch.randn(2, 16, 5, 3), torch.randn(2, 16, 5, 3)
    plain = F.relu(x + identity)
    local = spatial_gate(x, layer.conv1.weight, layer.conv2.weight)[0]
    out = layer(x, identity)
    low, high = torch.minimum(plain, local), torch.maximum(plain, local)
    assert ((out >= low - 1e-6) & (out <= high + 1e-6)).all()
    monkeypatch.setattr(ChannelMask, "forward", lambda self, avg, maximum: torch.zeros_like(avg))
    assert torch.equal(layer(x, identity), plain)
    monkeypatch.setattr(ChannelMask, "forward", lambda self, avg, maximum: torch.ones_like(avg))
    assert torch.equal(layer(x, identity), local)


@pytest.mark.parametrize("mode", ["ste", "static_ste"])
@pytest.mark.parametrize("training", [True, False])
def test_hard_masks_are_zero_or_one(mode: str, training: bool) -> None:
    layer = ChannelMask(64, mode=mode).train(training)  # type: ignore[arg-type]
    mask = layer(torch.randn(8, 64).abs(), torch.randn(8, 64).abs())
    assert mask.shape == ((64,) if mode == "static_ste" else (8, 64))
    assert set(mask.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("mode", ["soft", "static_soft"])
def test_soft_masks_lie_between(mode: str) -> None:
    mask = ChannelMask(64, mode=mode)(torch.randn(8, 64), torch.randn(8, 64))  # type: ignore[arg-type]
    assert ((mask > 0) & (mask < 1)).all()
    assert len(mask.unique()) > 2


def test_soft_mask_is_the_sum_of_one_mlp_on_both_pools() -> None:
    layer = ChannelMask(16, mode="soft", ratio=4)
    avg, maximum = torch.randn(3, 16), torch.randn(3, 16)
    down, up = layer.reduce.weight, layer.expand.weight
    assert down.shape == (4, 16)
    expected = torch.sigmoid(((avg @ down.T).relu() + (maximum @ down.T).relu()) @ up.T)
    torch.testing.assert_close(layer(avg, maximum), expected)
    assert layer.reduce.bias is layer.expand.bias is None


def test_straight_through_has_the_gradient_of_the_sigmoid() -> None:
    logits = torch.tensor([-2.0, -1e-3, 0.0, 1e-3, 3.0], requires_grad=True)
    hard = straight_through(logits)
    assert hard.tolist() == [0.0, 0.0, 0.0, 1.0, 1.0]
    (gradient,) = torch.autograd.grad(hard.sum(), logits)
    soft = torch.sigmoid(logits.detach())
    torch.testing.assert_close(gradient, soft * (1 - soft))


def test_wrong_options() -> None:
    with pytest.raises(ValueError, match="conv: got 'dw', expected 'depthwise' or 'full'"):
        gate_conv(4, "dw")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="mode: got 'hard', expected 'ste', 'soft'"):
        ChannelMask(4, mode="hard")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"ratio: got 5, expected 1 to 4"):
        ChannelMask(4, ratio=5)
