from __future__ import annotations

import pytest
import torch

from pyreid.layers import GeM
from pyreid.layers.global_pool import make_global_pool, pooled_width


def test_pools() -> None:
    x = torch.rand(3, 5, 4, 2)
    average, maximum = x.sum(dim=(2, 3)) / 8, x.flatten(2).max(dim=2).values
    torch.testing.assert_close(make_global_pool("avg", 5)(x), average)
    torch.testing.assert_close(make_global_pool("max", 5)(x), maximum)
    torch.testing.assert_close(make_global_pool("avg_max", 5)(x), torch.cat((average, maximum), dim=1))
    expected = x.pow(3).mean(dim=(2, 3)).pow(1 / 3)
    torch.testing.assert_close(make_global_pool("gem", 5)(x), expected)


@pytest.mark.parametrize("kind", ["gem", "avg", "max", "avg_max"])
def test_width(kind: str) -> None:
    pool = make_global_pool(kind, 6)  # type: ignore[arg-type]
    assert pool(torch.rand(2, 6, 3, 3)).shape == (2, pooled_width(kind, 6))  # type: ignore[arg-type]


def test_exponents_of_gem() -> None:
    separate, shared = make_global_pool("gem", 6), make_global_pool("gem", 6, shared_p=True)
    assert isinstance(separate, GeM)
    assert isinstance(shared, GeM)
    assert (separate.p.shape, shared.p.shape) == ((6,), (1,))


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="pooling: got 'sum', expected one of 'gem', 'avg', 'max', 'avg_max'"):
        make_global_pool("sum", 4)  # type: ignore[arg-type]
