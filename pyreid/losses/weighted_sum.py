"""The weighted sum of several losses, with weights that are fixed, follow the losses' sizes, or are learned."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from pyreid.losses._checks import check_number
from pyreid.losses.stepped import SteppedModule
from pyreid.ops._checks import check_choice, check_float_tensor, upcast

WeightMode = Literal["fixed", "balanced", "learned"]


class WeightedSum(SteppedModule):
    """``sum_k w_k L_k`` of named scalar terms.

    - ``"fixed"``: w_k are the given ``weights``.
    - ``"balanced"``: every term is brought to the size of the anchor's, ``w_k = weights_k * size(anchor) / size(k)``
      with ``size`` the running mean of |L_k|. RMNet sets its weights so that all losses have the same impact, and
      prints none. Training mode updates the sizes, from the batches in which a term is neither 0 nor NaN or infinite;
      they are buffers. Until a term or the anchor has a size, w_k = weights_k. No gradient goes through the weights.
    - ``"learned"``: ``sum_k exp(-a_k) weights_k L_k + a_k / 2`` with learned a_k, 0 at first, parameters for the main
      optimiser (Kendall et al. 2018). Weight decay would draw exp(-a_k) to 1. A term of 0, as a satisfied hinge has,
      would have its weight grow without end; :func:`pyreid.losses.after_step` keeps exp(-a_k) to ``max_factor``.

    Deep supervision (DaRe) is such a sum of one loss over the exits of a network::

        total = WeightedSum(dict.fromkeys(exits, 1.0))
        total({name: loss(output.embeddings[name], labels) for name in exits})

    Args:
        weights: by the names of the terms, or a list of them for terms without names; finite and not negative,
            in ``"learned"`` above 0.
        mode: one of the above.
        anchor: name, or index in a list, of the term that keeps its weight in ``"balanced"``; None is the first.
        decay: of the running means, in [0, 1).
        max_factor: largest factor on a weight in ``"balanced"`` and ``"learned"``: a term that has almost vanished must
            not explode when it comes back.
    """

    magnitude: Tensor
    updates: Tensor

    def __init__(
        self,
        weights: Mapping[str, float] | Sequence[float],
        *,
        mode: WeightMode = "fixed",
        anchor: str | int | None = None,
        decay: float = 0.99,
        max_factor: float = 1000.0,
    ) -> None:
        super().__init__()
        self.names: tuple[str, ...] | None = tuple(weights) if isinstance(weights, Mapping) else None
        self.base_weights: tuple[float, ...] = tuple(weights.values() if isinstance(weights, Mapping) else weights)
        if not self.base_weights:
            raise ValueError("weights: got none, expected at least one")
        keys: list[str | int] = list(self.names) if self.names else list(range(len(self.base_weights)))
        for key, weight in zip(keys, self.base_weights, strict=True):
            # a learned factor on nothing would grow without end
            check_number(f"weights[{key!r}]", weight, above=mode == "learned")
        check_choice("mode", mode, WeightMode)
        check_number("decay", decay)
        if decay >= 1:
            raise ValueError(f"decay: got {decay}, expected a value in [0, 1)")
        check_number("max_factor", max_factor, above=True)
        if anchor is not None and (anchor not in keys or isinstance(anchor, bool)):
            raise ValueError(f"anchor: got {anchor!r}, expected one of {', '.join(map(repr, keys))}")
        self.anchor = 0 if anchor is None else keys.index(anchor)
        self.mode: WeightMode = mode
        self.decay = decay
        self.max_factor = max_factor
        if mode == "balanced":
            self.register_buffer("magnitude", torch.zeros(len(keys)))
            self.register_buffer("updates", torch.zeros(len(keys), dtype=torch.int64))
        elif mode == "learned":
            self.log_variance = nn.Parameter(torch.zeros(len(keys)))

    def forward(self, terms: Mapping[str, Tensor] | Sequence[Tensor]) -> Tensor:
        """The sum.

        Args:
            terms: scalars by name, or a list of them in the order of the weights.

        Returns:
            A scalar, at least float32. NaN in a term stays NaN.

        Raises:
            TypeError: a term is not a floating-point tensor.
            ValueError: names, number or shape of the terms do not fit.
        """
        ordered = [upcast(term) for term in self._ordered(terms)]
        # numbers and not a tensor of weights: nothing has to be copied to the device
        values = torch.stack([weight * term for weight, term in zip(self.base_weights, ordered, strict=True)])
        if self.mode == "fixed":
            return values.sum()
        if self.mode == "learned":
            return ((-self.log_variance).exp() * values + self.log_variance / 2).sum()
        if self.training:
            self._observe(torch.stack(ordered).detach())
        return (self.factors() * values).sum()

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep learned factors within ``max_factor``."""
        if self.mode == "learned":
            self.log_variance.clamp_(min=-math.log(self.max_factor))

    def factors(self) -> Tensor:
        """What the given weights (K,) are multiplied by at present; of no gradient, on the device of the state."""
        if self.mode == "fixed":
            return torch.ones(len(self.base_weights))
        if self.mode == "learned":
            return (-self.log_variance.detach()).exp()
        # the running mean starts at 0: as in Adam, its bias is divided out
        size = self.magnitude / (1 - self.decay ** self.updates.clamp(min=1))
        known = self.updates > 0
        factor = (size[self.anchor] / size).clamp(max=self.max_factor)
        return torch.where(known & known[self.anchor], factor, 1)

    @torch.no_grad()
    def _observe(self, terms: Tensor) -> None:
        size = terms.abs().to(self.magnitude.dtype)
        counts = (size > 0) & (size < torch.inf)
        self.magnitude.copy_(torch.where(counts, self.decay * self.magnitude + (1 - self.decay) * size, self.magnitude))
        self.updates.add_(counts)

    def _ordered(self, terms: Mapping[str, Tensor] | Sequence[Tensor]) -> list[Tensor]:
        if isinstance(terms, Mapping):
            given = ", ".join(map(repr, terms))
            if self.names is None:
                raise ValueError(f"terms: got {given}, expected a list, as the weights have no names")
            if set(terms) != set(self.names):
                raise ValueError(f"terms: got {given}, expected {', '.join(map(repr, self.names))}")
            ordered = [terms[name] for name in self.names]
        else:
            ordered = list(terms)
            if len(ordered) != len(self.base_weights):
                raise ValueError(f"terms: got {len(ordered)}, expected {len(self.base_weights)}")
        for key, term in zip(self.names or range(len(ordered)), ordered, strict=True):
            check_float_tensor(f"terms[{key!r}]", term, (0,))
        return ordered

    def extra_repr(self) -> str:
        weights = dict(zip(self.names, self.base_weights, strict=True)) if self.names else list(self.base_weights)
        return f"{weights}, mode={self.mode!r}"
