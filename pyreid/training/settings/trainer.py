"""The ``trainer`` and ``evaluation`` parts of a recipe."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, StrictBool, StrictStr, model_validator

from pyreid.training.settings.base import (
    PositiveFloat,
    PositiveInt,
    Probability,
    Settings,
)


def _number_to_text(value: Any) -> Any:
    # `precision: 32` is a number in YAML; everybody writes it so.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _devices(value: Any) -> int | tuple[int, ...]:
    if type(value) is int and value >= 1:
        return value
    if (
        isinstance(value, list | tuple)
        and value
        and all(type(item) is int and item >= 0 for item in value)
        and len(set(value)) == len(value)
    ):
        return tuple(value)
    raise ValueError("expected a number of devices, or different indices of GPUs in brackets as in [0, 2]")


class EarlyStoppingSettings(Settings):
    """End a run when mAP has stopped rising.

    ``patience``: that many evaluations in a row without an mAP above the best one before by more than ``min_delta``
    (in 0..1) end the run.
    """

    patience: PositiveInt
    min_delta: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.0


class TrainerSettings(Settings):
    """The loop: epochs, numbers, device.

    ``devices`` is the number of processes on this machine, each with a GPU of its own or all on the CPU, or a list of
    indices of GPUs; under ``torchrun`` it is 1 or what ``torchrun`` starts. Several processes train by
    DistributedDataParallel; ``strategy``: ``"ddp"`` refuses to train in one, ``"auto"`` does not. Each takes its share
    of the batches, so that one step sees as many batches as there are processes. ``sync_batchnorm`` takes the
    statistics of batch norm over all of them.
    ``grad_clip`` is the largest norm of the gradient of all parameters together; null does not clip. ``accumulate``
    averages the gradients of that many batches per step and process.
    ``iterations_per_epoch`` fixes the batches of an epoch in each process, for recipes that count iterations: the
    sampler starts anew as often as it must; null takes what one pass of the sampler gives.
    ``early_stopping`` ends a run whose mAP has stopped rising; null never does. ``logger``: where the scalars go beside
    the run's metrics.csv.
    ``deterministic`` makes CUDA use deterministic algorithms only (the CPU always does).
    """

    epochs: PositiveInt
    iterations_per_epoch: PositiveInt | None = None
    precision: Annotated[Literal["32", "bf16-mixed", "16-mixed"], BeforeValidator(_number_to_text)] = "32"
    grad_clip: PositiveFloat | None = None
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: Annotated[Any, PlainValidator(_devices)] = 1
    strategy: Literal["auto", "ddp"] = "auto"
    sync_batchnorm: StrictBool = False
    evaluate_every: PositiveInt = 1
    accumulate: PositiveInt = 1
    log_every: PositiveInt = 10
    deterministic: StrictBool = False
    early_stopping: EarlyStoppingSettings | None = None
    logger: Literal["tensorboard", "wandb"] = "tensorboard"

    @property
    def num_devices(self) -> int:
        """Processes on this machine."""
        return len(self.devices) if isinstance(self.devices, tuple) else self.devices


class RerankSettings(Settings):
    """k-reciprocal re-ranking with the parameters of :class:`pyreid.retrieval.KReciprocal`."""

    k1: PositiveInt = 20
    k2: PositiveInt = 6
    lambda_value: Probability = 0.3
    compat: Literal["official", "torchreid", "fastreid"] = "official"


class EvaluationSettings(Settings):
    """How query and gallery are compared: by the protocol of the data set, where nothing else is said.

    ``protocol`` is the name of another protocol of the data set. ``ap`` and ``no_match`` replace those of the protocol.

    ``flip``: ``"mean"`` adds the embedding of the mirror image and normalises the sum, ``"concat"`` concatenates and
    normalises, ``"none"`` uses the image as it is. ``crops``: ``"ten"`` takes the plain mean of the embeddings of ten
    crops of the enlarged image (DaRe); they contain mirror images, so ``flip`` must be ``"none"``.

    ``rerank`` has the last evaluation of a run report the metrics of re-ranked distances besides; null does not.
    ``stages`` has it report those of every exit of a model that has several (DaRe) besides the fused embedding's.
    """

    metric: Literal["euclidean", "sqeuclidean", "cosine"] = "euclidean"
    protocol: StrictStr | None = None
    ap: Literal["step", "trapezoid"] | None = None
    no_match: Literal["skip", "zero"] | None = None
    max_rank: PositiveInt = 50
    flip: Literal["none", "mean", "concat"] = "none"
    crops: Literal["none", "ten"] = "none"
    batch_size: PositiveInt = 64
    rerank: RerankSettings | None = None
    stages: StrictBool = False

    @model_validator(mode="after")
    def _mirror_images_once(self) -> EvaluationSettings:
        if self.crops == "ten" and self.flip != "none":
            raise ValueError(
                f"flip is {self.flip!r}, but crops: ten has mirror images already; set one of both to none"
            )
        return self
