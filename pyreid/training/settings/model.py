"""The ``model`` part of a recipe, and what the paper reports for it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StrictStr, model_validator

from pyreid.training.settings.base import (
    NonNegativeFloat,
    PositiveInt,
    Probability100,
    Settings,
)


class ModelSettings(Settings):
    """A registered model, a file of weights to start from, and changes to the model's own settings.

    ``dropout_until`` switches all dropout off when that many epochs are done (RMNet, Sect. V); null never does.
    """

    name: StrictStr
    weights: StrictStr | None = None
    overrides: dict[StrictStr, Any] = Field(default_factory=dict)
    dropout_until: PositiveInt | None = None


class PaperScores(Settings):
    """mAP and rank-1 in percent, where the paper gives them."""

    mAP: Probability100 | None = None
    rank1: Probability100 | None = None

    @model_validator(mode="after")
    def _something_is_there(self) -> PaperScores:
        if self.mAP is None and self.rank1 is None:
            raise ValueError("expected mAP, rank1 or both")
        return self


class PaperDeviations(Settings):
    """Standard deviations over the runs of a paper, in percentage points."""

    mAP: NonNegativeFloat | None = None
    rank1: NonNegativeFloat | None = None


class PaperNumbers(Settings):
    """What a paper reports for this row, in percent, and where: ``{source: "SAFR, Table 2", mAP: 77.14, ...}``.

    ``reranked`` are the numbers with k-reciprocal re-ranking. ``stages`` are those of the exits 1..S, first to last, of
    a model that has them; the main numbers are those of the fused embedding. A paper that gives error rates stands
    here with 100 minus the error. ``runs`` is the number of runs that the numbers are means of, where the paper says
    so, and ``std`` their standard deviations.
    """

    source: StrictStr
    mAP: Probability100 | None = None
    rank1: Probability100 | None = None
    rank5: Probability100 | None = None
    reranked: PaperScores | None = None
    stages: Annotated[tuple[PaperScores, ...], Field(min_length=1)] | None = None
    runs: PositiveInt | None = None
    std: PaperDeviations | None = None
    note: StrictStr | None = None

    @model_validator(mode="after")
    def _deviations_have_runs(self) -> PaperNumbers:
        if self.std is not None and (self.runs is None or self.runs < 2):
            raise ValueError(f"std are deviations over several runs, but runs is {self.runs}")
        return self
