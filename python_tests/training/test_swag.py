"""Moments of collected weights against NumPy, samples from them, and batch-norm statistics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pyreid.training.swag import SWAG, averaged_copy, estimate_batch_norm


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def collected(count: int, **options: int) -> tuple[SWAG, np.ndarray]:
    swag, rows = SWAG(**options), []
    for seed in range(count):
        model = network(seed)
        rows.append(torch.cat([p.detach().flatten() for p in model.parameters()]).double().numpy())
        swag.collect(model)
    return swag, np.stack(rows)


def flat(values: dict[str, torch.Tensor]) -> np.ndarray:
    return torch.cat([v.flatten() for v in values.values()]).double().numpy()


def weights(model: nn.Module) -> np.ndarray:
    return torch.cat([p.detach().flatten() for p in model.parameters()]).double().numpy()


def test_moments_are_those_of_the_collected_weights() -> None:
    swag, rows = collected(7)
    np.testing.assert_allclose(flat(swag.mean), rows.mean(0), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(flat(swag.variance()), np.maximum(rows.var(0), 1e-30), rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(weights(averaged_copy(network(9), swag)), rows.mean(0), rtol=1e-6, atol=1e-8)


def test_equal_collections_leave_the_least_variance() -> None:
    swag = SWAG()
    model = network(3)
    for _ in range(4):
        swag.collect(model)
    assert flat(swag.variance()).max() <= 1e-15  # rounding of float64
    before = weights(model)
    swag.load_sample(model, torch.Generator().manual_seed(1))
    np.testing.assert_allclose(weights(model), before, rtol=1e-6, atol=1e-7)


def test_diagonal_samples_have_mean_and_variance() -> None:
    swag, rows = collected(5)
    generator = torch.Generator().manual_seed(2)
    model = network(0)
    samples = []
    for _ in range(2000):
        swag.load_sample(model, generator, scale=0.25)
        samples.append(weights(model))
    deviation = rows.std(0)
    z = (np.mean(samples, 0) - rows.mean(0)) / (0.5 * deviation / 2000**0.5 + 1e-12)
    assert np.abs(z).max() < 5
    np.testing.assert_allclose(np.std(samples, 0), 0.5 * deviation, rtol=0.12, atol=1e-7)
    swag.load_sample(model, generator, scale=0.0)
    np.testing.assert_allclose(weights(model), rows.mean(0), rtol=1e-6, atol=1e-8)


def test_low_rank_samples_lie_along_the_deviations() -> None:
    swag, rows = collected(4, max_rank=3)
    assert len(swag.deviations) == 3
    last = rows[3] - rows.mean(0)
    np.testing.assert_allclose(flat(swag.deviations[-1]), last, rtol=1e-5, atol=1e-6)
    deviations = np.stack([flat(row) for row in swag.deviations])
    # Maddox et al. 2019, eq. 1: half the diagonal variance, and half of D D^T / (K - 1)
    low_rank, diagonal = deviations.T @ deviations / (2 * (3 - 1)), np.diag(rows.var(0)) / 2
    generator, model = torch.Generator().manual_seed(3), network(0)

    def covariance(**options: float) -> np.ndarray:
        samples = []
        for _ in range(2000):
            swag.load_sample(model, generator, **options)
            samples.append(weights(model) - rows.mean(0))
        return np.cov(np.stack(samples).T, bias=True)

    expected = low_rank + diagonal
    assert np.abs(covariance() - expected).max() < 0.12 * expected.max()
    np.testing.assert_allclose(np.diag(covariance(scale=0.25)), np.diag(expected) / 4, rtol=0.15, atol=1e-12)
    swag.square = {name: mean.square() for name, mean in swag.mean.items()}  # no diagonal part
    assert np.abs(covariance() - low_rank).max() < 0.15 * np.abs(low_rank).max()


def test_state_dict_round_trip() -> None:
    first, _ = collected(3, max_rank=2)
    second = SWAG(max_rank=2)
    second.load_state_dict(first.state_dict())
    for swag in (first, second):
        swag.collect(network(11))
    assert second.count == 4
    np.testing.assert_array_equal(flat(first.mean), flat(second.mean))
    np.testing.assert_array_equal(flat(first.variance()), flat(second.variance()))
    models = network(0), network(1)
    for swag, model in zip((first, second), models, strict=True):
        swag.load_sample(model, torch.Generator().manual_seed(5))
    np.testing.assert_array_equal(weights(models[0]), weights(models[1]))


def test_batch_norm_is_estimated_from_all_batches_in_any_order() -> None:
    batches = [torch.randn(6, 3, 3, 3) * (k + 1) for k in range(4)]
    models = [network(1), network(1)]
    for model in models:
        model[1].running_mean.fill_(7.0)
        model.eval()
    estimate_batch_norm(models[0], batches, device=torch.device("cpu"))
    estimate_batch_norm(models[1], [(batch, "label") for batch in batches[::-1]], device=torch.device("cpu"))
    for a, b in zip(models[0].buffers(), models[1].buffers(), strict=True):
        torch.testing.assert_close(a, b)
    maps = [models[0][0](batch) for batch in batches]
    expected = torch.stack([m.mean(dim=(0, 2, 3)) for m in maps]).mean(0)
    torch.testing.assert_close(models[0][1].running_mean, expected)
    assert not models[0].training
    assert models[0][1].momentum == 0.1


def test_wrong_use() -> None:
    with pytest.raises(ValueError, match="max_rank: got 1, expected 0"):
        SWAG(max_rank=1)
    with pytest.raises(ValueError, match="no weights were collected"):
        SWAG().variance()
    swag, _ = collected(2)
    with pytest.raises(ValueError, match="scale: got -1"):
        swag.load_sample(network(0), torch.Generator(), scale=-1)
    with pytest.raises(ValueError, match="other names"):
        swag.collect(nn.Linear(2, 2))
    short, _ = collected(1, max_rank=3)
    with pytest.raises(ValueError, match="the low-rank covariance needs 2 collections, got 1"):
        short.load_sample(network(0), torch.Generator())
