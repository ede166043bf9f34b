"""The ``model`` part of a recipe, and what the paper reports for it."""

from __future__ import annotations

from typing import Any

from pydantic import Field, StrictStr

from pyreid.training.settings.base import (
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


class PaperNumbers(Settings):
    """What a paper reports for this row, in percent, and where: ``{source: "SAFR, Table 2", mAP: 77.14, ...}``."""

    source: StrictStr
    mAP: Probability100 | None = None
    rank1: Probability100 | None = None
    rank5: Probability100 | None = None
    note: StrictStr | None = None
