from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pyreid.layers.shuffle import channel_shuffle, split_even_odd


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("channels", "groups"), [(12, 3), (12, 4), (12, 1), (12, 12), (5, 5)])
def test_channel_shuffle_sends_every_channel_to_its_place(channels: int, groups: int, channels_last: bool) -> None:
    x = torch.randn(2, channels, 4, 3)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    out = channel_shuffle(x, groups)
    size = channels // groups
    for group in range(groups):
        for index in range(size):
            assert torch.equal(out[:, index * groups + group], x[:, group * size + index])
    assert torch.equal(channel_shuffle(out, size), x)
    assert out.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    assert torch.equal(out, F.channel_shuffle(x, groups))


def test_channel_shuffle_of_nothing_and_of_views() -> None:
    assert channel_shuffle(torch.randn(0, 6, 4, 3), 2).shape == (0, 6, 4, 3)
    x = torch.randn(2, 12, 4, 6)[:, ::2, :, ::2]
    assert torch.equal(channel_shuffle(x, 2), channel_shuffle(x.contiguous(), 2))


def test_channel_shuffle_compiles_and_hands_gradients_back_in_order() -> None:
    x = torch.randn(2, 6, 3, 2, requires_grad=True)
    out = torch.compile(channel_shuffle, fullgraph=True, backend="aot_eager")(x, 3)
    weight = torch.randn(2, 6, 3, 2)
    (gradient,) = torch.autograd.grad((out * weight).sum(), x)
    assert torch.equal(gradient, channel_shuffle(weight, 2))


def test_split_even_odd() -> None:
    x = torch.randn(2, 6, 4, 3)
    even, odd = split_even_odd(x)
    assert torch.equal(even, x[:, [0, 2, 4]])
    assert torch.equal(odd, x[:, [1, 3, 5]])
    assert even.data_ptr() == x.data_ptr()  # no copy
    # a shuffle with two columns, then the halves
    assert torch.equal(torch.cat((even, odd), dim=1), channel_shuffle(x, 3))


def test_wrong_input() -> None:
    with pytest.raises(ValueError, match="groups: got 5, expected a divisor of the 12 channels"):
        channel_shuffle(torch.zeros(1, 12, 2, 2), 5)
    with pytest.raises(ValueError, match="groups: got 0, expected a divisor of the 12 channels"):
        channel_shuffle(torch.zeros(1, 12, 2, 2), 0)
    with pytest.raises(ValueError, match=r"x: got shape \(12, 2, 2\), expected \(N, C, H, W\)"):
        channel_shuffle(torch.zeros(12, 2, 2), 2)
    with pytest.raises(ValueError, match="x: got 5 channels, expected an even number"):
        split_even_odd(torch.zeros(1, 5, 2, 2))
    with pytest.raises(ValueError, match=r"x: got shape \(1, 0, 2, 2\)"):
        split_even_odd(torch.zeros(1, 0, 2, 2))
