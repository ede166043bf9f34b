"""Stochastic weight averaging and its Gaussian (Izmailov et al. 2018; Maddox et al. 2019; Compact-ReID, Sect. 3.1).

Weights are collected at the end of each learning-rate cycle. Their mean is one model (SWA); with their variance they
make a Gaussian to sample models from (SWAG), whose unit embeddings are averaged (Bayesian model averaging).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

_LEAST_VARIANCE = 1e-30


class SWAG:
    """Running moments of a model's parameters, in float64 on the CPU.

    The variance is diagonal; with ``max_rank`` K > 0 the last K deviations from the running mean add a covariance of
    rank K. Buffers, such as the statistics of batch norm, are not averaged: estimate them anew
    (:func:`estimate_batch_norm`).

    Args:
        max_rank: deviations that are kept; 0 for a diagonal Gaussian.

    Raises:
        ValueError: ``max_rank`` is negative or 1, of which no covariance can be made.
    """

    def __init__(self, *, max_rank: int = 0) -> None:
        if max_rank < 0 or max_rank == 1:
            raise ValueError(f"max_rank: got {max_rank}, expected 0 (diagonal) or at least 2")
        self.max_rank = max_rank
        self.count = 0
        self.mean: dict[str, Tensor] = {}
        self.square: dict[str, Tensor] = {}
        self.deviations: list[dict[str, Tensor]] = []

    def collect(self, model: nn.Module) -> None:
        """Take the model's parameters into the moments."""
        weights = {name: p.detach().to("cpu", torch.float64) for name, p in model.named_parameters()}
        if not self.count:
            self.mean = {name: torch.zeros_like(w) for name, w in weights.items()}
            self.square = {name: torch.zeros_like(w) for name, w in weights.items()}
        if weights.keys() != self.mean.keys():
            raise ValueError("model: its parameters have other names than those collected before")
        n = self.count
        for name, w in weights.items():
            self.mean[name] = (n * self.mean[name] + w) / (n + 1)
            self.square[name] = (n * self.square[name] + w.square()) / (n + 1)
        self.count += 1
        if self.max_rank:
            self.deviations.append({name: (w - self.mean[name]).float() for name, w in weights.items()})
            del self.deviations[: -self.max_rank]

    def variance(self) -> dict[str, Tensor]:
        """Diagonal variance of each parameter, at least 1e-30."""
        self._check()
        return {
            name: (self.square[name] - mean.square()).clamp_(min=_LEAST_VARIANCE) for name, mean in self.mean.items()
        }

    def load_mean(self, model: nn.Module) -> None:
        """Give the model the mean of the collected weights."""
        self._check()
        _set_parameters(model, self.mean)

    def load_sample(self, model: nn.Module, generator: torch.Generator, *, scale: float = 1.0) -> None:
        """Give the model weights from the Gaussian.

        Diagonal: ``mean + sqrt(scale) sigma z``. With K deviations d_k:
        ``mean + sqrt(scale / 2) (sigma z + sum_k d_k z_k / sqrt(K - 1))``.

        Args:
            model: with the parameters that were collected.
            generator: a CPU generator.
            scale: factor on the covariance; 0 gives the mean.

        Raises:
            ValueError: nothing was collected, ``scale`` is negative, or fewer than 2 deviations were kept.
        """
        if not scale >= 0:
            raise ValueError(f"scale: got {scale}, expected 0 or more")
        variance, rank = self.variance(), len(self.deviations)
        if self.max_rank and rank < 2:
            raise ValueError(f"the low-rank covariance needs 2 collections, got {rank}")
        factors = torch.randn(rank, generator=generator, dtype=torch.float64)
        sample = {}
        for name, mean in self.mean.items():
            noise = variance[name].sqrt() * torch.randn(mean.shape, generator=generator, dtype=torch.float64)
            if rank:
                parts = torch.stack([row[name] for row in self.deviations]).double()
                noise += torch.tensordot(factors, parts, dims=1) / (rank - 1) ** 0.5
            sample[name] = mean + (scale / (2 if rank else 1)) ** 0.5 * noise
        _set_parameters(model, sample)

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors."""
        return {"count": self.count, "mean": self.mean, "square": self.square, "deviations": self.deviations}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state_dict` gave."""
        self.count = int(state["count"])
        self.mean, self.square = dict(state["mean"]), dict(state["square"])
        self.deviations = [dict(row) for row in state["deviations"]]

    def _check(self) -> None:
        if not self.count:
            raise ValueError("no weights were collected")


def _set_parameters(model: nn.Module, values: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(values[name])


def estimate_batch_norm(model: nn.Module, batches: Iterable[Any], *, device: torch.device) -> None:
    """Batch norm's statistics anew from one pass over training batches, as plain averages over the batches.

    Args:
        model: its parameters stay; the mode of its modules, too.
        batches: images (N, 3, H, W), or tuples that begin with them.
        device: where the model is.
    """
    with torch.no_grad():
        update_bn(batches, model, device=device)


def averaged_copy(model: nn.Module, swag: SWAG) -> nn.Module:
    """A copy of the model with the mean weights; batch norm's statistics are still the model's."""
    copied = copy.deepcopy(model)
    swag.load_mean(copied)
    return copied
