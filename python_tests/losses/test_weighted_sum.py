from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pyreid.losses import BatchHardTripletLoss, WeightedSum, after_step, main_parameters

NAN, INF = float("nan"), float("inf")


def terms(a: float, b: float) -> dict[str, Tensor]:
    return {"a": torch.tensor(a), "b": torch.tensor(b)}


def test_fixed_weights_by_name_and_by_order() -> None:
    total = WeightedSum({"a": 1.0, "b": 5e-4})
    assert total(terms(2.0, 1000.0)).item() == pytest.approx(2.5)
    assert total({"b": torch.tensor(1000.0), "a": torch.tensor(2.0)}).item() == pytest.approx(2.5)
    assert total([torch.tensor(2.0), torch.tensor(1000.0)]).item() == pytest.approx(2.5)
    assert WeightedSum([2, 0.5])((torch.tensor(2.0), torch.tensor(3.0))).item() == 5.5
    assert not list(total.parameters())
    assert not total.state_dict()
    assert total.factors().tolist() == [1, 1]


def test_fixed_weights_are_exact_in_float64() -> None:
    assert WeightedSum([0.1, 0.2])([torch.tensor(3.0).double(), torch.tensor(7.0).double()]).item() == 0.1 * 3 + 0.2 * 7


def test_balanced_terms_have_the_size_of_the_anchor() -> None:
    total = WeightedSum({"a": 1.0, "b": 1.0}, mode="balanced")
    for _ in range(5):
        assert total(terms(8.0, 0.25)).item() == pytest.approx(16)
    assert total.factors().tolist() == pytest.approx([1, 32])
    total = WeightedSum({"a": 1.0, "b": 0.5}, mode="balanced", anchor="b")
    assert total(terms(8.0, -0.25)).item() == pytest.approx(0.25 - 0.125)  # the sign stays, and the weights


def test_balanced_weights_follow_running_means() -> None:
    values = [(8.0, 0.25), (4.0, 0.5), (6.0, 0.125)]
    total = WeightedSum([1.0, 1.0], mode="balanced", decay=0.9)
    mean, results = [0.0, 0.0], []
    for step, pair in enumerate(values, start=1):
        mean = [0.9 * m + 0.1 * v for m, v in zip(mean, pair, strict=True)]
        corrected = [m / (1 - 0.9**step) for m in mean]
        results.append(total([torch.tensor(v) for v in pair]).item())
        assert results[-1] == pytest.approx(pair[0] + corrected[0] / corrected[1] * pair[1], rel=1e-5)
    resumed = WeightedSum([1.0, 1.0], mode="balanced", decay=0.9)
    resumed.load_state_dict(total.state_dict())
    assert torch.equal(resumed.factors(), total.factors())
    resumed.eval()
    resumed([torch.tensor(100.0), torch.tensor(0.0)])
    assert torch.equal(resumed.factors(), total.factors())


def test_balanced_gradient_does_not_go_through_the_weights() -> None:
    total = WeightedSum([1.0, 1.0], mode="balanced")
    a, b = torch.tensor(8.0, requires_grad=True), torch.tensor(0.25, requires_grad=True)
    total([a, b]).backward()
    assert a.grad is not None
    assert b.grad is not None
    assert a.grad.item() == 1
    assert b.grad.item() == pytest.approx(32)


def test_balanced_ignores_zero_and_what_is_not_finite() -> None:
    total = WeightedSum({"a": 1.0, "b": 1.0}, mode="balanced")
    assert total(terms(8.0, 0.0)).item() == 8  # no size of b yet
    assert total.factors().tolist() == [1, 1]
    assert total(terms(8.0, 0.5)).item() == pytest.approx(16)
    before = total.factors().clone()
    for bad in (NAN, INF):
        assert not total(terms(8.0, bad)).isfinite()
        assert not total(terms(bad, 0.5)).isfinite()
    total(terms(8.0, 0.0))
    torch.testing.assert_close(total.factors(), before)
    fresh = WeightedSum({"a": 1.0, "b": 1.0}, mode="balanced")
    assert fresh(terms(0.0, 0.5)).item() == 0.5  # no size of the anchor yet


def test_balanced_factor_is_limited() -> None:
    total = WeightedSum([1.0, 1.0], mode="balanced", max_factor=50.0)
    total([torch.tensor(1.0), torch.tensor(1e-9)])
    assert total.factors().tolist() == [1, 50]


def test_learned_weights() -> None:
    total = WeightedSum([1.0, 3.0], mode="learned").double()
    assert list(main_parameters(total)) == [total.log_variance]
    values = [torch.tensor(2.0, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)]
    assert total(values).item() == pytest.approx(2 + 1.5)
    with torch.no_grad():
        total.log_variance.copy_(torch.tensor([0.7, -0.4]))
    assert total(values).item() == pytest.approx(math.exp(-0.7) * 2 + math.exp(0.4) * 1.5 + 0.35 - 0.2)
    total(values).backward()
    gradient = total.log_variance.grad
    assert gradient is not None
    assert gradient.tolist() == pytest.approx([0.5 - math.exp(-0.7) * 2, 0.5 - math.exp(0.4) * 1.5])
    assert total.factors().tolist() == pytest.approx([math.exp(-0.7), math.exp(0.4)])


