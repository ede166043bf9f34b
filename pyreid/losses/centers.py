"""One learned centre per identity, for the losses that compare embeddings with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyreid.losses._checks import check_class_range, check_count, check_embeddings, check_number
from pyreid.losses.stepped import SteppedModule
from pyreid.ops._checks import check_choice, upcast

CenterDistance = Literal["euclidean", "cosine"]


def own_cosine_distance(embeddings: Tensor, centers: Tensor, labels: Tensor) -> Tensor:
    """Cosine distance (N,) of each of the ``embeddings`` (N, D) to the centre, of (C, D), of its label (N,)."""
    # indexing, because the backward pass of index_select is not deterministic on CUDA
    return 1 - (F.normalize(embeddings, dim=1) * F.normalize(centers[labels], dim=1)).sum(1)


class _OwnGradient(torch.autograd.Function):
    """The first argument, whose gradient is passed on; the second, of its shape, gets a gradient of ones."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, own: Tensor) -> Tensor:
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        return grad, torch.ones_like(grad)


class Centers(SteppedModule):
    """Centres (C, D) of the identities, shared by the losses that are given this module.

    With ``lr`` they are trained apart from the network, by SGD at this learning rate: see
    :func:`pyreid.losses.own_optimizer`. Each loss then acts on them as if its weight were 1, whatever its weight in the
    sum is; this takes the place of dividing their gradient by the weight. Gradients of accumulated batches add up;
    divide them by the number of batches, as ``pyreid train`` does, where the loss is divided by it.

    Args:
        num_classes: C.
        dim: D.
        distance: ``"euclidean"``: centres start from the standard normal distribution. ``"cosine"``: they start as
            random unit vectors, and :meth:`after_step` gives them unit length again.
        lr: learning rate of their own optimiser; None leaves them to the main optimiser, with the ordinary gradient.
    """

    def __init__(
        self, num_classes: int, dim: int, *, distance: CenterDistance = "euclidean", lr: float | None = 0.5
    ) -> None:
        super().__init__()
        check_count("num_classes", num_classes)
        check_count("dim", dim)
        check_choice("distance", distance, CenterDistance)
        if lr is not None:
            check_number("lr", lr, above=True)
        self.distance: CenterDistance = distance
        self.lr = lr
        self.weight = nn.Parameter(torch.empty(num_classes, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the centres anew."""
        nn.init.normal_(self.weight)
        self.after_step()

    def own_lr(self) -> float | None:
        return self.lr

    @torch.no_grad()
    def after_step(self) -> None:
        """Give the centres of the cosine distance unit length; the others stay."""
        if self.distance == "cosine":
            self.weight.copy_(F.normalize(self.weight, dim=1))

    def evaluate(
        self,
        term: Callable[[Tensor, Tensor], Tensor],
        embeddings: Tensor,
        *,
        learn: bool = True,
        own: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """``term(embeddings, centers)``, with the gradient to the centres that their optimiser needs.

        Args:
            term: a differentiable function of embeddings (N, D) and centres (C, D), both of one dtype, float32 or
                float64. It is called twice if the centres have an optimiser of their own.
            embeddings: (N, D).
            learn: False keeps the centres constant.
            own: what the centres' own optimiser minimises, of the shape of ``term``'s result; None is ``term``.

        Returns:
            The result of ``term``.
        """
        x, weight = upcast(embeddings), upcast(self.weight)
        dtype = torch.promote_types(x.dtype, weight.dtype)
        x, weight = x.to(dtype), weight.to(dtype)
        if learn and self.lr is None:
            return term(x, weight)
        loss = term(x, weight.detach())
        if learn and weight.requires_grad and torch.is_grad_enabled():
            loss = _OwnGradient.apply(loss, (own or term)(x.detach(), weight))
        return loss

    def check(self, embeddings: object, labels: object) -> None:
        """Raise TypeError or ValueError unless these are embeddings (N, D) and labels (N,) in [0, C)."""
        check_embeddings(embeddings, labels)
        assert isinstance(embeddings, Tensor)
        assert isinstance(labels, Tensor)
        if embeddings.shape[1] != self.weight.shape[1]:
            raise ValueError(
                f"embeddings: got shape {tuple(embeddings.shape)}, expected (N, {self.weight.shape[1]}) as the centres "
                "have"
            )
        if embeddings.device != self.weight.device:
            raise ValueError(f"embeddings: on {embeddings.device}, but the centres are on {self.weight.device}")
        check_class_range(labels, self.weight.shape[0])

    def extra_repr(self) -> str:
        classes, dim = self.weight.shape
        return f"{classes}, {dim}, distance={self.distance!r}, lr={self.lr}"
