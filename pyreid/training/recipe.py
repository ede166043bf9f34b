"""The settings of one training run, as strict pydantic models: a *recipe*.

A recipe file is YAML; :func:`pyreid.training.load_recipe` reads it, follows its ``base`` files, applies overrides and
checks every key and value against these models. Unknown keys are errors and no value is converted silently, so that a
typing error is found in a second and not after a night of training.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StrictBool,
    StrictInt,
    StrictStr,
    model_validator,
)

Int = StrictInt
Float = Annotated[float, Field(strict=True, allow_inf_nan=False)]
PositiveInt = Annotated[StrictInt, Field(ge=1)]
PositiveFloat = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(strict=True, ge=0, le=1)]
Probability100 = Annotated[float, Field(strict=True, ge=0, le=100)]
ImageSize = tuple[Annotated[StrictInt, Field(ge=8, le=4096)], Annotated[StrictInt, Field(ge=8, le=4096)]]
ThreeFloats = tuple[Float, Float, Float]


class Settings(BaseModel):
    """Base of all parts of a recipe: no unknown keys, no changes after the checks."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


# ----------------------------------------------------------------------------------------------------------- data


class ErasingSettings(Settings):
    """Random erasing: with ``probability``, a rectangle of an area share in ``area`` is filled after normalisation."""

    probability: Probability = 0.5
    area: tuple[Probability, Probability] = (0.02, 0.4)
    aspect: Annotated[float, Field(strict=True, gt=0, le=1)] = 0.3
    fill: Literal["mean", "noise"] = "mean"

    @model_validator(mode="after")
    def _area_is_ordered(self) -> ErasingSettings:
        if not 0 < self.area[0] <= self.area[1]:
            raise ValueError(f"area must be [smallest, largest] with 0 < smallest <= largest; got {list(self.area)}")
        return self


class DataSettings(Settings):
    """Which data set, and how its images reach the model.

    ``size`` is (height, width); null takes the model's own. ``mean`` and ``std`` (of RGB in 0..1) likewise.
    ``pad`` is the border in pixels for the random crop after padding; ``flip`` the probability of a mirror image.
    """

    dataset: StrictStr
    root: StrictStr | None = None
    size: ImageSize | None = None
    mean: ThreeFloats | None = None
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    flip: Probability = 0.5
    pad: Annotated[StrictInt, Field(ge=0)] = 10
    erasing: ErasingSettings | None = None
    workers: Annotated[StrictInt, Field(ge=0)] = 2


class SamplerSettings(Settings):
    """A batch is ``num_ids`` identities times ``num_instances`` images (random identity sampler)."""

    num_ids: PositiveInt = 16
    num_instances: PositiveInt = 4


class ModelSettings(Settings):
    """A registered model, a file of weights to start from, and changes to the model's own settings."""

    name: StrictStr
    weights: StrictStr | None = None
    overrides: dict[StrictStr, Any] = Field(default_factory=dict)


# --------------------------------------------------------------------------------------------------------- losses


class CrossEntropySettings(Settings):
    """Cross-entropy on one of the model's logits with label smoothing (modes: see SAFR, Sect. 4.2)."""

    type: Literal["cross_entropy"]
    logits: StrictStr = "id"
    smoothing: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.1
    mode: Literal["standard", "sgn", "sgn_norm"] = "standard"
    weight: NonNegativeFloat = 1.0


class BatchHardTripletSettings(Settings):
    """Batch-hard triplet loss on one of the model's embeddings; ``margin: null`` is the soft margin."""

    type: Literal["batch_hard_triplet"]
    embedding: StrictStr = "embedding"
    margin: NonNegativeFloat | None = 0.3
    weight: NonNegativeFloat = 1.0


class BatchSoftTripletSettings(Settings):
    """Batch-soft triplet loss on one of the model's embeddings; ``margin: null`` is the soft margin."""

    type: Literal["batch_soft_triplet"]
    embedding: StrictStr = "embedding"
    margin: NonNegativeFloat | None = None
    weight: NonNegativeFloat = 1.0


LossSettings = Annotated[
    CrossEntropySettings | BatchHardTripletSettings | BatchSoftTripletSettings, Field(discriminator="type")
]


# ------------------------------------------------------------------------------------------ optimiser and schedule