def test_learned_weights_settle_where_each_term_counts_the_same() -> None:
    total = WeightedSum([1.0, 1.0], mode="learned")
    optimizer = torch.optim.SGD(total.parameters(), lr=0.5)
    values = [torch.tensor(4.0), torch.tensor(0.25)]
    for _ in range(300):
        optimizer.zero_grad()
        total(values).backward()
        optimizer.step()
    # the gradient 1/2 - exp(-a) L is 0 where every weighted term is 1/2
    assert (total.factors() * torch.stack(values)).tolist() == pytest.approx([0.5, 0.5], rel=1e-3)


def test_learned_weights_of_a_term_that_vanishes_stay_in_bounds() -> None:
    # A hinge that is satisfied leaves a gradient of 1/2 on its a, for ever.
    total = WeightedSum([1.0, 1.0], mode="learned", max_factor=50.0)
    optimizer = torch.optim.Adam(total.parameters(), lr=0.1)

    def train(*values: float) -> None:
        for _ in range(200):
            optimizer.zero_grad()
            total([torch.tensor(value) for value in values]).backward()
            optimizer.step()
            after_step(total)

    train(2.0, 0.0)
    assert total.factors().tolist() == pytest.approx([0.25, 50], rel=0.01)
    train(2.0, 1.0)
    assert total.factors().tolist() == pytest.approx([0.25, 0.5], rel=0.05), "at the bound they still learn"


def test_deep_supervision_is_a_sum_over_exits() -> None:
    exits = ("stage1", "stage2", "embedding")
    loss, labels = BatchHardTripletLoss(None), torch.tensor([0, 0, 1, 1])
    embeddings = {name: torch.randn(4, 3) for name in exits}
    total = WeightedSum(dict.fromkeys(exits, 1.0))({name: loss(embeddings[name], labels) for name in exits})
    assert total.item() == pytest.approx(sum(loss(embeddings[name], labels).item() for name in exits))


@pytest.mark.parametrize("mode", ["fixed", "balanced", "learned"])
def test_every_mode_compiles_takes_half_precision_and_shows_nan(mode: str) -> None:
    total = WeightedSum({"a": 1.0, "b": 0.5}, mode=mode)  # type: ignore[arg-type]
    compiled = torch.compile(total, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(terms(2.0, 4.0)), total(terms(2.0, 4.0)))
    torch.testing.assert_close(compiled(terms(3.0, 4.0)), total(terms(3.0, 4.0)), rtol=0.02, atol=0)
    for dtype in (torch.float16, torch.bfloat16):
        half = total({"a": torch.tensor(2.0, dtype=dtype), "b": torch.tensor(4.0, dtype=dtype)})
        assert half.dtype == torch.float32
    assert total(terms(2.0, NAN)).isnan()


def test_wrong_options_and_input() -> None:
    with pytest.raises(ValueError, match="weights: got none, expected at least one"):
        WeightedSum({})
    with pytest.raises(ValueError, match=r"weights\['b'\]: got -1, expected a finite number of at least 0"):
        WeightedSum({"a": 1, "b": -1})
    with pytest.raises(TypeError, match=r"weights\[1\]: got '2', expected a finite number"):
        WeightedSum([1, "2"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"weights\[1\]: got 0\.0, expected a finite number above 0"):
        WeightedSum([1.0, 0.0], mode="learned")
    with pytest.raises(ValueError, match="mode: expected one of 'fixed', 'balanced', 'learned', got 'auto'"):
        WeightedSum([1], mode="auto")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="anchor: got 'c', expected one of 'a', 'b'"):
        WeightedSum({"a": 1, "b": 1}, mode="balanced", anchor="c")
    with pytest.raises(ValueError, match="anchor: got 2, expected one of 0, 1"):
        WeightedSum([1, 1], mode="balanced", anchor=2)
    with pytest.raises(ValueError, match=r"decay: got 1\.0, expected a value in \[0, 1\)"):
        WeightedSum([1], decay=1.0)
    total = WeightedSum({"a": 1, "b": 1})
    with pytest.raises(ValueError, match="terms: got 'a', expected 'a', 'b'"):
        total({"a": torch.tensor(1.0)})
    with pytest.raises(ValueError, match="terms: got 3, expected 2"):
        total([torch.tensor(1.0)] * 3)
    with pytest.raises(ValueError, match=r"terms\['b'\]: expected a 0-D tensor, got shape \(1,\)"):
        total({"a": torch.tensor(1.0), "b": torch.ones(1)})
    with pytest.raises(TypeError, match=r"terms\['b'\]: expected a torch.Tensor, got float"):
        total({"a": torch.tensor(1.0), "b": 1.0})
    with pytest.raises(ValueError, match="terms: got 'a', expected a list, as the weights have no names"):
        WeightedSum([1])({"a": torch.tensor(1.0)})
