from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyreid.layers import make_head

DESIGNS = {
    "none": [],
    "vanilla": [nn.Linear],
    "fc_relu_dropout_bn_fc": [nn.Linear, nn.ReLU, nn.Dropout, nn.BatchNorm1d],
    "fc_relu_bn_fc": [nn.Linear, nn.ReLU, nn.BatchNorm1d],
    "fc_bn_relu_dropout_fc": [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout],
    "fc_bn_relu_fc": [nn.Linear, nn.BatchNorm1d, nn.ReLU],
    "fc_bn_fc": [nn.Linear, nn.BatchNorm1d],
}


@pytest.mark.parametrize("kind", DESIGNS)
def test_layers_come_in_the_order_of_the_name(kind: str) -> None:
    """The last FC of a name is the classifier, which is not the head's."""
    head = make_head(kind, 6, 8)  # type: ignore[arg-type]
    assert [type(layer) for layer in head] == DESIGNS[kind]
    assert head(torch.randn(3, 6)).shape == (3, 6 if kind == "none" else 8)


@pytest.mark.parametrize("kind", [kind for kind in DESIGNS if kind != "none"])
def test_extra_layer_at_the_end(kind: str) -> None:
    head = make_head(kind, 6, 8, extra_fc=True)  # type: ignore[arg-type]
    assert [type(layer) for layer in head] == [*DESIGNS[kind], nn.Linear]
    assert (head.extra_fc.in_features, head.extra_fc.out_features) == (8, 8)


def test_values() -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 6)
    head = make_head("fc_bn_relu_dropout_fc", 6, 8, dropout=0.0)
    hidden = F.linear(x, head.fc.weight, head.fc.bias)
    expected = F.relu((hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + 1e-5).sqrt())
    torch.testing.assert_close(head(x), expected, rtol=1e-4, atol=1e-5)
    head = make_head("fc_relu_bn_fc", 6, 8)
    hidden = F.relu(F.linear(x, head.fc.weight, head.fc.bias))
    expected = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(head(x), expected, rtol=1e-4, atol=1e-5)


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    head = make_head("fc_bn_relu_dropout_fc", 32, 256, dropout=0.75)
    x = torch.randn(64, 32)
    kept = (head(x) != 0).float().mean().item()
    assert kept == pytest.approx(0.5 * 0.25, abs=0.02)  # half is rectified away
    head.eval()
    assert torch.equal(head(x), head(x))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("fc_fc", {}, "head: got 'fc_fc', expected one of 'none', 'vanilla', 'fc_relu_dropout_bn_fc'"),
        ("vanilla", {"dim": 0}, "embedding_dim: got 0, expected 1 or more"),
        ("vanilla", {"dropout": 1.0}, r"dropout: got 1.0, expected a value in \[0, 1\)"),
        ("none", {"extra_fc": True}, "extra_fc: got True, expected False without a head"),
    ],
)
def test_wrong_arguments(kind: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_head(kind, 6, **({"dim": 8} | options))  # type: ignore[arg-type]