class SGDSettings(Settings):
    """Stochastic gradient descent with momentum."""

    type: Literal["sgd"]
    lr: PositiveFloat
    momentum: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.9
    weight_decay: NonNegativeFloat = 0.0005
    nesterov: StrictBool = False

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> SGDSettings:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self


class AdamWSettings(Settings):
    """Adam with decoupled weight decay."""

    type: Literal["adamw"]
    lr: PositiveFloat
    weight_decay: NonNegativeFloat = 0.0005
    betas: tuple[
        Annotated[float, Field(strict=True, ge=0, lt=1)],
        Annotated[float, Field(strict=True, ge=0, lt=1)],
    ] = (0.9, 0.999)


OptimizerSettings = Annotated[SGDSettings | AdamWSettings, Field(discriminator="type")]


class WarmupSettings(Settings):
    """Linear warm-up: the factor of the learning rate goes from ``start`` at epoch 0 to 1 at epoch ``epochs``."""

    epochs: PositiveInt
    start: Annotated[float, Field(strict=True, gt=0, le=1)] = 0.1


class ConstantDecay(Settings):
    """The learning rate stays."""

    type: Literal["constant"]


class MultiStepDecay(Settings):
    """The learning rate is multiplied by ``gamma`` at each of the ``milestones`` (epochs from the start of the run)."""

    type: Literal["multi_step"]
    milestones: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    gamma: PositiveFloat = 0.1

    @model_validator(mode="after")
    def _milestones_increase(self) -> MultiStepDecay:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must increase; got {list(self.milestones)}")
        return self


class StepDecay(Settings):
    """The learning rate is multiplied by ``gamma`` every ``every`` epochs, counted from the end of the warm-up."""

    type: Literal["step"]
    every: PositiveInt
    gamma: PositiveFloat = 0.1


class CosineDecay(Settings):
    """Half a cosine from the end of the warm-up to the last epoch, down to ``min_lr`` (an absolute learning rate)."""

    type: Literal["cosine"]
    min_lr: NonNegativeFloat = 0.0


DecaySettings = Annotated[ConstantDecay | MultiStepDecay | StepDecay | CosineDecay, Field(discriminator="type")]


class ScheduleSettings(Settings):
    """The learning rate over the epochs: a warm-up (or null) times a decay."""

    warmup: WarmupSettings | None = None
    decay: DecaySettings = ConstantDecay(type="constant")


# ----------------------------------------------------------------------------------------- trainer and evaluation


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
    ``deterministic`` makes CUDA use deterministic algorithms only (the CPU always does).
    """

    epochs: PositiveInt
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


class PaperNumbers(Settings):
    """What a paper reports for this row, in percent, and where: ``{source: "SAFR, Table 2", mAP: 77.14, ...}``."""

    source: StrictStr
    mAP: Probability100 | None = None
    rank1: Probability100 | None = None
    rank5: Probability100 | None = None
    note: StrictStr | None = None


class Recipe(Settings):
    """One training run: everything that is needed to repeat it, except the images."""

    name: Annotated[StrictStr, Field(pattern=r"^\w[\w.+-]*(/\w[\w.+-]*)*$")]
    description: StrictStr = ""
    seed: Annotated[StrictInt, Field(ge=0, lt=2**32)] = 0
    data: DataSettings
    sampler: SamplerSettings = SamplerSettings()
    model: ModelSettings
    losses: Annotated[tuple[LossSettings, ...], Field(min_length=1)]
    optimizer: OptimizerSettings
    schedule: ScheduleSettings = ScheduleSettings()
    trainer: TrainerSettings
    evaluation: EvaluationSettings = EvaluationSettings()
    paper: PaperNumbers | None = None

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Recipe:
        if any("triplet" in loss.type for loss in self.losses):
            if self.sampler.num_instances < 2:
                raise ValueError(
                    "sampler.num_instances is 1, but a triplet loss needs at least 2 images of an identity"
                )
            if self.sampler.num_ids < 2:
                raise ValueError("sampler.num_ids is 1, but a triplet loss needs at least 2 identities in a batch")
        warmup = self.schedule.warmup
        if warmup is not None and self.schedule.decay.type == "cosine" and warmup.epochs >= self.trainer.epochs:
            raise ValueError(
                f"schedule.warmup.epochs is {warmup.epochs}, which leaves no epoch for the cosine: "
                f"trainer.epochs is {self.trainer.epochs} (schedule.warmup=null trains without)"
            )
        return self
