"""The ``trainer`` and ``evaluation`` parts of a recipe."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainValidator, StrictBool

from pyreid.training.settings.base import (
    PositiveFloat,
    PositiveInt,
    Settings,
)


def _number_to_text(value: Any) -> Any:
    # `precision: 32` is a number in YAML; everybody writes it so.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _one_device(value: Any) -> int | tuple[int, ...]:
    if type(value) is int and value == 1:
        return 1
    if isinstance(value, list | tuple) and len(value) == 1 and type(value[0]) is int and value[0] >= 0:
        return (value[0],)
    raise ValueError("expected 1, or the index of one GPU in brackets as in [2]")


class TrainerSettings(Settings):
    """The loop: epochs, numbers, device.

    ``devices`` is 1, or a list with the index of one GPU. ``grad_clip`` is the largest norm of the gradient of all
    parameters together; null does not clip. ``accumulate`` sums the gradients of that many batches per step.
    ``iterations_per_epoch`` fixes the batches of an epoch, for recipes that count iterations: the sampler starts anew
    as often as it must; null takes what one pass of the sampler gives.
    ``deterministic`` makes CUDA use deterministic algorithms only (the CPU always does).
    """

    epochs: PositiveInt
    iterations_per_epoch: PositiveInt | None = None
    precision: Annotated[Literal["32", "bf16-mixed", "16-mixed"], BeforeValidator(_number_to_text)] = "32"
    grad_clip: PositiveFloat | None = None
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: Annotated[Any, PlainValidator(_one_device)] = 1
    evaluate_every: PositiveInt = 1
    accumulate: PositiveInt = 1
    log_every: PositiveInt = 10
    deterministic: StrictBool = False


class EvaluationSettings(Settings):
    """How query and gallery are compared; the options of :func:`pyreid.evaluate`.

    ``flip``: ``"mean"`` adds the embedding of the mirror image and normalises the sum, ``"concat"`` concatenates and
    normalises, ``"none"`` uses the image as it is.
    """

    metric: Literal["euclidean", "sqeuclidean", "cosine"] = "euclidean"
    ap: Literal["step", "trapezoid"] = "step"
    no_match: Literal["skip", "zero"] = "skip"
    max_rank: PositiveInt = 50
    flip: Literal["none", "mean", "concat"] = "none"
    batch_size: PositiveInt = 64
